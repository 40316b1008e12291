"""Findings about schedulers: a copy of each runs, to see whether groups keep their ratios."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from torch import nn
from torch.optim import Optimizer

from nnlr._checks.groups import premultiplied
from nnlr._checks.sandbox import undisturbed
from nnlr._checks.schedule_rehearsal import Rates, Rehearsal
from nnlr._checks.subject import Scheduling, Subject, labelled, rate, start, unwrapped
from nnlr._findings import Finding, error, note
from nnlr._schedule import keep_ratios as ratios
from nnlr._schedule.schedule import RatioPlateau, RatioScheduler
from nnlr._text import plural

# Rates that differ by less, relative to where the group started, are the same.
_NOISE: Final = 1e-5


@dataclass(frozen=True)
class _Wanted:
    """How the rates of groups should stand to each other.

    Attributes:
        shares: Of each group, relative to any base; ``None`` for one that is not meant.
        key: The groups' key that says so; ``"lr"`` if only their rates do.
    """

    shares: list[float | None]
    key: str

    @property
    def reference(self) -> int:
        """The group that stands for the base: share 1, else the largest."""
        known = [0.0 if share is None else share for share in self.shares]
        return known.index(1.0) if 1.0 in known else known.index(max(known))


def attached(subject: Subject) -> Iterator[Finding]:
    """Schedulers of optimizers that are not those given."""
    if not subject.optimizers:
        return
    for scheduler in subject.schedulers:
        if _its_optimizer(subject, scheduler) is None:
            yield error(
                "other-optimizer",
                (),
                cause=f"{_name(scheduler)} schedules another optimizer than the one given, as "
                "after a copy or a rebuild: the rates of this one stay where they are",
                fix="Build the scheduler on the optimizer that steps.",
            )


def _its_optimizer(subject: Subject, scheduler: Scheduling) -> Optimizer | None:
    held = unwrapped(scheduler.optimizer)
    groups = getattr(held, "param_groups", None)
    for optimizer in subject.optimizers:
        if held is optimizer or groups is optimizer.param_groups:
            return optimizer
    return None


def rehearsed(subject: Subject) -> Iterator[Finding]:
    """Run a copy of each scheduler, and report ratios that it does not keep."""
    for scheduler in subject.schedulers:
        optimizer = _its_optimizer(subject, scheduler)
        if optimizer is None:
            continue
        if isinstance(scheduler, RatioScheduler | RatioPlateau):
            yield from _unread_scale(scheduler, optimizer)
        else:
            yield from _rehearse(subject, scheduler, optimizer)


def _unread_scale(scheduler: Scheduling, optimizer: Optimizer) -> Iterator[Finding]:
    """Ours goes by ``lr_mult`` alone."""
    names = tuple(
        label
        for label, group in labelled(optimizer)
        if (rate(group, "lr_scale") or 1.0) != 1 and rate(group, "lr_mult") == 1
    )
    if names:
        yield _unread(scheduler, names)


def _unread(scheduler: Scheduling, names: tuple[str, ...]) -> Finding:
    return error(
        "lr-scale-unread",
        names,
        cause=f"{_name(scheduler)} does not multiply the lr_scale of {plural(len(names), 'group')} "
        "in, or not at all times: layer decay is off",
        fix="Write it into the rates and the multipliers before scheduling: group['lr_mult'] "
        "= group.pop('lr_scale'); group['lr'] *= group['lr_mult']",
    )


def _rehearse(subject: Subject, scheduler: Scheduling, optimizer: Optimizer) -> Iterator[Finding]:
    wanted = _wanted(optimizer)
    if wanted is None:
        return
    shared = [slot.tensor for slot in subject.slots.values()]
    shared += [member.tensor for member in subject.members]
    models = [subject.source] if isinstance(subject.source, nn.Module) else []
    with undisturbed():
        try:
            rehearsal = Rehearsal(scheduler, optimizer, [*shared, *models])
            seen, why = list(rehearsal.rates()), rehearsal.incomplete
        except Exception as error:  # noqa: BLE001 - anyone's scheduler
            seen, why = [], f"it cannot be copied ({type(error).__name__}: {error})"
    yield from _judge(scheduler, optimizer, wanted, seen)
    if why:
        yield _unrehearsed(scheduler, why)


def _wanted(optimizer: Optimizer) -> _Wanted | None:
    """What the groups say of their ratios; ``None`` if there is nothing to lose."""
    groups = optimizer.param_groups
    for key in ("lr_mult", "lr_scale"):
        shares = [rate(group, key) for group in groups]
        if not any(shares) or (key == "lr_scale" and set(shares) <= {1.0, None}):
            continue
        scaled = [(g, s) for g, s in zip(groups, shares, strict=True) if s is not None]
        if key == "lr_scale" and premultiplied(scaled):
            continue
        return _Wanted(shares, key)
    shares = [start(group) for group in groups]
    return _Wanted(shares, "lr") if len(set(shares) - {None}) > 1 else None


@dataclass(frozen=True, order=True)
class _Loss:
    """The worst that a group's ratio came to."""

    factor: float  # how far off, >= 1
    found: float  # the rate then
    due: float  # the rate that its share would give
    step: int


def _judge(
    scheduler: Scheduling,
    optimizer: Optimizer,
    wanted: _Wanted,
    seen: Sequence[tuple[int, Rates]],
) -> Iterator[Finding]:
    labels = [label for label, _ in labelled(optimizer)]
    losses = _losses(wanted, seen)
    lost = {at: loss for at, loss in losses.items() if wanted.shares[at]}
    woken = {at: loss for at, loss in losses.items() if not wanted.shares[at]}
    if lost and wanted.key == "lr_scale":
        yield _unread(scheduler, tuple(labels[at] for at in lost))
    elif lost and not ratios.keeps_ratios(optimizer):
        at, loss = max(lost.items(), key=lambda item: item[1])
        yield Finding(
            severity="error" if wanted.key == "lr_mult" else "warning",
            kind="schedule-drift",
            names=tuple(labels[at] for at in lost),
            cause=(
                f"{_name(scheduler)} does not keep the ratios of {plural(len(lost), 'group')}: "
                f"{loss.step:,} steps on, {labels[at]!r} has a rate of {loss.found:.3g} "
                f"instead of {loss.due:.3g}"
            ),
            fix=f"Schedule the base rate, which keeps them: {_call(scheduler)}",
        )
    if woken and not ratios.keeps_ratios(optimizer):
        at, loss = max(woken.items(), key=lambda item: item[1])
        yield error(
            "zero-wakes",
            tuple(labels[at] for at in woken),
            cause=f"{_name(scheduler)} wakes {plural(len(woken), 'group')} of rate 0: "
            f"{loss.step:,} steps on, {labels[at]!r} trains at {loss.found:.3g}",
            fix=f"Lock it, or schedule the base rate: {_call(scheduler)}",
        )


def _losses(wanted: _Wanted, seen: Sequence[tuple[int, Rates]]) -> dict[int, _Loss]:
    """For each group that leaves its ratio, the worst of it."""
    reference = wanted.reference
    unit = wanted.shares[reference] or 1.0
    compared = [
        (at, share / unit)
        for at, share in enumerate(wanted.shares)
        if share is not None and at != reference
    ]
    losses: dict[int, _Loss] = {}
    highest = 0.0
    for step, rates in seen:
        base = rates[reference]
        highest = max(highest, abs(base))
        for at, share in compared:
            found, due = rates[at], base * share
            if abs(found - due) <= _NOISE * share * highest:
                continue
            off = found / due if due else inf
            factor = max(off, 1 / off) if off > 0 else inf
            loss = _Loss(factor, found, due, step)
            if at not in losses or losses[at] < loss:
                losses[at] = loss
    return losses


def _unrehearsed(scheduler: Scheduling, why: str) -> Finding:
    return note(
        "unrehearsed",
        (),
        cause=f"whether {_name(scheduler)} keeps the ratios of the groups could not be seen to "
        f"its end: {why}",
        fix="Watch them in the run, which warns once and changes nothing: "
        "nnlr.keep_ratios(optimizer, correct=False)",
    )


def _name(scheduler: object) -> str:
    return type(scheduler).__name__


def _call(scheduler: Scheduling) -> str:
    """The call that keeps the ratios, with the user's class and arguments as far as seen."""
    kind = type(scheduler)
    if hasattr(scheduler, "_schedulers"):
        return f"scheduler = nnlr.schedule(optimizer, lambda opt: {kind.__name__}(opt, ...))"
    if hasattr(scheduler, "lr_lambdas"):
        return f"scheduler = nnlr.schedule(optimizer, {kind.__name__}, lr_lambda=...)"
    written, more = [], list[str]()
    for each in list(inspect.signature(kind).parameters.values())[1:]:
        value = getattr(scheduler, each.name, ...)
        known = isinstance(value, bool | int | float | str)
        if each.name == "last_epoch" or (known and value == each.default):
            continue
        if known or each.default is each.empty:
            written.append(f"{each.name}={value!r}" if known else f"{each.name}=...")
        else:
            more = ["..."]  # what else was passed is not seen
    arguments = ", ".join([kind.__name__, *written, *more])
    return f"scheduler = nnlr.schedule(optimizer, {arguments})"
