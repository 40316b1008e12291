"""The rates of all groups over time, by a copy of a schedule that runs ahead."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from nnlr._arguments import whole
from nnlr._declare.moves import Progress
from nnlr._rows.units import at_work
from nnlr._sandbox import undisturbed
from nnlr._schedule.course import Proxy
from nnlr._schedule.origin import MULTIPLIERS
from nnlr._schedule.ratio_scheduler import RatioPlateau, RatioScheduler
from nnlr._schedule.rehearsal import Rehearsal, position_of
from nnlr._schedule.schedule import schedule
from nnlr._text import listed, shown
from nnlr.errors import NnlrError
from nnlr.report._ahead import Ahead

if TYPE_CHECKING:
    from nnlr._plan import Plan


@dataclass(frozen=True, slots=True)
class RatesOverTime:
    """What a schedule makes of the rates of each group.

    Attributes:
        label: Class of the scheduler; of several courses their classes.
        positions: The steps at which the rates were read, ascending; the first is where the
            scheduler stands, which is 0 of a new one.
        groups: Names of the groups.
        lr: The learning rates of each group, by name, at these positions.
        weight_decay: The weight decays, likewise; empty where they are constant.
        metric: Whether it follows a metric, for which one that never improves was assumed.
        incomplete: Why it ended before the number of steps asked for; ``None`` if it did not.
        notes: What could not be told of multipliers that move, or was assumed, in sentences.
    """

    label: str
    positions: tuple[int, ...]
    groups: tuple[str, ...]
    lr: Mapping[str, tuple[float, ...]]
    weight_decay: Mapping[str, tuple[float, ...]]
    metric: bool
    incomplete: str | None
    notes: tuple[str, ...] = ()


def rates_over_time(
    plan: "Plan",
    scheduler: object,
    steps: int,
    *,
    points: int = 1000,
    epoch_steps: int | None = None,
    **settings: Any,
) -> RatesOverTime:
    """Run a copy of a schedule for so many steps of training, and read the rates of all groups.

    Multipliers that the plan moves are in them, as far as they follow from the steps alone: what
    measures the network stays as it is at the start. The objects of the user, random states and
    hooks stay as they are. Of two schedules beside each other the one that is passed runs, and the
    other stands still.

    Args:
        plan: The plan, on whose groups a factory works.
        scheduler: What :func:`nnlr.schedule` returned, or a scheduler of torch: it goes on from
            where it stands, on the groups of its optimizer. Or what :func:`nnlr.schedule` takes: a
            scheduler class, a function of an optimizer, or a mapping of these by groups. ``None``
            where the base rate is constant.
        steps: Steps of training, >= 1. The rates are those of the first step to the last.
        points: Positions to read, >= 2, evenly spread with the first and the last; all, if the
            steps are no more.
        epoch_steps: Steps of an epoch, >= 1, for what moves by epochs.
        **settings: Arguments of a factory, and of :func:`nnlr.schedule`.

    Raises:
        NnlrError: If it is no scheduler, cannot be copied, or fails at its first step; if
            settings are passed for one that is built; if a plan for a factory trains nothing.

    Examples:
        >>> import nnlr, torch
        >>> plan = nnlr.resolve(torch.nn.Linear(2, 1), lr=0.1, weight_decay=0.0)
        >>> exponential = torch.optim.lr_scheduler.ExponentialLR
        >>> rates = nnlr.report.rates_over_time(plan, exponential, 3, gamma=0.5)
        >>> rates.positions, rates.lr
        ((0, 1, 2), {'lr1_wd1': (0.1, 0.05, 0.025)})
    """
    if not hasattr(plan, "groups"):
        raise NnlrError(
            f"plan must be a Plan, got {shown(plan)}: rates_over_time(plan, scheduler, steps).",
            plan=plan,
        )
    most = whole(points, "points", minimum=2)
    last = whole(steps, "steps", minimum=1) - 1
    if epoch_steps is not None:
        whole(epoch_steps, "epoch_steps", minimum=1)
    is_built = not isinstance(scheduler, type) and hasattr(scheduler, "step")
    if is_built and not hasattr(scheduler, "optimizer"):
        raise _no_scheduler(scheduler)
    if is_built and settings:
        first = next(iter(settings))
        raise NnlrError(
            f"{first}={shown(settings[first])} is a setting for a scheduler class, and "
            f"{shown(scheduler)} is built already. Pass one or the other.",
            argument=first,
        )
    with undisturbed():
        rehearsal = _copied(scheduler) if is_built else _built(plan, scheduler, settings)
        start = position_of(rehearsal.scheduler)
        attached = at_work(scheduler.optimizer) if is_built else None  # type: ignore[attr-defined]
        run = Progress(start, start + last + 1)
        ahead = Ahead(plan, rehearsal, attached, run, epoch_steps)
        label = "constant base rate" if scheduler is None else _class_of(rehearsal.scheduler)
        return _run(ahead, label, start, last, most)


def _no_scheduler(value: object) -> NnlrError:
    """Return the error of something that cannot be scheduled by."""
    return NnlrError(
        "scheduler must be what nnlr.schedule returned, a scheduler of torch, or a scheduler "
        f"class with its settings, got {shown(value, typed=True)}.",
        value=value,
    )


def _copied(scheduler: Any) -> Rehearsal:  # noqa: ANN401 - anyone's scheduler
    """A copy of a scheduler that is built, on groups of its own."""
    tensors = [t for group in scheduler.optimizer.param_groups for t in group["params"]]
    try:
        return Rehearsal(scheduler, scheduler.optimizer, tensors)
    except Exception as error:
        raise NnlrError(
            f"{_class_of(scheduler)} cannot be copied ({type(error).__name__}: {error}), so it "
            "cannot run ahead. Pass its class and settings instead."
        ) from error


def _built(plan: "Plan", factory: object, settings: Mapping[str, Any]) -> Rehearsal:
    """A schedule of the plan's groups, which hold no parameters."""
    if factory is None:
        factory, settings = LambdaLR, {**settings, "lr_lambda": _constant}
    if not (callable(factory) or isinstance(factory, Mapping)):
        raise _no_scheduler(factory)
    if not plan.groups:
        raise NnlrError(f"The plan for {plan.label} trains no parameter: no rate is scheduled.")
    stand_in = Proxy(
        [
            {
                "params": [torch.zeros(0, device="cpu")],
                "name": group.name,
                "lr": group.lr,
                "lr_mult": group.lr_mult,
                "weight_decay": group.weight_decay,
                "wd_mult": group.wd_mult,
                **({} if group.algorithm is None else {"algorithm": group.algorithm}),
            }
            for group in plan.groups
        ],
        # Betas, which some schedulers cycle: every class of scheduler can be built.
        {"lr": plan.lr, "weight_decay": plan.weight_decay, "betas": (0.9, 0.999)},
    )
    # A function may count its calls: a copy does, where it is an object.
    factory, settings = copy.deepcopy((factory, dict(settings)))
    scheduler = schedule(stand_in, factory, **settings)
    return Rehearsal(scheduler, stand_in)


def _constant(_: int) -> float:
    """Return the factor of a constant rate."""
    return 1.0


def _run(ahead: Ahead, label: str, start: int, last: int, most: int) -> RatesOverTime:
    """Step a copy to its last position, and keep some of the rates."""
    rehearsal = ahead.rehearsal
    groups = rehearsal.groups
    names = tuple(str(group.get("name", f"group {at}")) for at, group in enumerate(groups))
    keys = [key for key in MULTIPLIERS if all(key in group for group in groups)]
    every = last < most
    chosen = set() if every else {last * number // (most - 1) for number in range(most)}
    positions: list[int] = []
    rows: dict[str, list[list[float]]] = {key: [] for key in keys}
    incomplete = None
    for position in range(last + 1):
        read = every or position in chosen
        try:
            if position:
                ahead.step(position, read=read)
        except Exception as error:
            incomplete = f"{type(error).__name__}: {error}"
            if position > 1:
                break
            raise NnlrError(
                f"{_class_of(rehearsal.scheduler)} fails at its first step ({incomplete})."
            ) from error
        if read:
            positions.append(start + position)
            for key, values in rows.items():
                values.append(ahead.rates(key))
    over_time = {
        key: dict(zip(names, zip(*values, strict=True), strict=True))
        for key, values in rows.items()
    }
    decays = over_time.get("weight_decay", {})
    return RatesOverTime(
        label=label,
        positions=tuple(positions),
        groups=names,
        lr=over_time["lr"],
        weight_decay=decays if any(len(set(run)) > 1 for run in decays.values()) else {},
        metric=rehearsal.way == "metric",
        incomplete=incomplete,
        notes=tuple(ahead.notes),
    )


def _class_of(scheduler: Any) -> str:  # noqa: ANN401 - anyone's scheduler
    """The class of a scheduler; of ours those inside."""
    if not isinstance(scheduler, RatioScheduler | RatioPlateau):
        return type(scheduler).__name__
    return listed(dict.fromkeys(type(c.scheduler).__name__ for c in scheduler._shares["lr"].each))
