"""Findings about DeepSpeed's configuration, which may replace the optimizer and its groups.

The configuration may name an optimizer and a scheduler. The findings tell what DeepSpeed's
engine, and the trainers of transformers and Accelerate, do then.
"""

import json
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final

from nnlr._checks.subject import Subject
from nnlr._findings import Finding, error, note
from nnlr._text import shown
from nnlr.errors import ConfigError, NnlrError

# Schedulers of DeepSpeed that write one rate into every group, and the arguments for it.
_ABSOLUTE: Final = {
    "WarmupLR": ("warmup_min_lr", "warmup_max_lr"),
    "WarmupDecayLR": ("warmup_min_lr", "warmup_max_lr"),
    "OneCycle": ("cycle_min_lr", "cycle_max_lr"),
    "LRRangeTest": ("lr_range_test_min_lr",),
}


def configuration(deepspeed: object) -> Mapping[str, Any] | None:
    """The configuration of DeepSpeed passed to ``check``, read if it is a file."""
    if deepspeed is None or isinstance(deepspeed, Mapping):
        return deepspeed
    if not isinstance(deepspeed, str | PathLike):
        raise NnlrError(
            "deepspeed must be the configuration as a mapping, or the path to its JSON file, "
            f"got {shown(deepspeed)}."
        )
    try:
        read = json.loads(Path(deepspeed).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"deepspeed={shown(deepspeed)} cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise ConfigError(f"deepspeed={shown(deepspeed)} holds {shown(read)}, not an object.")
    return read


def deepspeed_optimizer(subject: Subject) -> Iterator[Finding]:
    """An optimizer in the configuration, which replaces the one passed to the trainer."""
    section = _section(subject, "optimizer")
    if section:
        yield error(
            "deepspeed-optimizer",
            (),
            cause=f"the DeepSpeed configuration names an optimizer ({section.get('type', '?')}): "
            "trainers hand DeepSpeed one flat list of parameters then, and every layer "
            "trains at its rate",
            fix="Take the section out, and pass plan.optimizer(...): config.pop('optimizer')",
        )


def deepspeed_scheduler(subject: Subject) -> Iterator[Finding]:
    """A scheduler in the configuration that writes absolute rates."""
    section = _section(subject, "scheduler")
    keys = _ABSOLUTE.get(str(section.get("type")), ())
    params = section.get("params") or {}
    scalar = [key for key in keys if not isinstance(params.get(key), list | tuple)]
    if scalar:
        yield error(
            "deepspeed-scheduler",
            (),
            cause=f"the DeepSpeed configuration names the scheduler {section['type']}, which "
            f"writes {' and '.join(scalar)} into every group alike",
            fix="Take the section out, and pass nnlr.schedule(...); or give lists with one "
            "rate for each group: config.pop('scheduler')",
        )


def deepspeed_offload(subject: Subject) -> Iterator[Finding]:
    """An offloaded optimizer, which trainers build again from the groups of yours."""
    offload = _section(subject, "zero_optimization").get("offload_optimizer")
    device = offload.get("device", "none") if isinstance(offload, Mapping) else "none"
    forced = (subject.deepspeed or {}).get("zero_force_ds_cpu_optimizer", True)
    if device != "none" and forced and not _section(subject, "optimizer"):
        yield note(
            "deepspeed-offload",
            (),
            cause=f"DeepSpeed offloads the optimizer to {device!r}: trainers build another, such "
            "as DeepSpeedCPUAdam, from its groups. Rates are kept; hooks, such as that of "
            "keep_ratios, are not",
            fix="Register hooks on the optimizer that the trainer steps, or keep yours: "
            "config['zero_force_ds_cpu_optimizer'] = False",
        )


def _section(subject: Subject, key: str) -> Mapping[str, Any]:
    """A section of the configuration; empty if it has none."""
    section = (subject.deepspeed or {}).get(key)
    return section if isinstance(section, Mapping) else {}
