"""Multipliers that move, run ahead beside a copy of a schedule: their units have no tensors.

What follows from progress alone is exact. What measures the network cannot be told ahead: it stays
as it is, and a note says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from math import prod
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from nnlr._declare.moves import Move, Progress
from nnlr._model.names import Slot
from nnlr._rows.groups import Group
from nnlr._rows.row import PlanRow
from nnlr._rows.units import AtWork, Mover, Unit, movers_of
from nnlr._schedule.ratio_scheduler import RatioPlateau, RatioScheduler
from nnlr._schedule.rehearsal import Rehearsal
from nnlr._text import plural
from nnlr.errors import NnlrError
from nnlr.report._moves import moving_steps

if TYPE_CHECKING:
    from nnlr._plan import Plan

# Of a metric that never improves.
_METRIC: Final = 0.0


@dataclass(frozen=True, slots=True)
class _Bare:
    """A row without its tensor."""

    row: PlanRow
    mode: FakeTensorMode
    places: tuple[Slot, ...] = ()

    @property
    def tensor(self) -> Tensor:
        """A tensor of its shape that takes no memory and can be copied, but not read."""
        with self.mode:
            return torch.empty(self.row.shape, device="cpu")


class _Watched(Progress):
    """Progress that notes whether somebody asked for the epoch."""

    asked = False

    @property
    def epoch(self) -> int:
        """Epochs that have ended."""
        self.asked = True
        return self._epoch

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch = value


class Ahead:
    """The rates of the groups of a rehearsal, with what moves them.

    Attributes:
        notes: What the numbers do not say, in sentences.
    """

    def __init__(
        self,
        plan: "Plan",
        rehearsal: Rehearsal,
        attached: AtWork | None,
        run: Progress,
        epoch_steps: int | None,
    ) -> None:
        self.rehearsal, self.epoch_steps = rehearsal, epoch_steps
        self.notes: dict[str, None] = {}
        self.now = run if attached is None else attached.progress
        self.total = self.now.total_steps or run.total_steps
        untold = [s for row in plan.rows for s, _ in moving_steps(row) if s.factor.move is None]
        for source in dict.fromkeys(step.source for step in untold):
            self._note(source, "was read from JSON, which does not hold how it moves")
        told = [row for row in plan.rows if all(s.factor.move for s, _ in moving_steps(row))]
        bare = map(_Bare, told, repeat(FakeTensorMode()))
        self.movers = movers_of(bare, rehearsal.scheduler.optimizer)
        every = [unit for mover in self.movers for unit in mover.all]
        units_of: dict[str, list[Unit]] = {}
        for unit in every:
            for name in unit.names:
                units_of.setdefault(name, []).append(unit)
        planned = {group.name: group for group in plan.groups}
        self.units: dict[int, list[Unit]] = {}  # of each group that moves, by its position
        for at, group in enumerate(rehearsal.groups):
            mine = planned.get(str(group.get("name")))
            if mine is not None and (units := units_of.get(mine.names[0])):
                self.units[at] = units
                group |= {"lr_mult": mine.lr_mult, "wd_mult": mine.wd_mult}
        self._settle(planned)
        now_of = {} if attached is None else {_key(unit): unit for unit in attached.units}
        for unit in every:
            if (real := now_of.get(_key(unit))) is not None:
                unit.mult, unit.memory = real.mult, dict(real.memory)
        for mover in list(self.movers):
            if type(mover.move).measures is not Move.measures:
                self._leave(mover, "measures the network")
        self._ask(every=True)

    def _settle(self, planned: Mapping[str, Group]) -> None:
        """Give groups that move the rates that they would have if they did not.

        A scheduler of others may have started from a rate that had moved: there a group that does
        not move tells the rate.
        """
        self.base: dict[int, tuple[int, float]] = {}  # such a group, and how their rates compare
        groups, scheduler = self.rehearsal.groups, self.rehearsal.scheduler
        for at in self.units:
            groups[at]["weight_decay"] = planned[groups[at]["name"]].weight_decay
        if isinstance(scheduler, RatioScheduler | RatioPlateau):
            for rate in scheduler._rates.values():
                rate.write([groups[at] for at in self.units])
            return
        still = {
            each.algorithm: (at, each.lr)
            for at, group in reversed(list(enumerate(groups)))
            if at not in self.units and (each := planned.get(str(group.get("name"))))
        }
        for at in self.units:
            mine = planned[groups[at]["name"]]
            groups[at]["lr"] = mine.lr
            if mine.algorithm in still:
                other, lr = still[mine.algorithm]
                self.base[at] = other, mine.lr / lr

    def rates(self, key: str) -> list[float]:
        """The rates of the groups at this moment."""
        values = self.rehearsal.read(key)
        moved = list(values)
        for at, units in self.units.items():
            other, share = self.base.get(at, (at, 1.0)) if key == "lr" else (at, 1.0)
            mults = (unit.mult for unit in units if unit.setting == key)
            moved[at] = prod(mults, start=values[other] * share)
        return moved

    def step(self, position: int, *, read: bool = True) -> None:
        """Step the schedule, then what moves; ``read``: whether the rates are read there."""
        self.rehearsal.step(position)
        step, epoch = self.now.step + 1, self.now.epoch
        ended = self.epoch_steps is not None and step % self.epoch_steps == 0
        self.now = Progress(step, self.total, epoch + ended)
        if ended:
            self._each(lambda mover, now: mover.move.end_epoch(now, mover.all, _METRIC))
        if read or ended or not all(map(_is_of_now, self.movers)):
            self._ask(every=ended)

    def _ask(self, *, every: bool = False) -> None:
        """Ask moves for their multipliers, where they are due."""

        def ask(mover: Mover, now: Progress) -> None:
            if every or mover.move.due(now, mover.all):
                mover.ask(now)

        self._each(ask)

    def _each(self, act: Callable[[Mover, Progress], None]) -> None:
        """Have each move act; note what asks for epochs, and leave what needs tensors."""
        for mover in list(self.movers):
            now = _Watched(self.now.step, self.total, self.now.epoch)
            try:
                act(mover, now)
            except NnlrError:
                raise
            except Exception as error:  # noqa: BLE001 - of anyone's move, which may need tensors
                self._leave(mover, f"cannot be run ahead without weights ({type(error).__name__})")
                continue
            if now.asked or mover.move.needs_epochs:
                self._note_epochs(mover)

    def _leave(self, mover: Mover, why: str) -> None:
        """Leave the multipliers of a move as they are."""
        self.movers.remove(mover)
        self._note(mover.all[0].source, why)

    def _note(self, source: str, why: str) -> None:
        self.notes[f"{source} {why}: its multipliers are drawn as they are at the start."] = None

    def _note_epochs(self, mover: Mover) -> None:
        """Say what is assumed of epochs."""
        source = mover.all[0].source
        if self.epoch_steps is None:
            self._note(source, "goes by epochs, of which epoch_steps= would say how long they are")
        else:
            assumed = (
                f"epochs of {plural(self.epoch_steps, 'step')} and a metric that never improves"
            )
            self.notes[f"{source} goes by epochs: {assumed} are assumed."] = None


def _is_of_now(mover: Mover) -> bool:
    """Whether multipliers are those of the moment, whatever was before it."""
    remembers = any(unit.memory for unit in mover.units.values())
    return type(mover.move).due is Move.due and not remembers


def _key(unit: Unit) -> tuple[str, str, str]:
    return unit.source, unit.name, unit.setting
