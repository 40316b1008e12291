"""The units of a plan's moves: which parameters move together, and what they remember."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, isnan
from typing import Protocol

from torch import Tensor
from torch.optim import Optimizer

from nnlr._arguments import number
from nnlr._declare.factor import Step
from nnlr._declare.moves import Move, Progress, Setting
from nnlr._model.names import Slot
from nnlr._rows.row import PlanRow
from nnlr.depth._layer import Layer
from nnlr.errors import ConfigError, NnlrError


class Param(Protocol):
    """A row of a plan, and its tensor in a model."""

    @property
    def row(self) -> PlanRow: ...

    @property
    def tensor(self) -> Tensor: ...

    @property
    def places(self) -> tuple[Slot, ...]: ...


class AtWork(ABC):
    """Base of what moves multipliers of an optimizer, by hooks around its steps."""

    @property
    @abstractmethod
    def progress(self) -> Progress:
        """How far the run has come."""

    @property
    @abstractmethod
    def units(self) -> "list[Unit]":
        """What moves, with its multipliers now."""


def at_work(optimizer: object) -> AtWork | None:
    """Return what moves multipliers of an optimizer, if anything does."""
    hooks = getattr(optimizer, "_optimizer_step_post_hooks", {}).values()
    owners = (getattr(hook, "__self__", None) for hook in hooks)
    return next((owner for owner in owners if isinstance(owner, AtWork)), None)


@dataclass(eq=False)
class Unit:
    """Parameters that one move moves together.

    Attributes:
        name: What it is called, as ``"layer3"``.
        source: The scheme that moves it, as a user would write it.
        setting: What moves: ``"lr"`` or ``"weight_decay"``.
        params: Its rows of the plan with their tensors.
        optimizer: The optimizer that trains it.
        layer: Which layer it is by the scheme that moves it; if that one counts none, by the first
            that does.
        memory: What the move remembers of it: plain numbers by name, and no NaN, saved with the
            optimizer.
        copies: Copies of tensors that the move has made, by name, saved with the optimizer too.
        mult: Its multiplier now.
    """

    name: str
    source: str
    setting: Setting
    params: list[Param]
    optimizer: Optimizer
    layer: Layer | None = None
    memory: dict[str, float] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)
    mult: float = 1.0

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

    @property
    def all(self) -> list[Unit]:
        """All its units, in the model's order."""
        return list(self.units.values())

    def ask(self, now: Progress) -> None:
        """Take the multiplier of each unit; refuse what no training can use."""
        units = self.all
        mults = self.move.mults(now, units)
        if len(mults) != len(units):
            raise NnlrError(
                f"{units[0].source} gave {len(mults)} multipliers for {len(units)} units at "
                f"{now!r}."
            )
        checked = [_mult(unit, mult, now) for unit, mult in zip(units, mults, strict=True)]
        for unit, mult in zip(units, checked, strict=True):
            unit.mult = mult


def _mult(unit: Unit, mult: object, now: Progress) -> float:
    """Return a multiplier of a unit, or refuse it."""
    if type(mult) is float and 0 <= mult < inf:
        return mult
    value = mult.item() if hasattr(mult, "item") else mult
    if isinstance(value, float) and isnan(value) and now.total_steps is None:
        raise ConfigError(
            f"{unit.source} gave NaN at {now!r}: it reads the part of the run that is done. Say "
            "how long the run is: attach(optimizer, plan, total_steps=...).",
            source=unit.source,
        )
    what = f"the multiplier that {unit.source} gives unit {unit.name!r} at {now!r}"
    return number(value, what)


def movers_of(params: Iterable[Param], optimizer: Optimizer) -> list[Mover]:
    """Return the moves of a plan, each with its units, for the trained rows.

    What moves two settings, or is there twice for one parameter, is two moves. A move is called in
    groups by its class, and a number where there are several of it. Measured ones are told apart by
    their probes, so that none takes up what another has read.
    """
    movers: dict[object, Mover] = {}
    counts: dict[str, int] = {}
    for param in params:
        times: Counter[object] = Counter()
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
            times[id(move), moves] += 1
            which = id(move), moves.setting, times[id(move), moves]
            if which not in movers:
                key = move._key
                counts[key] = counts.get(key, 0) + 1
                number = "" if counts[key] == 1 else str(counts[key])
                movers[which] = Mover(move, f"{key}{number}")
            units = movers[which].units
            if moves.unit not in units:
                units[moves.unit] = Unit(
                    moves.unit, step.source, moves.setting, [], optimizer, _layer_of(param, step)
                )
            units[moves.unit].params.append(param)
    return list(movers.values())


def _layer_of(param: Param, step: Step) -> Layer | None:
    """Return the layer of a parameter by a scheme; if it counts none, by the first that does."""
    layers = (each.factor.layer for each in (step, *param.row.trace))
    return next((layer for layer in layers if layer is not None), None)
