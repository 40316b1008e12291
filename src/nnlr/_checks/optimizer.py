"""Optimizers that do not read what their groups say."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch.optim import Optimizer

from nnlr import checkpoint
from nnlr._checks.optimizer_probe import SLOWER, Probe, ProbeError, RefusalError, heard
from nnlr._checks.sandbox import undisturbed
from nnlr._checks.subject import Subject, labelled, peak, rate
from nnlr._findings import Finding, error, note, warning
from nnlr._schedule.base_rate import runs_step_hooks
from nnlr._text import plural

# How a step is computed, and what others note in groups: no settings of the update.
_ASIDE: Final = frozenset(
    {
        *("params", "param_names", "name", "lr", "weight_decay", "lr_mult", "wd_mult"),
        *("foreach", "fused", "capturable", "differentiable"),
    }
)


@dataclass(frozen=True)
class _Option:
    """A setting that groups differ in, or that the optimizer has no default for."""

    key: str
    usual: object  # the default; ``...`` if there is none
    value: object  # of the first group that has another
    labels: tuple[str, ...]  # of all such groups


def probed(subject: Subject) -> Iterator[Finding]:
    """Try each optimizer on what its groups, or the plan, want of it."""
    planned = _planned_rates(subject)
    for optimizer in subject.optimizers:
        rates = {peak(group) for group in optimizer.param_groups} - {None, 0.0}
        decays = [rate(group, "weight_decay") or 0.0 for group in optimizer.param_groups]
        options = _options(optimizer, subject)
        several = len(rates | planned) > 1
        if several or any(decays) or options:
            with undisturbed():
                found = list(_try(optimizer, several, decays, options))
            yield from found


def _planned_rates(subject: Subject) -> set[float | None]:
    """The rates that a plan wants, where one optimizer is to train all of them."""
    if subject.plan is None or len(subject.optimizers) > 1:
        return set()
    return {row.lr for row in subject.plan.rows if row.trainable}


def _try(
    optimizer: Optimizer, several: bool, decays: list[float], options: list[_Option]
) -> Iterator[Finding]:
    name = type(optimizer).__name__
    try:
        probe = Probe(optimizer)
    except RefusalError as refusal:
        yield _refuses(name, str(refusal))
        return
    except Exception as refusal:  # noqa: BLE001 - anyone's optimizer
        yield _untried(name, "what its groups say", str(refusal))
        return
    if several:
        yield from _rates(name, probe)
    if any(decays):
        yield from _decay(name, probe, optimizer, max(decays))
    for option in options:
        yield from _option(name, probe, option)


def _rates(name: str, probe: Probe) -> Iterator[Finding]:
    try:
        ratio = probe.ratio()
    except RefusalError as refusal:
        yield _refuses(name, str(refusal))
        return
    except ProbeError as refusal:
        yield _untried(name, "different rates", str(refusal))
        return
    if not heard(ratio):
        yield error(
            "ignores-rate",
            (),
            cause=f"{name} does not go by the rates of its groups: tried on two tensors, one at "
            f"{SLOWER:g} of the rate of the other, that one moved {ratio:.3g} times as far",
            fix="Use an optimizer that reads them: plan.optimizer(torch.optim.AdamW)",
        )


def _refuses(name: str, why: str) -> Finding:
    return error(
        "refuses-rates",
        (),
        cause=f"{name} does not train groups of different rates, and will say so ({why})",
        fix="Use an optimizer that does: plan.optimizer(torch.optim.AdamW)",
    )


def _untried(name: str, what: str, why: str) -> Finding:
    return note(
        "unprobed",
        (),
        cause=f"whether {name} reads {what} could not be tried on two small tensors ({why})",
        fix="Compare how far parameters of two groups move in a step of the real run.",
    )


def _decay(name: str, probe: Probe, optimizer: Optimizer, decay: float) -> Iterator[Finding]:
    try:
        read = probe.hears("weight_decay", 0.0, decay)
    except ProbeError as refusal:
        yield _untried(name, "weight_decay", str(refusal))
        return
    if not read:
        decayed = [label for label, group in labelled(optimizer) if rate(group, "weight_decay")]
        yield warning(
            "ignores-decay",
            decayed,
            cause=f"{name} does not read weight_decay, which "
            f"{plural(len(decayed), 'group', 'set')} (up to {decay:g}): two "
            "tensors moved alike with and without",
            fix="Drop it, or use an optimizer that decays: plan.optimizer(torch.optim.AdamW)",
        )


def _option(name: str, probe: Probe, option: _Option) -> Iterator[Finding]:
    key = option.key
    try:
        read = probe.hears(key, option.usual, option.value)
    except ProbeError as refusal:
        yield _untried(name, key, str(refusal))
        return
    if not read:
        yield warning(
            "ignores-option",
            option.labels,
            cause=f"{name} does not read {key} from its groups, and "
            f"{plural(len(option.labels), 'group', 'set')} it: two tensors moved alike "
            "whatever it was",
            fix=f"Drop it, or use an optimizer that reads it: group.pop({key!r})",
        )


def _options(optimizer: Optimizer, subject: Subject) -> list[_Option]:
    """What to try, of keys that mean something to an optimizer: others are anyone's notes."""
    words = _vocabulary() | optimizer.defaults.keys()
    if subject.plan is not None:
        words |= {key for row in subject.plan.rows for key in row.options}
    found = []
    groups = labelled(optimizer)
    for key in sorted({key for _, group in groups for key in group} & (words - _ASIDE)):
        values = [group.get(key, ...) for _, group in groups]
        usual = optimizer.defaults.get(key, ...)
        others = [
            (label, value)
            for (label, _), value in zip(groups, values, strict=True)
            if not _same(value, usual)
        ]
        equal = all(_same(value, values[0]) for value in values)
        if others and not (equal and key in optimizer.defaults):
            labels = tuple(label for label, _ in others)
            found.append(_Option(key, usual, others[0][1], labels))
    return found


def _same(one: object, other: object) -> bool:
    return one is other or (type(one) is type(other) and bool(one == other))


@cache
def _vocabulary() -> frozenset[str]:
    """What the optimizers of torch can be told."""
    classes = [each for each in vars(torch.optim).values() if isinstance(each, type)]
    return frozenset(
        name
        for each in classes
        if issubclass(each, Optimizer)
        for name in inspect.signature(each).parameters
    ) - {"params", "defaults"}


def hookless(subject: Subject) -> Iterator[Finding]:
    """Optimizers that run none of the hooks on which others rely."""
    for optimizer in subject.optimizers:
        if not runs_step_hooks(optimizer):
            name = type(optimizer).__name__
            yield warning(
                "no-hooks",
                (),
                cause=f"{name} skips the constructor of torch's Optimizer, so nobody runs its "
                "hooks: those of keep_ratios, and of whoever else registers some",
                fix="Pass the optimizer that it wraps: nnlr.keep_ratios(inner)",
            )


def unresumable(subject: Subject) -> Iterator[Finding]:
    """Optimizers on a plan's groups that load checkpoints by position."""
    for optimizer in subject.optimizers:
        planned = any({"lr_mult", "wd_mult"} <= each.keys() for each in optimizer.param_groups)
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
