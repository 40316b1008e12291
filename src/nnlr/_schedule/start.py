"""Where a new schedule starts: at the base rate, with the settings that the code built."""

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any, NamedTuple

from torch.optim import Optimizer

from nnlr import _arguments
from nnlr._schedule.base_rate import (
    BaseRate,
    Group,
    Share,
    as_float,
    following,
    scheduled,
    set_first,
)
from nnlr._schedule.course import CYCLED, first_of
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN, note_origin, number, starts
from nnlr._schedule.progress import rises
from nnlr._text import listed, plural
from nnlr.errors import ConfigError, NnlrError
from nnlr.optim._mixed import bound_rate, by_algorithm, member_of


def starting_bases(optimizer: Optimizer, key: str) -> dict[str | None, float]:
    """Return the rates that multipliers refer to, of each algorithm; nothing is changed."""
    mult = MULTIPLIERS[key]
    groups = optimizer.param_groups
    for position, group in enumerate(groups):
        if key not in group:
            raise NnlrError(f"Group {position} of the optimizer has no {key!r} to schedule.")
        for setting in {key, mult} & group.keys():
            _arguments.number(as_float(group[setting]), f"{setting} of group {position}")
    earlier = scheduled(optimizer).get(key)
    is_marked = any(mult in group for group in groups)
    bases = {}
    for algorithm, own in by_algorithm(optimizer, empty=True).items():
        if not own:
            if (base := bound_rate(optimizer, algorithm, key)) is not None:
                bases[algorithm] = base
        elif not is_marked:
            bases[algorithm] = max(as_float(group[key]) for group in own)
        elif earlier is not None:
            bases[algorithm] = earlier.base_of(own[0])
        elif any(mult in group for group in own):
            bases[algorithm] = _agreed(
                own, as_float(member_of(optimizer, own[0]).defaults.get(key)), key
            )
    if not any(bases.values()):
        raise NnlrError(f"Every group of the optimizer has {key}=0: nothing to schedule.")
    return bases


def _agreed(groups: Sequence[Group], default: float | None, key: str) -> float:
    """Return the base of groups with multipliers: their class's default, or else their own."""
    mult = MULTIPLIERS[key]
    marked = [group for group in groups if mult in group]
    # Where each group starts, and its multiplier.
    starts = [(_start(group, key), as_float(group[mult])) for group in marked]
    for base in (default, _of_largest(starts)):
        if base is not None and _fit(starts, base):
            return base
    # A multiplier that was changed in training: groups have it now, and the notes agree.
    now = [(as_float(group[key]), as_float(group[mult])) for group in marked]
    notes = [group.get(ORIGIN, {}) for group in marked]
    if all(key in note and mult in note for note in notes) and _fit(now, _of_largest(now)):
        built = [(note[key], note[mult]) for note in notes]
        for base in (default, _of_largest(built)):
            if base is not None and _fit(built, base):
                return base
    pairs = ", ".join(f"{rate:g} with {mult}={multiplier:g}" for rate, multiplier in starts[:3])
    raise ConfigError(
        f"The groups do not start at one base rate: {key} is {pairs}. Write {key} = base * "
        f"{mult} into every group, as plan.optimizer does, or leave {mult} out."
    )


def _start(group: Group, key: str) -> float:
    """Return where a rate starts: as built, or where a scheduler noted it."""
    built = number(group.get(ORIGIN, {}), key) if key == "lr" and rises(group) else None
    return starts(group, {})[key] if built is None else built


def _of_largest(pairs: list[tuple[float, float]]) -> float:
    """Return the base rate of the group with the largest multiplier."""
    rate, largest = max(pairs, key=lambda pair: pair[1])
    return rate / (largest or 1.0)


def _fit(pairs: list[tuple[float, float]], base: float) -> bool:
    """Whether all rates are the base rate times their multiplier."""
    return all(isclose(rate, base * mult, rel_tol=1e-6) for rate, mult in pairs)


def mark(optimizer: Optimizer, rate: BaseRate) -> None:
    """Write multipliers if no group has one, and where each group starts."""
    groups, start = optimizer.param_groups, f"initial_{rate.key}"
    if not any(rate.mult in group for group in groups):
        for group in groups:
            group[rate.mult] = as_float(group[rate.key]) / (rate.base_of(group) or 1.0)
            group[start] = as_float(group[rate.key])
    for group in groups:
        if rate.mult in group:
            group.setdefault(start, rate.base_of(group) * group[rate.mult])


def note_groups(optimizer: Optimizer) -> None:
    """Note the settings of groups that have no note, such as those of a checkpoint of 0.1.

    Version 0.1 noted which settings it cycled; these were built with the optimizer's default.
    """
    unnoted = [group for group in optimizer.param_groups if ORIGIN not in group]
    if unnoted:
        note_origin(optimizer.param_groups)
    for group in unnoted:
        for key in CYCLED:
            if group.pop(f"cycles_{key}", None):
                group[ORIGIN][key] = optimizer.defaults[key]


class GivenBack(NamedTuple):
    """Cycled settings that a new schedule has given their origin back, and a word about it."""

    words: str
    moved: list[tuple[Group, str, Any]]

    def undo(self, optimizer: Optimizer) -> None:
        """Put the values back that stood before: the run is a resumed one, and no new phase."""
        for group, key, value in self.moved:
            if any(group is present for present in optimizer.param_groups):
                set_first(group, key, value)


def renew(optimizer: Optimizer, rates: Mapping[str, BaseRate], share: Share) -> GivenBack | None:
    """Replace an earlier schedule: give back what it moved and the new one does not move.

    Returns what may have been moved by a hand.
    """
    earlier = scheduled(optimizer)
    kinds = listed([type(course.scheduler).__name__ for course in share.each])
    for rate in earlier.values():
        rate.replaced_by = kinds
    for key in MULTIPLIERS.keys() - rates.keys():
        before, start = earlier.get(key), f"initial_{key}"
        for group in optimizer.param_groups:
            noted = group.pop(start, None)
            if before is not None and before.mult in group:
                group[key] = before.base_of(group) * group[before.mult]
            elif noted is not None:
                group[key] = noted
    uncertain: list[tuple[Group, str, Any]] = []
    for key in CYCLED:
        by_cycle = _values(earlier.get("lr"), key)
        moved = _give_back(optimizer, key, by_cycle)
        if not by_cycle and not any(key in course.cycle() for course in share.each):
            uncertain += moved
    if not uncertain:
        return None
    first, key, value = uncertain[0]
    words = (
        f"{key} of {plural(len(uncertain), 'group')} was {value:g} and is "
        f"{first_of(first[key]):g} again, as built: a new schedule starts from there. To have "
        "another value set it after the schedule is built."
    )
    return GivenBack(words, uncertain)


def _give_back(optimizer: Optimizer, key: str, by_cycle: list[Any]) -> list[tuple[Group, str, Any]]:
    """Give a cycled setting its origin back; what a hand wrote into some groups stays."""
    groups = following(optimizer, optimizer.param_groups, key)
    alike = len({first_of(group[key]) for group in groups}) == 1  # as a cycle leaves them
    back: list[tuple[Group, str, Any]] = []
    for group in groups:
        value, origin = first_of(group[key]), first_of(group[ORIGIN][key])
        if value != origin and (value in by_cycle or (alike and not by_cycle)):
            set_first(group, key, origin)
            back.append((group, key, value))
    return back


def _values(rate: BaseRate | None, key: str) -> list[Any]:
    """Return the values that the courses of a base rate have for a cycled setting."""
    if rate is None:
        return []
    courses = [course for turn in rate.turns for share in turn for course in share.each]
    return [course.cycle()[key] for course in courses if key in course.cycle()]
