"""The rates of groups after a checkpoint: whose they are, and how far the schedule has come."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import isclose
from typing import Any, Final

from torch import Tensor

from nnlr._schedule.progress import SCHEDULED, filled, peak

Group = Mapping[str, Any]

# What the hook of `on_load` adds to the groups of a state dict: the base rates that they
# started from, which rates that no scheduler has noted would not tell, and names.
NOTE: Final = "nnlr"

# Numbers that differ by less are one number, computed in another order or as float32.
NOISE: Final = 1e-6


def same(one: object, other: object) -> bool:
    """Whether two settings are one, be they floats or tensors, tuples or lists."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        one, other = (each.tolist() if isinstance(each, Tensor) else each for each in (one, other))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is type(other) is float:
        return isclose(one, other, rel_tol=NOISE)
    return bool(one == other)


class Rate:
    """One rate of all groups, in the code and in a checkpoint.

    Args:
        key: ``"lr"`` or ``"weight_decay"``.
        mult: The groups' key for its multiplier.
        present: The groups of the code.
        saved: The groups of the checkpoint.
        default: The code's base rate, if it is known.
        now: The base rate of a schedule that the code has built, if it has.
    """

    def __init__(
        self,
        key: str,
        mult: str,
        present: Sequence[Group],
        saved: Sequence[Group],
        *,
        default: object,
        now: float | None,
    ) -> None:
        self.key, self.mult, self.initial = key, mult, f"initial_{key}"
        self.keys = SCHEDULED if key == "lr" else (key, self.initial)
        self.saved = [group for group in saved if key in group]
        self._still = [group for group in self.saved if not self._moves(group)]
        self._peaks = self._with_peaks(self._still)
        # Weight decay has a schedule only if it is noted, whatever the rate has.
        self.noted = any(self._peak(group) is not None for group in self.saved)
        self._mults = _multipliers(present, self.saved, mult, self.start)
        self._base = self._base_of(present, self._mults, default)
        before = self._base_of(self.saved, [group.get(mult) for group in self.saved])
        # What the code's base rate is of the checkpoint's.
        self._factor = 1.0
        if self._base is not None and before and not isclose(self._base, before, rel_tol=NOISE):
            self._factor = self._base / before
        self._scheduled, self._now = now, self._base_now()

    def _peak(self, group: Group) -> float | None:
        """What a group's schedule is relative to, as a scheduler or the hook noted it."""
        noted = self._scheduled_peak(group)
        base = group.get(NOTE, {}).get(self.key)
        if noted is None and base is not None and self.mult in group:
            return float(base) * float(group[self.mult])
        return noted

    def _with_peaks(self, groups: Iterable[Group]) -> list[tuple[float, Group]]:
        return [(self._peak(group) or 0.0, group) for group in groups]

    def _scheduled_peak(self, group: Group) -> float | None:
        if self.key == "lr":
            return peak(group)
        noted = group.get(self.initial)
        return None if noted is None else float(noted)

    def start(self, group: Group) -> float:
        """Where the schedule of a group's rate starts, or the rate if it has none."""
        high = self._peak(group)
        return float(group[self.key]) if high is None else high

    def multiplier(self, position: int) -> float | None:
        """The multiplier of a group in the code."""
        return self._mults[position]

    def _base_of(
        self,
        groups: Sequence[Group],
        mults: Sequence[float | None],
        default: object = None,
    ) -> float | None:
        """The base rate that groups start from: that of the largest static multiplier."""
        static = [
            (mult, self.start(group))
            for group, mult in zip(groups, mults, strict=True)
            if mult and self.key in group and not self._moves(group)
        ]
        if not static:
            return float(default) if isinstance(default, int | float | Tensor) else None
        for mult, start in static:
            if mult == 1:
                return start
        mult, start = max(static)
        return start / mult

    def _base_now(self) -> float | None:
        """The base rate at which the checkpoint was saved, if its groups agree on one.

        A group whose multiplier is 1 knows it best.
        """
        marked = [group for group in self.saved if self.mult in group]
        if not any(group[self.mult] and group[self.key] for group in marked):
            return None  # nor does a base of 0 tell how far it has come
        ones = [float(group[self.key]) for group in marked if group[self.mult] == 1]
        largest = max(marked, key=lambda group: float(group[self.mult]))
        guess = float(largest[self.key]) / float(largest[self.mult])
        if ones and all(self._is_product(group, ones[0]) for group in marked):
            return ones[0]
        close = all(
            isclose(float(group[self.key]), guess * float(group[self.mult]), rel_tol=NOISE)
            for group in marked
        )
        return (ones or [guess])[0] if close else None

    def _is_product(self, group: Group, base: float) -> bool:
        held = group[self.key]
        return float(held) == float(filled(base * float(group[self.mult]), held))

    def coded(
        self,
        position: int,
        group: Group,
        sources: Sequence[Group],
        moving: float | None,
    ) -> dict[str, float | Tensor]:
        """The rate of a group by the code, as far as the checkpoint's schedule has come.

        Args:
            position: Which group.
            group: The group.
            sources: The saved groups that its parameters are from.
            moving: Its multiplier, if that is one that moves.
        """
        own = {key: group[key] for key in self.keys if key in group}
        start, mult = self.start(group), self._mults[position]
        if moving is not None and self._base is not None:
            start, mult = self._base * moving, moving
            for key in {self.key, self.initial} & own.keys():
                own[key] = filled(start, own[key])
        if not self.noted:
            return own
        relative = self._progress(sources)
        if self._scheduled_peak(group) is None:
            example = (*sources, *self.saved)[0]
            for key, value in relative.items():
                exact = self._exact(key, start, mult, sources)
                held = isinstance(example.get(key), Tensor)
                own[key] = filled(
                    start * value if exact is None else exact,
                    group[self.key] if held else None,
                )
        own[self.key] = filled(
            self._now_at(start, mult, relative[self.key], sources, moving),
            group[self.key],
        )
        return own

    def _now_at(
        self,
        start: float,
        mult: float | None,
        relative: float,
        sources: Sequence[Group],
        moving: float | None,
    ) -> float:
        """The rate of a group that started at a rate; ``relative`` is its progress."""
        if moving is not None and sources:
            return float(sources[0][self.key]) * self._factor
        if self._scheduled is not None and mult is not None:
            # It writes this itself, and will again when its own state is loaded.
            return self._scheduled * mult
        exact = self._exact(self.key, start, mult, sources)
        if exact is not None:
            return exact
        if self._now is not None and mult is not None:
            return self._now * mult * self._factor
        return start * relative

    def _progress(self, sources: Sequence[Group]) -> dict[str, float]:
        """How far the schedule has come; of a group that was at 0, as far as the others."""
        for groups in (sources, self._still, self.saved):
            if found := self._relative(groups):
                return found
        return {self.key: 1.0}

    def _relative(self, groups: Sequence[Group]) -> dict[str, float] | None:
        """All that a scheduler keeps in the first group that has a peak, relative to it."""
        for group in groups:
            if high := self._peak(group):
                found = {key: float(group[key]) / high for key in self.keys if key in group}
                if self._scheduled_peak(group) is None:
                    # Added by hand in mid-schedule: as noted as the others from now on.
                    noted = [each for each in self.saved if self._scheduled_peak(each)]
                    return (self._relative(noted) or {}) | found
                return found
        return None

    def _exact(
        self, key: str, start: float, mult: float | None, sources: Sequence[Group]
    ) -> float | None:
        """The value in a saved group that started at the same rate, so that no bit is lost."""
        own = self._with_peaks(group for group in sources if not self._moves(group))
        for high, group in chain(own, self._peaks):
            if (
                isclose(high, start, rel_tol=NOISE)
                and key in group
                and group.get(self.mult, mult) == mult
            ):
                return float(group[key])
        return None

    def _moves(self, group: Group) -> bool:
        return self.mult in group.get("moving", ())


def _multipliers(
    present: Sequence[Group],
    saved: Sequence[Group],
    mult: str,
    start: Any,  # noqa: ANN401 - a method of Rate
) -> list[float | None]:
    """The multipliers of the code's groups.

    Where the code has none yet and the checkpoint does, they are those that a schedule
    will write: the rates relative to the largest.
    """
    own = [group.get(mult) for group in present]
    if any(each is not None for each in own) or not any(mult in each for each in saved):
        return own
    key = "lr" if mult == "lr_mult" else "weight_decay"
    rates = [start(group) if key in group else None for group in present]
    base = max((rate for rate in rates if rate is not None), default=0.0)
    return [None if rate is None else rate / base if base else 0.0 for rate in rates]
