"""Moves: how a scheme changes multipliers while training.

    multiplier(t) = multiplier of the plan * product of its moves at t

A scheme that moves gives a parameter a factor with a :class:`Move`. Parameters with the same
move and the same *unit* move together, and a plan gives them groups of their own.
``nnlr.attach`` has the moves of a plan act on an optimizer.
"""

from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter, signature
from math import nan
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, cast

from nnlr._arguments import choice
from nnlr._arguments import function as checked_function
from nnlr._text import shown
from nnlr.depth._layer import Layer
from nnlr.errors import NnlrError

if TYPE_CHECKING:
    from nnlr._rows.units import Unit

Setting = Literal["lr", "weight_decay"]


class Progress(float):
    """How far training has come: the part of the run that is done, 0 to 1.

    It is NaN where nobody said how many steps the run has.

    Attributes:
        step: Steps that the optimizer has taken.
        total_steps: Steps of the whole run, or ``None``.
        epoch: Epochs that have ended, as far as ``end_epoch`` was called.

    Examples:
        >>> now = Progress(250, 1000)
        >>> now < 0.5, now.step, float(now)
        (True, 250, 0.25)
    """

    step: int
    total_steps: int | None
    epoch: int

    def __new__(cls, step: int, total_steps: int | None = None, epoch: int = 0) -> Self:
        """Make the progress of a run after some steps."""
        part = nan if total_steps is None else min(step / total_steps, 1.0)
        self = super().__new__(cls, part)
        self.step, self.total_steps, self.epoch = step, total_steps, epoch
        return self

    def __repr__(self) -> str:
        of = "" if self.total_steps is None else f" of {self.total_steps}"
        return f"step {self.step}{of}"


class Moves(NamedTuple):
    """What a plan says of a move, as plain data.

    Attributes:
        setting: What moves: ``"lr"``, hence ``lr_mult``, or ``"weight_decay"``.
        unit: Parameters with the same move and unit move together: ``"layer3"``.
        how: How it moves, in a short phrase with its settings.
    """

    setting: Setting
    unit: str
    how: str


def as_moves(value: object) -> Moves:
    """Return what moves, with which others and how, from three words; refuse anything else.

    Examples:
        >>> as_moves(("lr", "layer3", "halved at each epoch"))
        Moves(setting='lr', unit='layer3', how='halved at each epoch')
    """
    words = value if isinstance(value, tuple) else ()
    if len(words) != len(Moves._fields) or not all(isinstance(word, str) for word in words):
        raise NnlrError(
            "moves must be what moves, its unit, and how, such as ('lr', 'layer3', 'halved at each "
            f"epoch'), got {shown(value)}.",
            value=value,
        )
    return Moves(choice(words[0], "what moves", ("lr", "weight_decay")), *words[1:])


class Move:
    """How a scheme moves multipliers; subclass it for a move of your own.

    One object moves all its units, so that their multipliers may depend on each other. It holds
    arguments only: what it has to remember of a unit stands in ``unit.memory``, plain numbers by
    name, which are saved with the optimizer.

    Attributes:
        needs_total: Whether it has to know how many steps the run has.
        needs_epochs: Whether it has to be told of the ends of epochs.
        opens_at: How many epochs have to end before nothing waits any more, as far as that is
            known; the callbacks of trainers compare it with the length of the run.
        opens_at_step: How many steps, likewise; ``nnlr.attach`` compares it with ``total_steps``.
        locks: Whether parameters that it moves to 0 lose gradient for as long.
        drops_state: Whether they lose the optimizer's state too, and start afresh later.
        norm_eval: Whether normalisation layers that are locked so have a forward as in eval mode:
            by their running statistics, which stay as they are.
    """

    needs_total: bool = False
    needs_epochs: bool = False
    opens_at: int = 0
    opens_at_step: int = 0
    locks: bool = False
    drops_state: bool = False
    norm_eval: bool = False

    def measures(self, now: Progress, units: "Sequence[Unit]") -> bool:
        """Whether :meth:`measure` is to be called before this step; never by default."""
        return False

    def measure(self, now: Progress, units: "Sequence[Unit]") -> None:
        """Look at tensors, gradients and state before a step, and note what counts in memory.

        Where the step is given a closure, this follows its first call, which computes gradients.
        """

    def end_epoch(self, now: Progress, units: "Sequence[Unit]", metric: float | None) -> None:
        """Take note of the end of an epoch, and of a metric of it."""

    def due(self, now: Progress, units: "Sequence[Unit]") -> bool:
        """Whether multipliers may have changed since the step before; always by default."""
        return True

    def mults(self, now: Progress, units: "Sequence[Unit]") -> Sequence[float]:
        """Return the multiplier of each unit at this moment, finite, >= 0."""
        raise NnlrError(
            f"{type(self).__name__} does not define mults(self, now, units). Write it: it returns "
            "one multiplier for each of the units, in order."
        )

    @property
    def _key(self) -> str:
        """What its memory is called in checkpoints."""
        return type(self).__name__

    def __repr__(self) -> str:
        """The call that makes it, if its arguments are what it holds."""
        arguments = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class Timed(Move):
    """A function of progress, or of progress and layer; made by :meth:`nnlr.Scheme.at`."""

    def __init__(self, function: Callable[..., float]) -> None:
        value: object = function
        if isinstance(value, type) and issubclass(value, Move):
            raise NnlrError(f"at needs a move, not its class. Make one: {value.__name__}(...).")
        checked_function(function, "at", "lambda t: 1 - t")
        self.function = function
        self.by_layer = _arguments(function) == 2

    def mults(self, now: Progress, units: "Sequence[Unit]") -> Sequence[float]:
        """Return what the function gives for each unit."""
        if self.by_layer:
            return [self.function(now, unit.layer) for unit in units]
        return [self.function(now)] * len(units)

    def __str__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return "function" if name == "<lambda>" else cast(str, name)


def own_name(unit: str, names: Iterable[str]) -> str:
    """Return which of a scheme's names for its units it is; ``within`` puts a path before them.

    Examples:
        >>> own_name("model.backbone.layer3", ["layer3", "head"])
        'layer3'
    """
    return max((n for n in names if f".{unit}".endswith(f".{n}")), key=len)


def unit_of(layer: Layer | None) -> str:
    """Return the name of the unit of a layer.

    Examples:
        >>> unit_of(Layer(3, 12)), unit_of(Layer(0, 4, "encoder")), unit_of(None)
        ('layer3', 'encoder.layer0', '')
    """
    if layer is None:
        return ""
    return inside(layer.tower, f"layer{layer.depth}")


def inside(path: str, name: str) -> str:
    """Return a name below a path, either of which may be empty.

    Examples:
        >>> inside("encoder", "layer0"), inside("", "layer0"), inside("encoder", "")
        ('encoder.layer0', 'layer0', 'encoder')
    """
    return ".".join(filter(None, (path, name)))


def _arguments(function: Callable[..., Any]) -> int:
    """Return how many arguments a function of progress takes: 1, or 2 with the layer."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):  # some of C have none
        return 1
    kinds = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}
    needed = [p for p in parameters if p.kind in kinds and p.default is p.empty]
    if len(needed) not in {1, 2}:
        raise NnlrError(
            f"at needs a function of progress, f(t), or of progress and layer, f(t, layer), got "
            f"{shown(function)} of {len(needed)} arguments."
        )
    return len(needed)
