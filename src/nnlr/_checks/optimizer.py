"""Optimizers that do not read what their groups say."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch.optim import Optimizer

from nnlr import checkpoint
from nnlr._checks.fixes import defaults, rebuilt
from nnlr._checks.optimizer_probe import SLOWER, Probe, ProbeError, RefusalError, is_read, probe_of
from nnlr._checks.subject import SettingsOfGroup, Subject, highest_lr, labelled, rate
from nnlr._findings import Finding, error, note, warning
from nnlr._sandbox import arguments, undisturbed
from nnlr._schedule.base_rate import runs_step_hooks
from nnlr._text import plural
from nnlr.optim._members import ALGORITHM

# How a step is computed, and what others note in groups: no settings of the update.
_NO_OPTIONS: Final = frozenset(
    {
        *("params", "param_names", "name", "lr", "weight_decay", "lr_mult", "wd_mult"),
        *("foreach", "fused", "capturable", "differentiable"),
    }
)


@dataclass(frozen=True)
class _Option:
    """A setting that groups differ in, or that the optimizer has no default for."""

    key: str
    default: object  # ``...`` if there is none
    value: object  # of the first group that has another
    group: SettingsOfGroup  # that group
    labels: tuple[str, ...]  # of all such groups


def probed(subject: Subject) -> Iterator[Finding]:
    """Try each optimizer on the settings that its groups, or the plan, ask it to read."""
    for whole, optimizer in subject.parts:
        planned: set[float | None] = set()
        if subject.plan is not None and len(subject.optimizers) == 1:
            names = {group.get(ALGORITHM) for group in optimizer.param_groups}
            rows = (row for row in subject.plan.rows if row.trainable)
            planned = {row.lr for row in rows if whole is optimizer or row.algorithm in names}
        rates = {highest_lr(group) for group in optimizer.param_groups} - {None, 0.0} | planned
        decays = [rate(group, "weight_decay") or 0.0 for group in optimizer.param_groups]
        options = _options(optimizer, subject)
        if len(rates) > 1 or any(decays) or options:
            with undisturbed():
                several, decay = len(rates) > 1, max(decays, default=0.0)
                findings = list(_try(subject, optimizer, several, decay, options))
            yield from findings


def _try(
    subject: Subject,
    optimizer: Optimizer,
    several_rates: bool,
    decay: float,
    options: list[_Option],
) -> Iterator[Finding]:
    """Findings about one optimizer: whether it reads rates, the weight decay, the options."""
    name, build, planned = type(optimizer).__name__, rebuilt(subject), subject.plan is not None
    try:
        probe = probe_of(subject, optimizer)
    except RefusalError as why:
        yield _refuses(name, why, build)
        return
    except Exception as why:  # noqa: BLE001 - anyone's optimizer
        yield _untried(name, "what its groups say", why)
        return
    if several_rates:
        yield from _try_rates(name, probe, build)
    if decay:
        decayed = [pair for pair in labelled(optimizer) if rate(pair[1], "weight_decay")]
        labels = tuple(label for label, _ in decayed)
        options = [_Option("weight_decay", 0.0, decay, decayed[0][1], labels), *options]
    for option in options:
        try:
            if probe.reads(option.key, option.default, option.value, option.group):
                continue
        except ProbeError as why:
            yield _untried(name, option.key, why)
            continue
        setters = plural(len(option.labels), "group", "set")
        if option.key == "weight_decay":
            yield warning(
                "ignores-decay",
                option.labels,
                cause=f"{name} does not read weight_decay, which {setters} (up to {decay:g}): its "
                "step does not look it up, and two tensors moved alike with and without",
                fix=f"Drop it, or use an optimizer that decays: {build}"
                if planned
                else "Use an optimizer that decays, or drop it: "
                "[group.update(weight_decay=0.0) for group in optimizer.param_groups]",
            )
        else:
            yield warning(
                "ignores-option",
                option.labels,
                cause=f"{name} does not read {option.key} from its groups, and {setters} it: its "
                "step does not look it up, and two tensors moved alike whatever it was",
                fix="Use an optimizer that reads it, or drop it: "
                f"[{_dropped(option, defaults(subject))} for group in optimizer.param_groups]",
            )


def _try_rates(name: str, probe: Probe, build: str) -> Iterator[Finding]:
    """A finding if the optimizer does not train groups of different rates."""
    try:
        ratio = probe.ratio()
    except RefusalError as why:
        yield _refuses(name, why, build)
    except ProbeError as why:
        yield _untried(name, "different rates", why)
    else:
        if not is_read(ratio):
            yield error(
                "ignores-rate",
                (),
                cause=f"{name} does not go by the rates of its groups: tried on two tensors, one "
                f"at {SLOWER:g} of the rate of the other, that one moved {ratio:.3g} times as far",
                fix=f"Use an optimizer that reads them: {build}",
            )


def _refuses(name: str, why: Exception, build: str) -> Finding:
    """The finding about an optimizer that raises on groups of different rates."""
    return error(
        "refuses-rates",
        (),
        cause=f"{name} does not train groups of different rates, and will say so ({why})",
        fix=f"Use an optimizer that does: {build}",
    )


def _dropped(option: _Option, of: str) -> str:
    """The code that takes an option out of a group, or puts the default back."""
    if option.default is ...:
        return f"group.pop({option.key!r}, None)"
    return f"group.update({option.key}={of}[{option.key!r}])"


def _untried(name: str, setting: str, why: Exception) -> Finding:
    """The finding about a trial that could not be made."""
    return note(
        "unprobed",
        (),
        cause=f"whether {name} reads {setting} could not be tried on two small tensors ({why})",
        fix="Compare how far parameters of two groups move in a step of the real run.",
    )


def _options(optimizer: Optimizer, subject: Subject) -> list[_Option]:
    """The options to try, of keys that some optimizer knows: others may be anyone's notes.

    What an optimizer counts in its groups is none: nobody can set it. Nor is what its
    constructor writes there as its signature has it.
    """
    accepted = arguments(type(optimizer))
    words = _vocabulary() | accepted.keys()
    words |= {key for row in subject.plan or () for key in row.options}
    groups = labelled(optimizer)
    options = []
    for key in sorted({key for _, group in groups for key in group} & (words - _NO_OPTIONS)):
        values = [group.get(key, ...) for _, group in groups]
        declared = accepted[key].default if key in accepted else ...
        default = optimizer.defaults.get(key, declared)
        others = [
            (label, group, value)
            for (label, group), value in zip(groups, values, strict=True)
            if not _same(value, default)
        ]
        equal = all(_same(value, values[0]) for value in values)
        if others and not (equal and key in optimizer.defaults):
            labels = tuple(label for label, *_ in others)
            _, group, value = others[0]
            options.append(_Option(key, default, value, group, labels))
    return options


def _same(one: object, other: object) -> bool:
    """Whether two values are equal and of one type."""
    return one is other or (type(one) is type(other) and bool(one == other))


@cache
def _vocabulary() -> frozenset[str]:
    """The arguments of all optimizers of torch."""
    classes = [cls for cls in vars(torch.optim).values() if isinstance(cls, type)]
    return frozenset(
        name for cls in classes if issubclass(cls, Optimizer) for name in arguments(cls)
    ) - {"params", "defaults"}


def hookless(subject: Subject) -> Iterator[Finding]:
    """Optimizers that run no hooks before and after their steps."""
    for optimizer in subject.optimizers:
        if not runs_step_hooks(optimizer):
            name = type(optimizer).__name__
            yield warning(
                "no-hooks",
                (),
                cause=f"{name} skips the constructor of torch's Optimizer, so nobody runs its "
                "hooks: those of keep_ratios, and of whoever else registers some",
                fix=_inside(optimizer),
            )


def _inside(optimizer: Optimizer) -> str:
    """Where a wrapper has the optimizer that runs the hooks."""
    attributes = vars(optimizer).items()
    name = next((key for key, value in attributes if isinstance(value, Optimizer)), None)
    if name is None:
        return "Pass what it wraps to keep_ratios and to whoever registers hooks."
    return f"Pass what it wraps, to whoever registers hooks too: optimizer = optimizer.{name}"


def unresumable(subject: Subject) -> Iterator[Finding]:
    """Optimizers on a plan's groups that load checkpoints by position."""
    for optimizer in subject.optimizers:
        groups = optimizer.param_groups
        planned = any({"lr_mult", "wd_mult"} <= group.keys() for group in groups)
        if planned and runs_step_hooks(optimizer) and not checkpoint.installed(optimizer):
            yield warning(
                "no-resume-hook",
                (),
                cause=f"{type(optimizer).__name__} has groups of a plan and loads checkpoints by "
                "position: hooks do not travel with copies and pickles. Groups in another "
                "order would swap the state of their parameters, and old multipliers "
                "would win",
                fix="Have it matched by name: nnlr.checkpoint.on_load(optimizer, model=model)",
            )
