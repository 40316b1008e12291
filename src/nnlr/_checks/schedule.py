"""Findings about schedulers: a copy of each runs, to see whether groups keep their ratios."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import SWALR

from nnlr._checks.fixes import defaults
from nnlr._checks.groups import premultiplied
from nnlr._checks.schedule_call import call_of, class_of
from nnlr._checks.schedule_rehearsal import WholeRehearsal, has_own_functions, is_over
from nnlr._checks.subject import (
    SettingsOfGroup,
    Subject,
    is_ours,
    labelled,
    rate,
    start,
)
from nnlr._findings import Finding, error, note, warning
from nnlr._sandbox import undisturbed
from nnlr._schedule import keep_ratios
from nnlr._schedule.moved import MOVED
from nnlr._schedule.rehearsal import Scheduling
from nnlr._text import plural
from nnlr.optim._mixed import member_of

# Code that turns the groups of timm's schedulers into those of ours.
_WRITTEN_IN: Final = (
    "[group.update(lr_mult=group['lr_scale'], "
    "lr=group.get('initial_lr', group['lr']) * group['lr_scale'], "
    "initial_lr=group.get('initial_lr', group['lr']) * group.pop('lr_scale')) "
    "for group in optimizer.param_groups]; "
)

# Rates that differ by less, relative to where the group started, are the same.
_NOISE: Final = 1e-5


class _Ratios(NamedTuple):
    """How the rates of groups should stand to each other."""

    shares: list[float | None]  # of the groups, relative to any base; None: it does not take part
    key: str  # the groups' key that says so; "lr" if only their rates do

    @property
    def reference(self) -> int:
        """The position of the group that stands for the base: share 1, else the largest."""
        shares = [0.0 if share is None else share for share in self.shares]
        return shares.index(1.0) if 1.0 in shares else shares.index(max(shares))


class _Deviation(NamedTuple):
    """The largest deviation of a group from its ratio."""

    factor: float  # how far off, >= 1
    rate: float  # the rate then
    due: float  # the rate that its share would give
    step: int


def attached(subject: Subject) -> Iterator[Finding]:
    """Schedulers of optimizers that are not those given."""
    for scheduler in subject.schedulers:
        if subject.optimizers and subject.optimizer_of(scheduler) is None:
            yield error(
                "other-optimizer",
                (),
                cause=f"{_name(scheduler)} schedules another optimizer than the one given, as "
                "after a copy or a rebuild: the rates of this one stay where they are",
                fix="Build it on the optimizer that steps, where it begins anew: "
                f"{call_of(scheduler)}",
            )


def rehearsed(subject: Subject) -> Iterator[Finding]:
    """Run a copy of each scheduler, and report ratios that it does not keep."""
    for scheduler in subject.schedulers:
        optimizer = subject.optimizer_of(scheduler)
        if optimizer is None:
            continue
        if not is_ours(scheduler):
            yield from _rehearse(subject, scheduler, optimizer)
            continue
        # Ours goes by lr_mult alone.
        names = tuple(
            label
            for label, group in labelled(optimizer)
            if (rate(group, "lr_scale") or 1.0) != 1 and rate(group, "lr_mult") == 1
        )
        if names:
            yield _unread_scale(scheduler, names)


def asleep(subject: Subject) -> Iterator[Finding]:
    """Optimizers whose rates are all 0, and stay so: no warm-up brings them up."""
    for optimizer in subject.optimizers:
        groups = [group for group in optimizer.param_groups if group["params"]]
        meant = all(rate(group, "lr_mult") == 0 for group in groups)  # kept locks
        if not groups or meant or any(rate(group, "lr") != 0 for group in groups):
            continue
        schedulers = subject.schedulers_of(optimizer)
        began = any(start(group) for group in groups)
        noted = subject.is_scheduled_by_us(optimizer) or any("initial_lr" in g for g in groups)
        if not schedulers and began and noted and not optimizer.state:
            continue  # the warm-up of a scheduler that was not passed
        rises = [_rises(subject, scheduler, optimizer) for scheduler in schedulers]
        if any(rises):
            continue
        name = type(optimizer).__name__
        # What a scheduler of torch takes for the start is noted in the groups.
        starts = any(rate(group, "initial_lr") for group in groups)
        written = "" if starts else f"{_rates_written(subject, optimizer, 'lr', 'initial_lr')}; "
        if schedulers and all(map(is_over, schedulers)):
            yield warning(
                "rates-stay-zero",
                (),
                cause=f"{_name(schedulers[-1])} has come to its end, and every rate of {name} is "
                "0: steps from now on train nothing",
                fix=f"To go on, begin a new course: {call_of(schedulers[-1])}",
            )
        elif schedulers:
            yield error(
                "rates-stay-zero",
                (),
                cause=f"every rate of {name} is 0, and {_name(schedulers[-1])} leaves it there: "
                "steps train nothing",
                fix="Begin a new course at the base rate, with other settings if these make it 0: "
                f"{written}{call_of(schedulers[-1])}",
            )
        else:
            yield Finding(
                severity="warning" if began else "error",
                kind="rates-stay-zero",
                names=(),
                cause=f"every rate of {name} is 0, and no scheduler was given that would raise "
                "it: with these rates, steps train nothing",
                fix="Pass the scheduler too, if there is one. Else write the rates: "
                f"{_rates_written(subject, optimizer, 'lr')}",
            )


def _rates_written(subject: Subject, optimizer: Optimizer, *keys: str) -> str:
    """The code that writes the default rate, times its multiplier, into each group."""
    base = f"{defaults(subject)}['lr']" if rate(optimizer.defaults, "lr") else "1e-3"
    values = ", ".join(f"{key}={base} * group.get('lr_mult', 1)" for key in keys)
    return f"[group.update({values}) for group in optimizer.param_groups]"


def _rises(subject: Subject, scheduler: Scheduling, optimizer: Optimizer) -> bool:
    """Whether a scheduler will give a group a rate; also where that cannot be seen."""
    rates, incomplete = _rehearsal(subject, scheduler, optimizer)
    return incomplete is not None or any(any(now) for _, now in rates)


def unscheduled(subject: Subject) -> Iterator[Finding]:
    """Optimizers that stay at their rates while another is scheduled."""
    resting = [
        position
        for position, optimizer in enumerate(subject.optimizers)
        if not subject.schedulers_of(optimizer) and not subject.is_scheduled_by_us(optimizer)
    ]
    moving = [
        scheduler
        for optimizer in subject.optimizers
        for scheduler in subject.schedulers_of(optimizer)
    ]
    if not moving or not resting:
        return
    names = [type(subject.optimizers[position]).__name__ for position in resting]
    call = call_of(moving[0]).replace("(optimizer,", f"(optimizers[{resting[0]}],")
    yield warning(
        "unscheduled",
        names,
        cause=f"{plural(len(resting), 'optimizer', 'are')} scheduled by none of the schedulers "
        f"given, while {_name(moving[0])} moves the rates of another: theirs stay as they are",
        fix=f"Schedule it too, and pass that in the list of schedulers: {call}",
    )


def crossed(subject: Subject) -> Iterator[Finding]:
    """Schedulers that write into the groups of a schedule, which writes them too.

    ``SWALR`` may be one of them: its recipe steps one of the two, and then the other.
    """
    for optimizer in subject.optimizers:
        writing = subject.schedulers_of(optimizer)
        ours = [scheduler for scheduler in writing if is_ours(scheduler)]
        for other in writing:
            if ours and not is_ours(other) and not isinstance(other, SWALR):
                mine, theirs = (
                    f"schedulers[{subject.schedulers.index(x)}]" for x in (ours[0], other)
                )
                yield error(
                    "crossed-schedulers",
                    (),
                    cause=f"{_name(other)} and {_name(ours[0])} both write the rates of "
                    f"{type(optimizer).__name__}: a step of one overwrites what the other did",
                    fix="Have their courses multiplied, and step both: "
                    f"{call_of(other, theirs)[:-1]}, beside={mine})",
                )


def _unread_scale(scheduler: Scheduling, names: Sequence[str]) -> Finding:
    """The finding about a scheduler that does not multiply ``lr_scale`` in."""
    return error(
        "lr-scale-unread",
        names,
        cause=f"{_name(scheduler)} does not multiply the lr_scale of {plural(len(names), 'group')} "
        "in: layer decay is off",
        fix="Write it into the rates and the multipliers, and schedule the base rate: "
        f"{_WRITTEN_IN}{call_of(scheduler)}",
    )


def _rehearse(subject: Subject, scheduler: Scheduling, optimizer: Optimizer) -> Iterator[Finding]:
    """Run a copy of one scheduler, and report ratios that it does not keep."""
    ratios = _ratios(optimizer)
    if ratios is None or (ratios.key != "lr_scale" and has_own_functions(scheduler)):
        return  # all alike, or each group has the course that its author wrote for it
    rates, incomplete = _rehearsal(subject, scheduler, optimizer)
    unread = ratios.key == "lr_scale" and bool(_deviations(ratios, rates[:1]))
    yield from _judge(scheduler, optimizer, ratios, _deviations(ratios, rates), unread=unread)
    if incomplete is not None and not keep_ratios.keeps_ratios(optimizer, or_watches=True):
        yield note(
            "unrehearsed",
            (),
            cause=f"whether {_name(scheduler)} keeps the ratios of the groups could not be seen "
            f"to its end: {incomplete}",
            fix="Watch them in the run, which warns once and changes nothing: "
            "nnlr.keep_ratios(optimizer, correct=False)",
        )


def _rehearsal(
    subject: Subject, scheduler: Scheduling, optimizer: Optimizer
) -> tuple[list[tuple[int, list[float]]], str | None]:
    """The rates of all groups in the steps to come, and why these do not go to the end."""
    shared = [slot.tensor for slot in subject.slots.values()]
    shared += [member.tensor for member in subject.members]
    models = [subject.source] if isinstance(subject.source, nn.Module) else []
    with undisturbed():
        try:
            rehearsal = WholeRehearsal(scheduler, optimizer, [*shared, *models])
            return list(rehearsal.rates()), rehearsal.incomplete
        except Exception as error:  # noqa: BLE001 - anyone's scheduler
            return [], f"it cannot be copied ({type(error).__name__}: {error})"


def _ratios(optimizer: Optimizer) -> _Ratios | None:
    """The ratios that the groups should keep; ``None`` if all are alike."""
    groups = optimizer.param_groups
    if all(MOVED in group for group in groups):
        return None  # nothing tells what the ratios are; see `moves`
    for key in ("lr_mult", "lr_scale"):
        shares = [None if MOVED in g else _share(optimizer, g, key) for g in groups]
        if not any(shares) or (key == "lr_scale" and set(shares) <= {1.0, None}):
            continue
        scaled = [(g, s) for g, s in zip(groups, shares, strict=True) if s is not None]
        if key == "lr_scale" and premultiplied(scaled):
            continue
        return _Ratios(shares, key)
    shares = [start(group) for group in groups]
    return _Ratios(shares, "lr") if len(set(shares) - {None}) > 1 else None


def _share(optimizer: Optimizer, group: SettingsOfGroup, key: str) -> float | None:
    """The multiplier of a group, relative to the base rate of the first algorithm."""
    share = rate(group, key)
    own, first = (rate(o.defaults, "lr") for o in (member_of(optimizer, group), optimizer))
    return share * (own / first) if share and own and first else share


def _deviations(
    ratios: _Ratios, rates_at: Iterable[tuple[int, list[float]]]
) -> dict[int, _Deviation]:
    """For each group that leaves its ratio, by position: the largest deviation."""
    reference = ratios.reference
    unit = ratios.shares[reference] or 1.0
    compared = [
        (position, share / unit)
        for position, share in enumerate(ratios.shares)
        if share is not None and position != reference
    ]
    deviations: dict[int, _Deviation] = {}
    highest = 0.0
    for step, rates in rates_at:
        base = rates[reference]
        highest = max(highest, abs(base))
        for position, share in compared:
            now, due = rates[position], base * share
            if abs(now - due) <= _NOISE * share * highest:
                continue
            off = now / due if due else inf
            factor = max(off, 1 / off) if off > 0 else inf
            deviation = _Deviation(factor, now, due, step)
            if position not in deviations or deviations[position] < deviation:
                deviations[position] = deviation
    return deviations


def _judge(
    scheduler: Scheduling,
    optimizer: Optimizer,
    ratios: _Ratios,
    deviations: Mapping[int, _Deviation],
    *,
    unread: bool,
) -> Iterator[Finding]:
    """Findings about the groups that leave their ratios, and those of rate 0 that train.

    ``unread``: an ``lr_scale`` that is not even multiplied in now.
    """
    labels = [label for label, _ in labelled(optimizer)]
    drifting = {at: off for at, off in deviations.items() if ratios.shares[at]}
    woken = {at: off for at, off in deviations.items() if not ratios.shares[at]}
    if drifting and unread:
        yield _unread_scale(scheduler, [labels[at] for at in drifting])
    elif drifting and not keep_ratios.keeps_ratios(optimizer):
        at, off = max(drifting.items(), key=lambda item: item[1])
        yield Finding(
            severity="warning" if ratios.key == "lr" else "error",
            kind="schedule-drift",
            names=tuple(labels[at] for at in drifting),
            cause=(
                f"{_name(scheduler)} does not keep the ratios of "
                f"{plural(len(drifting), 'group')}: {off.step:,} steps on, {labels[at]!r} has a "
                f"rate of {off.rate:.3g} instead of {off.due:.3g}"
            ),
            fix=f"Schedule the base rate, which keeps them: "
            f"{_WRITTEN_IN if ratios.key == 'lr_scale' else ''}{call_of(scheduler)}",
        )
    if woken and not keep_ratios.keeps_ratios(optimizer):
        at, off = max(woken.items(), key=lambda item: item[1])
        yield error(
            "zero-wakes",
            (labels[at] for at in woken),
            cause=f"{_name(scheduler)} wakes {plural(len(woken), 'group')} of rate 0: "
            f"{off.step:,} steps on, {labels[at]!r} trains at {off.rate:.3g}",
            fix=f"Lock it, or schedule the base rate: {call_of(scheduler)}",
        )


def _name(scheduler: object) -> str:
    """The class of a scheduler; of ours that of the one inside."""
    if is_ours(scheduler):
        return f"the schedule of {class_of(scheduler.scheduler)}"
    return class_of(scheduler)
