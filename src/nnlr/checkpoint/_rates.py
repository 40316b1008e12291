"""The rates of groups after loading: from code or checkpoint, with the schedule's progress."""

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any, Final

from torch import Tensor

from nnlr._schedule.progress import SCHEDULED, filled, peak

Group = Mapping[str, Any]

# The key under which the hook of `on_load` adds base rates and names to groups of a state dict.
# Without it the base of a rate that no scheduler has noted would be unknown.
NOTE: Final = "nnlr"

# Numbers that differ by less are one number, computed in another order or as float32.
NOISE: Final = 1e-6


def plain(value: object) -> Any:  # noqa: ANN401 - a setting's value
    """Return a tensor as numbers, and another value as it is."""
    return value.tolist() if isinstance(value, Tensor) else value


def same(one: object, other: object) -> bool:
    """Whether two settings are equal, be they floats or tensors, tuples or lists."""
    one, other = plain(one), plain(other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is type(other) is float:
        return isclose(one, other, rel_tol=NOISE)
    return bool(one == other)


class Rate:
    """One rate of all groups, ``lr`` or ``weight_decay``, in the code and in a checkpoint.

    ``default`` is the code's base rate and ``now`` that of the schedule it has built, if known.
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
        self._static = [group for group in self.saved if not self._moves(group)]
        # Weight decay has a schedule only if it is noted, whatever the rate has.
        self.noted = any(self._peak(group) is not None for group in self.saved)
        self.mults = self._multipliers(present)  # of the code's groups
        self._base = self._base_of(present, self.mults, default)
        before = self._base_of(self.saved, [group.get(mult) for group in self.saved])
        # The code's base rate divided by the checkpoint's.
        self._factor = 1.0
        if self._base is not None and before and not isclose(self._base, before, rel_tol=NOISE):
            self._factor = self._base / before
        self._scheduled, self._now = now, self._base_now()

    def _peak(self, group: Group) -> float | None:
        """Return the rate that a group's schedule is relative to, if scheduler or hook noted it."""
        noted = self._scheduled_peak(group)
        base = group.get(NOTE, {}).get(self.key)
        if noted is None and base is not None and self.mult in group:
            return float(base) * float(group[self.mult])
        return noted

    def _scheduled_peak(self, group: Group) -> float | None:
        """Return the rate that a group's schedule is relative to, if a scheduler noted it."""
        if self.key == "lr":
            return peak(group)
        noted = group.get(self.initial)
        return None if noted is None else float(noted)

    def start(self, group: Group) -> float:
        """Return where the schedule of a group's rate starts, or the rate if there is no note."""
        high = self._peak(group)
        return float(group[self.key]) if high is None else high

    def _base_of(
        self, groups: Sequence[Group], mults: Sequence[float | None], default: object = None
    ) -> float | None:
        """Return the base rate of groups, from the one with the largest static multiplier."""
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
        """Return the base rate at which the checkpoint was saved, if its groups agree on one.

        A group whose multiplier is 1 gives it exactly.
        """
        marked = [group for group in self.saved if self.mult in group]
        if not any(group[self.mult] and group[self.key] for group in marked):
            return None  # no progress can be told from a base of 0 either
        ones = [float(group[self.key]) for group in marked if group[self.mult] == 1]
        largest = max(marked, key=lambda group: float(group[self.mult]))
        guess = float(largest[self.key]) / float(largest[self.mult])
        if ones and all(
            # Exactly base times multiplier, in the precision of the rate.
            float(group[self.key])
            == float(filled(ones[0] * float(group[self.mult]), group[self.key]))
            for group in marked
        ):
            return ones[0]
        close = all(
            isclose(float(group[self.key]), guess * float(group[self.mult]), rel_tol=NOISE)
            for group in marked
        )
        return (ones or [guess])[0] if close else None

    def coded(
        self, position: int, group: Group, sources: Sequence[Group], moving: float | None
    ) -> dict[str, float | Tensor]:
        """Return the code's rate of a group at the progress of the checkpoint's schedule.

        ``sources`` are the saved groups of its parameters, ``moving`` its multiplier if it moves.
        """
        rates = {key: group[key] for key in self.keys if key in group}
        start, mult = self.start(group), self.mults[position]
        if moving is not None and self._base is not None:
            start, mult = self._base * moving, moving
            for key in {self.key, self.initial} & rates.keys():
                rates[key] = filled(start, rates[key])
        if not self.noted:
            return rates
        # The progress of the schedule; that of other groups for a group at 0.
        candidates = map(self._relative, (sources, self._static, self.saved))
        relative = next(filter(None, candidates), {self.key: 1.0})
        if self._scheduled_peak(group) is None:
            example = (*sources, *self.saved)[0]
            for key, value in relative.items():
                exact = self._exact(key, start, mult, sources)
                like = group[self.key] if isinstance(example.get(key), Tensor) else None
                rates[key] = filled(start * value if exact is None else exact, like)
        exact = self._exact(self.key, start, mult, sources)
        if moving is not None and sources:
            now = float(sources[0][self.key]) * self._factor
        elif self._scheduled is not None and mult is not None:
            # The schedule writes this itself, and will again when its own state is loaded.
            now = self._scheduled * mult
        elif exact is not None:
            now = exact
        elif self._now is not None and mult is not None:
            now = self._now * mult * self._factor
        else:
            now = start * relative[self.key]
        rates[self.key] = filled(now, group[self.key])
        return rates

    def _relative(self, groups: Sequence[Group]) -> dict[str, float] | None:
        """Return the scheduler's values in the first group that has a peak, relative to it."""
        for group in groups:
            if high := self._peak(group):
                relative = {key: float(group[key]) / high for key in self.keys if key in group}
                if self._scheduled_peak(group) is None:
                    # Added by hand in mid-schedule: it gets the notes that the others have.
                    noted = [other for other in self.saved if self._scheduled_peak(other)]
                    return (self._relative(noted) or {}) | relative
                return relative
        return None

    def _exact(
        self, key: str, start: float, mult: float | None, sources: Sequence[Group]
    ) -> float | None:
        """Return the value in a saved group that started at the same rate, exact to the bit."""
        static_sources = [group for group in sources if not self._moves(group)]
        for group in (*static_sources, *self._static):
            if (
                key in group
                and group.get(self.mult, mult) == mult
                and isclose(self._peak(group) or 0.0, start, rel_tol=NOISE)
            ):
                return float(group[key])
        return None

    def _moves(self, group: Group) -> bool:
        """Whether a group's multiplier moves during training."""
        return self.mult in group.get("moving", ())

    def _multipliers(self, present: Sequence[Group]) -> list[float | None]:
        """Return the multipliers of the code's groups.

        Where the code has none yet and the checkpoint does, they are those that a schedule
        will write: the rates relative to the largest.
        """
        mults = [group.get(self.mult) for group in present]
        in_code = any(mult is not None for mult in mults)
        if in_code or not any(self.mult in group for group in self.saved):
            return mults
        rates = [self.start(group) if self.key in group else None for group in present]
        base = max((rate for rate in rates if rate is not None), default=0.0)
        return [None if rate is None else rate / base if base else 0.0 for rate in rates]
