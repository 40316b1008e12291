"""Configurations of trainers that put other groups in the place of the given ones.

DeepSpeed reads a file of its own, in which an optimizer and a scheduler may be named. What
follows is what its engine, and the trainers of transformers and Accelerate, do with it.
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

# Schedulers of DeepSpeed that write one rate into every group, and where they are given it.
_ABSOLUTE: Final = {
    "WarmupLR": ("warmup_min_lr", "warmup_max_lr"),
    "WarmupDecayLR": ("warmup_min_lr", "warmup_max_lr"),
    "OneCycle": ("cycle_min_lr", "cycle_max_lr"),
    "LRRangeTest": ("lr_range_test_min_lr",),
}


def configuration(given: object) -> Mapping[str, Any] | None:
    """A configuration of DeepSpeed: a mapping, or the path to one in JSON.

    Raises:
        NnlrError: If it is neither.
        ConfigError: If the file cannot be read.
    """
    if given is None or isinstance(given, Mapping):
        return given
    if not isinstance(given, str | PathLike):
        raise NnlrError(
            "deepspeed must be the configuration as a mapping, or the path to its JSON file, "
            f"got {shown(given)}."
        )
    try:
        read = json.loads(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"deepspeed={shown(given)} cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise ConfigError(f"deepspeed={shown(given)} holds {shown(read)}, not an object.")
    return read


def deepspeed_optimizer(subject: Subject) -> Iterator[Finding]:
    """An optimizer in the configuration takes the place of the given one."""
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
    """A scheduler in the configuration writes absolute rates."""
    section = _section(subject, "scheduler")
    keys = _ABSOLUTE.get(str(section.get("type")), ())
    given = section.get("params") or {}
    scalar = [key for key in keys if not isinstance(given.get(key), list | tuple)]
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
    """An offloaded optimizer is built anew from the groups of the given one."""
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
    section = (subject.deepspeed or {}).get(key)
    return section if isinstance(section, Mapping) else {}
