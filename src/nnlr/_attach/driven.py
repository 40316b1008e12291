"""The groups of an optimizer that follow the units of a plan's moves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

from nnlr._declare.moves import Setting
from nnlr._rows.row import PlanRow
from nnlr._rows.units import Mover, Unit
from nnlr._schedule.base_rate import Group
from nnlr._schedule.moved import COPIES, COUNTS, MOVED, Copies, read, written
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN
from nnlr._text import listed
from nnlr.errors import ConfigError


@dataclass
class Driven:
    """A group of the optimizer, and the units whose multipliers it follows."""

    group: Group
    units: list[tuple[Mover, Unit]]
    fixed: dict[Setting, float]  # of what moves: the multiplier as the code built it
    memory: str = ""  # of its units, as text
    copies: Copies = field(default_factory=dict)  # of its units

    def mult(self, setting: Setting) -> float:
        """Return its multiplier now."""
        value = self.fixed[setting]
        for _, unit in self.units:
            if unit.setting == setting:
                value *= unit.mult
        return value

    def write(self) -> list[Setting]:
        """Write its multipliers, note what its moves remember, and return what has changed."""
        if self.memory or any(unit.memory for _, unit in self.units):
            self.memory = written({mover.key: unit.memory for mover, unit in self.units})
        self.copies = {mover.key: unit.copies for mover, unit in self.units if unit.copies}
        changed: list[Setting] = []
        for setting in self.fixed:
            mult, key = self.mult(setting), MULTIPLIERS[setting]
            if self.group.get(key) != mult:
                self.group[key] = mult
                changed.append(setting)
        return changed


def driven_groups(optimizer: Optimizer, movers: Sequence[Mover]) -> list[Driven]:
    """Return the groups that move; refuse those in which some parameters move otherwise."""
    units: dict[int, list[tuple[Mover, Unit]]] = {}
    rows: dict[int, PlanRow] = {}
    for mover, unit in _all(movers):
        for param in unit.params:
            units.setdefault(id(param.tensor), []).append((mover, unit))
            rows[id(param.tensor)] = param.row
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
        fixed: dict[Setting, float] = {}
        for _, unit in first:
            key = MULTIPLIERS[unit.setting]
            # Groups that were built by hand may have none: the plan's, from then on.
            of_plan = getattr(rows[id(group["params"][0])], key)
            fixed[unit.setting] = float(origin.setdefault(key, of_plan))
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


def recall(driven: Sequence[Driven]) -> dict[str, int]:
    """Give all units the memory of their groups' notes, and return the counts of these.

    Of a group that was new to the run the note is behind: the counts are the highest.
    """
    counts: dict[str, int] = {}
    for each in driven:
        noted = each.group.get(MOVED) or {}
        memory = read(noted.get("memory", ""))
        for mover, unit in each.units:
            unit.memory = dict(memory.get(mover.key, {}))
            unit.copies = dict(noted.get(COPIES, {}).get(mover.key, {}))
        for key, count in noted.items():
            if key in COUNTS:
                counts[key] = max(counts.get(key, 0), int(count))
    return counts
