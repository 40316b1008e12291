"""The units of a plan's moves, and the groups of an optimizer that belong to them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._declare.moves import Move, Setting
from nnlr._schedule.base_rate import Group
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN
from nnlr._text import listed
from nnlr.checkpoint._sides import MOVED
from nnlr.depth._layer import Layer
from nnlr.errors import ConfigError


@dataclass(eq=False)
class Unit:
    """Parameters that one move moves together.

    Attributes:
        name: What it is called, as ``"layer3"``.
        source: The scheme that moves it, as a user would write it.
        setting: What moves: ``"lr"`` or ``"weight_decay"``.
        params: Its rows of the plan with their tensors.
        optimizer: The optimizer that trains it.
        memory: What the move remembers of it: plain numbers by name, saved with the optimizer.
        mult: Its multiplier now.
    """

    name: str
    source: str
    setting: Setting
    params: list[Located]
    optimizer: Optimizer
    memory: dict[str, float] = field(default_factory=dict)
    mult: float = 1.0

    @property
    def layer(self) -> Layer | None:
        """The layer of its first parameter, if a scheme asked for layers."""
        layers = (s.factor.layer for s in self.params[0].row.trace if s.factor.layer is not None)
        return next(layers, None)

    @property
    def names(self) -> list[str]:
        """The names of its parameters."""
        return [param.row.name for param in self.params]

    @property
    def tensors(self) -> list[Tensor]:
        """Its parameters."""
        return [param.tensor for param in self.params]


@dataclass
class Mover:
    """One move of a plan with its units."""

    move: Move
    key: str  # what its memory is called in groups
    units: dict[str, Unit] = field(default_factory=dict)

    def remember(self, notes: Mapping[str, float], unit: Unit) -> None:
        """Take a unit's memory from the note of a group."""
        begin = f"{self.key}."
        unit.memory = {k.removeprefix(begin): v for k, v in notes.items() if k.startswith(begin)}


def movers_of(located: Sequence[Located], optimizer: Optimizer) -> list[Mover]:
    """Return the moves of a plan, each with its units, for the trained rows.

    A move is called in groups by its class, and a number where there are several of it.
    """
    movers: dict[int, Mover] = {}
    counts: dict[str, int] = {}
    for param in located:
        for step in param.row.trace if param.row.trainable else ():
            moves, move = step.factor.moves, step.factor.move
            if moves is None:
                continue
            if move is None:
                raise ConfigError(
                    f"{step.source} moves {param.row.name!r}, and this plan does not hold the "
                    "function that says how: it was read from JSON. Call nnlr.resolve again.",
                    name=param.row.name,
                )
            if id(move) not in movers:
                kind = type(move).__name__
                counts[kind] = counts.get(kind, 0) + 1
                number = "" if counts[kind] == 1 else str(counts[kind])
                movers[id(move)] = Mover(move, f"{kind}{number}")
            units = movers[id(move)].units
            if moves.unit not in units:
                units[moves.unit] = Unit(moves.unit, step.source, moves.setting, [], optimizer)
            units[moves.unit].params.append(param)
    return list(movers.values())


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
