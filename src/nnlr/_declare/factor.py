"""Factors: how one scheme changes the rates of one parameter.

A trace lists all factors of a parameter with their sources; their product gives a plan's row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from nnlr._arguments import choice, flag, instance, names, number, options, text, word
from nnlr._declare.moves import Move, Moves, as_moves
from nnlr._text import shown
from nnlr.depth._layer import Layer, as_layer
from nnlr.errors import NnlrError

Update = Literal["adam", "adamw", "sgd", "muon"]

UPDATES: Final[tuple[Update, ...]] = ("adam", "adamw", "sgd", "muon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """How one scheme changes the rates and settings of one parameter.

    Attributes:
        lr_mult: Factor on the learning rate, finite, >= 0. 0 locks the parameter.
        wd_mult: Factor on the weight decay, finite, >= 0.
        eps_mult: Factor on the optimizer's ``eps``, finite, > 0.
        init_mult: Factor on the initial weights, finite, > 0; ``nnlr.apply_init`` applies it.
        lr: Absolute learning rate instead of ``lr_mult``; becomes ``lr / base`` at resolve.
        weight_decay: Absolute decay instead of ``wd_mult``; likewise. The weight decay modes
            of ``resolve`` leave it alone.
        options: Other settings of the parameter's group, such as ``{"betas": (0.9, 0.95)}``.
        why: One short phrase for the trace: ``"0.75^9, block 4 of 13"``.
        compensates_decay: The factor already corrects decay for its ``lr_mult``, so the
            weight decay modes of ``resolve`` leave it alone.
        update: Whose steps it is right for, ``"sgd"``, ``"adam"`` (decay in the gradient),
            ``"adamw"``, or ``"muon"`` (orthogonal updates times ``sqrt(max(1, rows /
            columns))``); ``None`` for any. ``plan.optimizer`` refuses torch's classes of
            another kind, and any Muon; of others it cannot tell.
        algorithm: Name of the algorithm that should train the parameter, where there are several.
        group: Name that the parameter's group begins with; parameters of other such names, or of
            none, are in other groups, so that a schedule can give these a course of their own.
        shadowed: Rules that matched too but came later.
        layer: The parameter's place in depth, if the scheme asked for it.
        moves: What moves while training, ``"lr"`` or ``"weight_decay"``; its unit, as ``"layer3"``,
            since what has the same unit and move moves together; and how, in a short phrase
            with its settings: plans of which this is the same move alike.
        move: What moves it; see :class:`nnlr.Move`. No file holds it.

    Examples:
        >>> Factor(lr_mult=0.5).wd_mult
        1.0
    """

    lr_mult: float = 1.0
    wd_mult: float = 1.0
    eps_mult: float = 1.0
    init_mult: float = 1.0
    lr: float | None = None
    weight_decay: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    compensates_decay: bool = False
    update: Update | None = None
    algorithm: str | None = None
    shadowed: tuple[str, ...] = ()
    layer: Layer | None = None
    group: str | None = None
    moves: Moves | None = None
    move: Move | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the numbers, so that no scheme can hand on a NaN."""
        put = object.__setattr__  # the class is frozen
        for absolute, relative in (("lr", "lr_mult"), ("weight_decay", "wd_mult")):
            rate, mult = getattr(self, absolute), getattr(self, relative)
            mult = number(mult, relative)
            put(self, relative, mult)
            if rate is None:
                continue
            rate = number(rate, absolute)
            put(self, absolute, rate)
            if mult != 1:
                raise NnlrError(
                    f"{absolute}={rate:g} is absolute and {relative}={mult:g} is relative: "
                    "pass one of them."
                )
        put(self, "eps_mult", number(self.eps_mult, "eps_mult", above=0))
        put(self, "init_mult", number(self.init_mult, "init_mult", above=0))
        put(self, "options", options(self.options, "a factor"))
        text(self.why, "why")
        flag(self.compensates_decay, "compensates_decay")
        put(self, "shadowed", names(self.shadowed, "shadowed", "('rule 2',)"))
        if self.algorithm is not None:
            word(self.algorithm, "algorithm")
        if self.group is not None:
            put(self, "group", group_name(self.group))
        if self.update is not None:
            put(self, "update", choice(self.update, "update", UPDATES))
        if self.layer is not None:
            put(self, "layer", as_layer(self.layer))
        if self.moves is not None:
            put(self, "moves", as_moves(self.moves))
        if self.move is not None:
            instance(self.move, "move", Move)
            if self.moves is None:
                raise NnlrError(
                    "A factor with a move says what moves, its unit, and how: moves=('lr', "
                    "'layer3', 'halved at each epoch')."
                )

    def __setstate__(self, state: list[Any]) -> None:
        """Take the values of a pickle; an older one has no group, and nothing moves."""
        values = dict(zip(self.__slots__, state, strict=False))
        for name in self.__slots__:
            object.__setattr__(self, name, values.get(name))


def group_name(name: object) -> str:
    """Return a name for groups, or refuse one that patterns of groups could not tell apart.

    Examples:
        >>> group_name("means")
        'means'
    """
    checked = word(name, "group")
    if set(checked) & set("*?[]"):
        raise NnlrError(
            f"group must be a plain name, got {shown(name)}: *, ? and brackets are for the "
            "patterns of nnlr.schedule.",
            what="group",
            value=name,
        )
    return checked


NEUTRAL: Final = Factor()

# What a rule or an entry of a table of roles can set.
SETTINGS: Final = ("lr_mult", "wd_mult", "lr", "weight_decay", "options", "algorithm", "group")


def settings_of(factor: Factor) -> dict[str, Any]:
    """The settings of a factor that change something, as arguments of ``rule``."""
    values = {name: getattr(factor, name) for name in SETTINGS}
    return {name: value for name, value in values.items() if value != getattr(NEUTRAL, name)}


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a parameter's trace: a factor and the scheme that it is from.

    Attributes:
        source: The scheme, as a user would write it.
        factor: Its factor.
        explicit: Whether the user declared it for these parameters, in a rule or on a module;
            such declarations must agree where they reach one tied tensor.
        via: For an explicit declaration of a tied parameter, the names by which it was reached.
    """

    source: str
    factor: Factor
    explicit: bool = False
    via: tuple[str, ...] = ()


Trace = tuple[Step, ...]
