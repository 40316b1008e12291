"""The rates that the factors of one parameter multiply to."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from nnlr._arguments import number
from nnlr._declare.factor import Step, Trace
from nnlr._text import shown
from nnlr.errors import ConfigError, NnlrError

Decay = Literal["coupled", "independent", "sqrt"]

DECAYS: Final[tuple[Decay, ...]] = ("coupled", "independent", "sqrt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bases:
    """The base rates of a run and how decay goes with the learning rate.

    Attributes:
        lr: Base learning rate, > 0.
        weight_decay: Base weight decay, >= 0.
        decay: ``"coupled"`` leaves ``wd_mult`` alone, ``"independent"`` divides it by
            ``lr_mult``, ``"sqrt"`` by its square root; a decay set absolutely stays.
    """

    lr: float
    weight_decay: float
    decay: Decay = "coupled"


def make_bases(lr: object, weight_decay: object, decay: object) -> Bases:
    """Check base rates and the decay mode.

    Raises:
        NnlrError: If a rate is out of range or the mode is unknown.
    """
    known = {mode: mode for mode in DECAYS}
    if not isinstance(decay, str) or decay not in known:
        raise NnlrError(
            f"decay must be one of {', '.join(map(repr, DECAYS))}, got {shown(decay)}.",
            value=decay,
        )
    return Bases(
        lr=number(lr, "lr", above=0),
        weight_decay=number(weight_decay, "weight_decay"),
        decay=known[decay],
    )


class Rates(NamedTuple):
    """What the factors of one trace come to."""

    tower: str | None
    depth: tuple[int, int] | None
    lr: float
    weight_decay: float
    lr_mult: float
    wd_mult: float
    eps_mult: float
    init_mult: float
    unlocked_lr_mult: float
    options: Mapping[str, Any]
    tag: str | None


def product(values: Iterable[float]) -> float:
    """Product of multipliers; sorted first, so that order and nesting change no bit.

    Examples:
        >>> product([0.1, 3, 0.7]) == product([0.7, 0.1, 3])
        True
        >>> product([])
        1.0
    """
    return math.prod(sorted(values), start=1.0)


def combine(trace: Trace, bases: Bases, name: str) -> Rates:
    """Work out the rates that a trace comes to.

    Args:
        trace: The factors.
        bases: The base rates.
        name: The parameter, for messages.

    Raises:
        NnlrError: If a product leaves the range of a float, or an absolute decay meets a
            base decay of 0.
        ConfigError: If two schemes set one option, or the tag, to different values.
    """
    for rate in ("lr", "weight_decay"):
        _refuse_two_absolutes(trace, rate, name)
    lr_factors = [_lr_factor(step, bases) for step in trace]
    wd_factors = [_wd_factor(step, bases) for step in trace]
    lr_mult = _product(lr_factors, "lr_mult", name)
    wd_mult = _product(wd_factors, "wd_mult", name)
    if lr_mult and wd_mult and decay_mode_acts(trace, bases):
        rest = product(
            value
            for value, step in zip(lr_factors, trace, strict=True)
            if not step.factor.compensates_decay
        )
        wd_mult /= rest if bases.decay == "independent" else math.sqrt(rest)
        if not 0 < wd_mult < math.inf:
            raise NnlrError(
                f"wd_mult of {name!r} is out of range: decay={bases.decay!r} divides it by "
                f"what lr_mult={lr_mult!r} makes too small or too large.",
                name=name,
            )
    layer = next((s.factor.layer for s in trace if s.factor.layer is not None), None)
    return Rates(
        tower=layer and layer.tower,
        depth=layer and (layer.depth, layer.last),
        lr=_product([bases.lr, lr_mult], "lr", name),
        weight_decay=_product([bases.weight_decay, wd_mult], "weight_decay", name),
        lr_mult=lr_mult,
        wd_mult=wd_mult,
        eps_mult=_product([s.factor.eps_mult for s in trace], "eps_mult", name),
        init_mult=_product([s.factor.init_mult for s in trace], "init_mult", name),
        unlocked_lr_mult=_product(filter(None, lr_factors), "unlocked_lr_mult", name),
        options=_joined_options(trace, name),
        tag=_only_tag(trace, name),
    )


def decay_mode_acts(trace: Trace, bases: Bases) -> bool:
    """Whether the decay mode has a say: an absolute weight decay stays as it was set."""
    return bases.decay != "coupled" and all(step.factor.weight_decay is None for step in trace)


def _refuse_two_absolutes(trace: Trace, rate: str, name: str) -> None:
    said = [(s.source, v) for s in trace if (v := getattr(s.factor, rate)) is not None]
    if len(said) > 1:
        (one, first), (two, second) = said[:2]
        raise ConfigError(
            f"{rate} of {name!r} is set absolutely twice: {first!r} by {one}, {second!r} "
            f"by {two}. Restrict one of them with .where(selector), or put the rules in "
            "nnlr.rules([...]), where the first counts.",
            name=name,
        )


def _lr_factor(step: Step, bases: Bases) -> float:
    value = step.factor.lr
    return step.factor.lr_mult if value is None else _share(value, bases.lr, step, "lr")


def _wd_factor(step: Step, bases: Bases) -> float:
    value = step.factor.weight_decay
    if value is None:
        return step.factor.wd_mult
    if value and not bases.weight_decay:
        raise NnlrError(
            f"{step.source} sets weight_decay={value!r}, but the base weight decay is 0 and "
            "no multiplier of 0 gives that. Pass a base weight_decay > 0 (and wd_mult=0 where "
            "nothing should decay).",
            value=value,
        )
    return _share(value, bases.weight_decay, step, "weight_decay") if value else 0.0


def _share(value: float, base: float, step: Step, what: str) -> float:
    """An absolute rate as a multiple of the base rate."""
    result = value / base
    if value and (not result or math.isinf(result)):
        raise NnlrError(
            f"{step.source} sets {what}={value!r}, which is {result!r} times the base "
            f"{what} of {base!r} in a float.",
            value=value,
        )
    return result


def _product(values: Iterable[float], what: str, name: str) -> float:
    values = list(values)
    result = product(values)
    if not math.isfinite(result) or (not result and all(values)):
        raise NnlrError(
            f"{what} of {name!r} is out of range: the product of "
            f"{' x '.join(f'{value:g}' for value in values)} is {result!r} in a float. "
            "Bring the multipliers nearer to 1.",
            name=name,
        )
    return result


def _joined_options(trace: Trace, name: str) -> Mapping[str, Any]:
    joined: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    for step in trace:
        for key, value in step.factor.options.items():
            if key in joined and joined[key] != value:
                raise ConfigError(
                    f"Option {key!r} of {name!r} is set twice: {joined[key]!r} by "
                    f"{said_by[key]}, {value!r} by {step.source}. Restrict one of them with "
                    ".where(selector), or let both agree.",
                    name=name,
                    option=key,
                )
            # 1, 1.0 and True are equal: which one is kept must not depend on the order.
            joined[key] = min(joined.get(key, value), value, key=repr)
            said_by[key] = step.source
    return joined


def _only_tag(trace: Trace, name: str) -> str | None:
    tags = {step.factor.tag: step.source for step in trace if step.factor.tag is not None}
    if len(tags) > 1:
        said = ", ".join(f"{tag!r} by {source}" for tag, source in tags.items())
        raise ConfigError(
            f"{name!r} is sent to two optimizers: {said}. Restrict one of them with "
            ".where(selector).",
            name=name,
        )
    return next(iter(tags), None)
