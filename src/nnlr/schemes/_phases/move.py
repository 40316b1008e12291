"""The move of phases: which have begun, and what that makes of the multipliers.

    mult(p, t) = 0                                                     before its phase
    mult(p, t) = min(1, (steps since its phase began + 1) / warmup) * earlier    from then on

``earlier`` is that of the last phase after p's that has begun and sets one, else 1. How far it is
stands in the memory of each unit: the phase that began last (``phase``), the step at which its own
began (``begin``), the best metric and how long it has not improved (``best``, ``wait``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nnlr._declare.moves import Move, Progress, own_name
from nnlr._text import warn
from nnlr.schemes._phases.best import note_best, refuse_sharded, restore_best
from nnlr.schemes._phases.phase import Checked

if TYPE_CHECKING:
    from nnlr._rows.units import Unit

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Member:
    """Which phase a unit belongs to, and whether it is trained from the start all the same."""

    phase: int
    always: bool = False


@dataclass(kw_only=True)
class Phases(Move):
    """Phases that begin one after another; made by :func:`nnlr.unfreeze`."""

    phases: Sequence[Checked]
    members: Mapping[str, Member]  # by the name of the unit
    min_delta: float
    mode: Mode
    norm_eval: bool
    restore_best: bool

    locks = True

    def __post_init__(self) -> None:
        """Say what it has to be told."""
        self.needs_total = any(phase.fraction is not None for phase in self.phases)
        self.needs_epochs = any(phase.by_epochs for phase in self.phases)
        self.opens_at = max(phase.fixed("epoch") for phase in self.phases)
        self.opens_at_step = max(phase.fixed("step") for phase in self.phases)

    def due(self, now: Progress, units: "Sequence[Unit]") -> bool:
        """Whether a phase begins by steps, or warms up."""
        last = _last(units)
        following = self.phases[last + 1 : last + 2]
        return any(phase.reached(now.step, now) for phase in following) or any(
            self._since(unit, now) < self._warmup(unit) for unit in units if unit.mult
        )

    def mults(self, now: Progress, units: "Sequence[Unit]") -> Sequence[float]:
        """Return 0 for what waits, and for what is trained its warm-up and later factors."""
        if self.restore_best and not units[0].copies:  # always there: DCP misses what comes late
            refuse_sharded(units)
            note_best(units)
        last = _last(units)
        while any(p.reached(now.step, now) for p in self.phases[last + 1 : last + 2]):
            last = self._begin(units)
        for unit in units:
            if self._open(unit, last):
                unit.memory.setdefault("begin", now.step)
        return [self._mult(unit, last, now) for unit in units]

    def end_epoch(self, now: Progress, units: "Sequence[Unit]", metric: float | None) -> None:
        """Follow the metric, and begin the next phase if it is due."""
        last = _last(units)
        best, wait = units[0].memory.get("best"), units[0].memory.get("wait", 0)
        following = self.phases[last + 1] if last + 1 < len(self.phases) else None
        if metric is None:
            waits = following is not None and following.patience is not None
            if best is None and now.epoch == 1 and (waits or self.restore_best):
                warn(
                    "An epoch has ended without a metric, by which unfreeze decides. Pass it: "
                    "attached.end_epoch(metric), a number measured on held-out data. Where that is "
                    "not measured after every epoch, nothing is wrong."
                )
        elif best is None or self._improves(metric, best):
            best, wait = metric, 0
            if self.restore_best:
                note_best(units)
        else:
            wait += 1
        for unit in units:
            unit.memory |= {"wait": wait} if best is None else {"wait": wait, "best": best}
        if following is None:
            return
        stalled = following.patience is not None and wait >= following.patience
        if stalled or (following.epoch is not None and now.epoch >= following.epoch):
            self._begin(units)

    def _improves(self, metric: float, best: float) -> bool:
        if self.mode == "min":
            return metric < best - self.min_delta
        return metric > best + self.min_delta

    def _begin(self, units: "Sequence[Unit]") -> int:
        """Begin the next phase, from the best weights if that is wanted."""
        if self.restore_best and "best" in units[0].memory:
            restore_best(units)
        last = _last(units) + 1
        for unit in units:
            unit.memory |= {"phase": last, "wait": 0}
        return last

    def _open(self, unit: "Unit", last: int) -> bool:
        """Whether a unit is trained once so many phases have begun."""
        member = self.members[own_name(unit.name, self.members)]
        return member.always or member.phase <= last

    def _warmup(self, unit: "Unit") -> int:
        """The steps over which the rate of a unit rises."""
        member = self.members[own_name(unit.name, self.members)]
        return 0 if member.always else self.phases[member.phase].warmup

    def _since(self, unit: "Unit", now: Progress) -> int:
        """The steps since the phase of an open unit began."""
        return now.step - int(unit.memory.get("begin", now.step))

    def _mult(self, unit: "Unit", last: int, now: Progress) -> float:
        if not self._open(unit, last):
            return 0.0
        after = self.phases[self.members[own_name(unit.name, self.members)].phase + 1 : last + 1]
        factors = [phase.earlier for phase in after if phase.earlier is not None]
        warmup = self._warmup(unit)
        rising = min(1.0, (self._since(unit, now) + 1) / warmup) if warmup else 1.0
        return rising * (factors[-1] if factors else 1.0)


def _last(units: "Sequence[Unit]") -> int:
    """The phase that began last."""
    return max(int(unit.memory.get("phase", 0)) for unit in units)
