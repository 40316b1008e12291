"""The groups of an optimizer that follow the units of a plan's moves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch.optim import Optimizer

from nnlr._rows.units import Mover, Unit
from nnlr._schedule.base_rate import Group
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN
from nnlr._text import listed
from nnlr.checkpoint._sides import MOVED
from nnlr.errors import ConfigError


@dataclass
class Driven:
    """A group of the optimizer, and the units whose multipliers it follows."""

    group: Group
    units: list[tuple[Mover, Unit]]
    fixed: dict[str, float]  # the multipliers that do not move, as the code built them

    def mult(self, setting: str) -> float:
        """Return its multiplier now."""
        value = self.fixed[setting]
        for _, unit in self.units:
            if unit.setting == setting:
                value *= unit.mult
        return value

    def note(self) -> dict[str, float]:
        """Return what its moves remember, as plain numbers by name."""
        return {
            f"{mover.key}.{name}": value
            for mover, unit in self.units
            for name, value in unit.memory.items()
        }


def driven_groups(optimizer: Optimizer, movers: Sequence[Mover]) -> list[Driven]:
    """Return the groups that move; refuse those in which some parameters move otherwise."""
    units: dict[int, list[tuple[Mover, Unit]]] = {}
    for mover, unit in _all(movers):
        for tensor in unit.tensors:
            units.setdefault(id(tensor), []).append((mover, unit))
    driven = []
    for group in optimizer.param_groups:
        of_each = [units.get(id(tensor), []) for tensor in group["params"]]
        if not any(of_each):
            continue
        first, name = of_each[0], group.get("name", "a group")
        if any([id(u) for _, u in other] != [id(u) for _, u in first] for other in of_each):
            raise ConfigError(
                f"Parameters of {name!r} move in different ways, and a group has one rate. Build "
                "the optimizer with plan.optimizer, or regroup it: nnlr.regroup(optimizer, plan)."
            )
        origin: dict[str, Any] = group.get(ORIGIN, {})
        fixed = {key: float(origin.get(m, group.get(m, 1.0))) for key, m in MULTIPLIERS.items()}
        driven.append(Driven(group, first, fixed))
    present = {id(t) for group in optimizer.param_groups for t in group["params"]}
    for _, unit in _all(movers):
        absent = [p.row.name for p in unit.params if id(p.tensor) not in present]
        if absent:
            raise ConfigError(
                f"{unit.source} moves {listed(absent)}, which the optimizer does not train. Attach "
                "the plan that it was built on, or regroup it: nnlr.regroup(optimizer, plan).",
                names=absent,
            )
    return driven


def _all(movers: Sequence[Mover]) -> Iterator[tuple[Mover, Unit]]:
    """Return every unit with its move."""
    return ((mover, unit) for mover in movers for unit in mover.units.values())


# Numbers in a group's note that are of the run, not of a unit.
OF_THE_RUN: Final = ("step", "epoch")


def recall(driven: Sequence[Driven]) -> tuple[int, int]:
    """Take the memory of all units from the groups' notes; return the steps and epochs so far."""
    notes = [(group, group.group.get(MOVED) or {}) for group in driven]
    for group, note in notes:
        for mover, unit in group.units if note else ():
            mover.remember(note, unit)
    step, epoch = (max((int(n.get(key, 0)) for _, n in notes), default=0) for key in OF_THE_RUN)
    return step, epoch
