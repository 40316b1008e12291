"""Schedulers that keep the ratios between parameter groups.

A scheduler of torch writes rates into groups, and one with an absolute floor or peak writes
the same rate into all of them. Here it works on one base rate, and

    group["lr"] = base_lr(t) * group["lr_mult"]

Only torch is needed: this works with anyone's groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnlr._arguments import flag
from nnlr._schedule.base_rate import EVERY_GROUP, BaseRate, Group, Share, matches
from nnlr._schedule.course import CYCLED, Course, Factory
from nnlr._schedule.ratio_scheduler import RatioPlateau, RatioScheduler
from nnlr._schedule.start import mark, note_groups, renew, starting_bases
from nnlr._text import listed, nearest_hint, shown
from nnlr.errors import ConfigError, NnlrError
from nnlr.optim._members import ALGORITHM, common_defaults
from nnlr.optim._mixed import Mixed, member_of

# For weight decay that follows the course of the learning rate.
FOLLOWS = "lr"

# A factory, or one for each pattern of groups' names; `None` for a constant rate.
Courses = Factory | Mapping[str, Any]

_Curve = Course  # its name in pickles of version 0.1


def schedule(
    optimizer: Optimizer,
    factory: Courses,
    *,
    beside: RatioScheduler | RatioPlateau | None = None,
    after: RatioScheduler | RatioPlateau | None = None,
    adopt: bool = False,
    weight_decay: Courses | Literal["lr"] | None = None,
    **kwargs: Any,
) -> RatioScheduler | RatioPlateau:
    """Schedule the base learning rate; every group follows by its multiplier.

    ``group["lr"] = base_lr(t) * group["lr_mult"]``, where ``base_lr(t)`` is what the scheduler
    makes of one rate. Absolute floors, peaks and minimum rates therefore speak of the base
    rate and no ratio is ever lost. The result is a real ``LRScheduler`` (a real
    ``ReduceLROnPlateau`` where ``factory`` takes a metric), for any loop or trainer.

    The base rate is ``optimizer.defaults["lr"]`` where groups carry ``lr_mult``, as those of
    ``plan.optimizer`` do (or what those groups agree on, if it is another); else it is the
    largest rate among the groups, and ``lr_mult`` is written. Momentum or betas that the
    scheduler cycles reach the groups that were built with the optimizer's own.

    Of several algorithms (:class:`nnlr.optim.Mixed`) each has a base rate of its own. The course
    runs on that of the first, the reference, of which its settings speak, and
    ``group["lr"] = base_lr(t) * (base[algorithm] / base[reference]) * group["lr_mult"]``, so that
    the ratio between algorithms holds too. A course for one algorithm starts at its own base.

    A schedule is a new course: it starts at the base rate, gives settings that an earlier one
    cycled their origin back, and replaces the earlier one, which then refuses to step.
    ``beside`` and ``after`` keep the earlier one.

    Change ``group["lr_mult"]`` or call ``set_base_lr``: a rate written into
    ``group["lr"]`` by hand lasts until the next step. Groups without ``lr_mult`` that are
    added later are left alone, with one warning, or adopted.

    Args:
        optimizer: Any torch optimizer.
        factory: A scheduler class of torch or transformers, or a function of an optimizer
            that returns a scheduler, for chains: ``lambda opt: SequentialLR(opt, ...)``. Or a
            mapping from patterns of group names, or names of algorithms, to such functions:
            the first pattern that matches gives a group its course; ``None`` and no match keep
            the rate of a group constant.
        beside: An earlier schedule that goes on: the courses of both multiply, each relative
            to the base rate, in whatever order and intervals they are stepped.
        after: An earlier schedule that goes on until this one is stepped: from then on this
            one is the course, from the rate that stands then; of several algorithms from that of
            the first, and all go on by one factor.
        adopt: Give groups that are added later the ``lr_mult`` that their rate has relative
            to the base rate at that moment; a rate that is written into such a group by hand
            is its new multiplier.
        weight_decay: A second such function, of which the "rate" is the base weight decay;
            ``group["weight_decay"] = base(t) * group["wd_mult"]``. Or a mapping, likewise.
            ``"lr"``, also in a mapping: the decay follows the rate, ``base(t) = base *
            base_lr(t) / base_lr``, so that AdamW's steps shrink weights by ``lr ** 2 / base_lr``
            (AdamC, arXiv 2506.02285); the base rate then is to be the peak.
        **kwargs: Arguments of ``factory`` other than the optimizer. ``last_epoch=n`` starts
            where n + 1 steps lead, as in torch.

    Raises:
        NnlrError: If ``factory`` makes no scheduler, or an argument is a list with one entry
            for each group.
        ConfigError: If the groups' rates and multipliers do not belong to one base rate of each
            algorithm, a class has neither momentum nor betas that a scheduler cycles, a
            pattern matches no group, or the scheduler starts at a rate that is not finite or
            negative. The optimizer is not changed then.

    Examples:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1)
        >>> groups = [{"params": [layer.weight], "lr": 0.1}, {"params": [layer.bias], "lr": 0.01}]
        >>> optimizer = torch.optim.SGD(groups)
        >>> cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        >>> scheduler = schedule(optimizer, cosine, T_max=10, eta_min=0.05)
        >>> for _ in range(10):
        ...     optimizer.step()
        ...     scheduler.step()
        >>> [round(rate, 4) for rate in scheduler.get_last_lr()]
        [0.05, 0.005]
    """
    if not isinstance(optimizer, Optimizer):
        raise NnlrError(
            f"schedule needs a torch optimizer, got {shown(optimizer)}. Of an optimizer that a "
            "trainer has wrapped, pass the inner one."
        )
    adopts = flag(adopt, "adopt")
    earlier = _earlier(optimizer, beside, after)
    factories: dict[str, tuple[Courses | Literal["lr"], Mapping[str, Any]]]
    factories = {"lr": (factory, kwargs)}
    if weight_decay is not None:
        factories["weight_decay"] = (weight_decay, {})
    rates = dict(earlier._rates) if earlier is not None else {}
    shares: dict[str, Share] = {}
    for key, (courses, arguments) in factories.items():
        if key not in rates:
            rates[key] = BaseRate(key, starting_bases(optimizer, key))
        shares[key] = _share(optimizer, rates[key], courses, arguments, waits=after is not None)

    # Nothing has been changed so far.
    for rate in rates.values():
        mark(optimizer, rate)
    note_groups(optimizer)
    given_back = None
    if earlier is None:
        given_back = renew(optimizer, rates, shares["lr"])
    else:
        earlier._rates.update(rates)  # each of both writes the rates of both
        rates = earlier._rates
    if "weight_decay" in shares and shares["weight_decay"].following:
        rates["weight_decay"].leader = rates["lr"]
    for key, share in shares.items():
        if after is not None:
            rates[key].turns.append([share])
        elif beside is not None and key in beside._shares:
            rates[key].turns[rates[key].turn_of(beside._shares[key])].append(share)
        else:
            rates[key].turns[-1].append(share)
    every = [course for share in shares.values() for course in share.each]
    kind = RatioPlateau if any(course.takes_metric for course in every) else RatioScheduler
    return kind(optimizer, rates, shares, adopts=adopts, given_back=given_back)


def _earlier(
    optimizer: Optimizer,
    beside: RatioScheduler | RatioPlateau | None,
    after: RatioScheduler | RatioPlateau | None,
) -> RatioScheduler | RatioPlateau | None:
    """Return the schedule that a new one joins, and refuse what is none of this optimizer."""
    if beside is not None and after is not None:
        raise NnlrError("Pass beside= or after=, not both.")
    name, earlier = ("beside", beside) if after is None else ("after", after)
    if earlier is None:
        return None
    if not isinstance(earlier, RatioScheduler | RatioPlateau):
        raise NnlrError(
            f"{name} must be what nnlr.schedule returned for this optimizer, got "
            f"{shown(earlier)}. Schedule that first: nnlr.schedule(optimizer, ...).",
            argument=name,
        )
    if earlier.optimizer is not optimizer:
        raise NnlrError(f"{name} is a schedule of another optimizer.", argument=name)
    earlier._refuse_to_go_on()
    return earlier


def _share(
    optimizer: Optimizer,
    rate: BaseRate,
    courses: Courses | Literal["lr"],
    kwargs: Mapping[str, Any],
    *,
    waits: bool,
) -> Share:
    """Build the courses of one key on proxies of their own."""
    by_group = isinstance(courses, Mapping)
    if by_group and waits:
        raise ConfigError(
            "after= needs one course for all groups. Give each group a chain instead: "
            "{'bias*': lambda opt: SequentialLR(opt, ...), ...}."
        )
    if by_group and kwargs.keys() - {"last_epoch"}:
        raise NnlrError(
            f"{listed(map(repr, kwargs))} would be for several schedulers. Pass arguments with "
            "each: {'bias*': functools.partial(StepLR, step_size=10), ...}."
        )
    patterns = dict(courses) if isinstance(courses, Mapping) else {EVERY_GROUP: courses}
    if by_group:
        _refuse_patterns(patterns, optimizer)
    made: dict[str, Course | None] = dict.fromkeys(patterns)
    share = Share(dict.fromkeys(patterns))
    follows = {p for p, f in patterns.items() if isinstance(f, str) and f == FOLLOWS}
    follows = follows if rate.key == "weight_decay" else set()
    for pattern, factory in patterns.items():
        if pattern in follows or (by_group and factory is None):
            continue
        if not callable(factory):
            of = f" for {pattern!r}" if by_group else ""
            name = type(factory).__name__
            is_built = isinstance(factory, LRScheduler)
            fix = f" Pass its class and arguments: schedule(optimizer, {name}, ...)." * is_built
            if rate.key == "weight_decay" and isinstance(factory, str):
                fix = f" Decay that follows the rate is {FOLLOWS!r}."
            raise NnlrError(
                f"schedule needs a scheduler class or a function of an optimizer{of}, got "
                f"{shown(factory)}.{fix}"
            )
        groups = [g for g in optimizer.param_groups if share.pattern_of(g) == pattern]
        start, defaults = _start_of(optimizer, groups, rate, is_for_all=share.is_for_all)
        try:
            made[pattern] = Course(factory, kwargs, defaults, start, what=rate.key, waits=waits)
        except ValueError as error:
            if "cycle_momentum" in str(error):
                raise _no_cycle(optimizer, groups) from error
            raise
    return Share(made, frozenset(follows))


def _no_cycle(optimizer: Optimizer, groups: Sequence[Group]) -> ConfigError:
    """Return the error of a scheduler that cycles what a class does not have."""
    members = [member_of(optimizer, group) for group in groups]
    without = [type(m).__name__ for m in members if not m.defaults.keys() & set(CYCLED)]
    return ConfigError(
        f"The scheduler cycles momentum or betas, and {listed(list(dict.fromkeys(without)))} has "
        "neither. Pass cycle_momentum=False; of several algorithms each may have a course: "
        "schedule(optimizer, {'muon': ..., 'adamw': ...}).",
    )


def _start_of(
    optimizer: Optimizer, groups: Sequence[Group], rate: BaseRate, *, is_for_all: bool
) -> tuple[float, dict[str, Any]]:
    """Return the base rate and the settings of the optimizer that a course is to see.

    They are those of the class that steps the groups. Of several it is the reference's base and
    the settings that all have; where one has momentum and another betas, that of the first.
    """
    bases = {rate.base_of(group) for group in groups}
    base = bases.pop() if len(bases) == 1 and not is_for_all else 0.0
    members = {id(member): member for g in groups for member in [member_of(optimizer, g)]}
    members = members or {id(optimizer): optimizer}
    settings = common_defaults(members.values())
    cycled = [next((k for k in CYCLED[::-1] if k in m.defaults), None) for m in members.values()]
    if not settings.keys() & set(CYCLED) and cycled[0] is not None and None not in cycled:
        settings[cycled[0]] = next(iter(members.values())).defaults[cycled[0]]
    return base or rate.base, settings


def _refuse_patterns(patterns: Mapping[Any, Any], optimizer: Optimizer) -> None:
    """Refuse patterns that choose no group, and mappings without a course.

    An algorithm may train nothing, such as in this stage of a model.
    """
    groups = optimizer.param_groups
    empty = set(optimizer._factories if isinstance(optimizer, Mixed) else ())
    empty -= {group.get(ALGORITHM) for group in groups}
    if not any(factory is not None for factory in patterns.values()):
        raise NnlrError(f"{shown(dict(patterns))} has no course for any group.")
    labels = {
        label
        for group in groups
        for key in ("name", "algorithm")
        if isinstance(label := group.get(key), str)
    }
    free = list(groups)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise NnlrError(
                f"The keys of courses are patterns of group names, got {shown(pattern)}."
            )
        chosen = [group for group in groups if matches(pattern, group)]
        if not chosen and pattern in empty:
            continue
        if not chosen:
            hint = nearest_hint(pattern.strip("*"), labels)
            hint = hint or (
                f"Groups: {listed(map(repr, sorted(labels)))}. A rule with group= names one."
            )
            if not labels:
                hint = "None has a name: set group['name'], or build them by a plan."
            raise ConfigError(
                f"{pattern!r} matches no group of the optimizer ({len(groups)} groups). {hint}",
                pattern=pattern,
            )
        left = [group for group in free if not any(group is other for other in chosen)]
        if len(left) == len(free):
            raise ConfigError(
                f"{pattern!r} chooses no group: those that it matches have been chosen by keys "
                "before it. Write narrower patterns first.",
                pattern=pattern,
            )
        free = left
