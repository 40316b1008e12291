"""The rates that the factors of one parameter multiply to."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from nnlr._arguments import choice, number, word
from nnlr._declare.factor import Step, Trace
from nnlr._text import listed, nearest_hint, shown
from nnlr.errors import ConfigError, NnlrError

Decay = Literal["coupled", "independent", "sqrt"]

DECAYS: Final[tuple[Decay, ...]] = ("coupled", "independent", "sqrt")


# A base rate, or one for each algorithm, by name.
Rate = float | Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bases:
    """The base rates of a run and how decay goes with the learning rate.

    ``"coupled"`` leaves ``wd_mult`` alone, ``"independent"`` divides it by ``lr_mult``,
    ``"sqrt"`` by its square root; a decay set absolutely stays.
    """

    lr: Rate  # > 0
    weight_decay: Rate  # >= 0
    decay: Decay = "coupled"

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that have base rates of their own."""
        by_name = [rate for rate in (self.lr, self.weight_decay) if isinstance(rate, Mapping)]
        return tuple(dict.fromkeys(name for rates in by_name for name in rates))

    def of(self, algorithm: str | None) -> "OneBase":
        """The base rates of an algorithm; the first where it has none of its own."""
        return OneBase(_of(self.lr, algorithm), _of(self.weight_decay, algorithm), self.decay)


class OneBase(NamedTuple):
    """The base rates of one algorithm."""

    lr: float
    weight_decay: float
    decay: Decay


def _of(rate: Rate, algorithm: str | None) -> float:
    if not isinstance(rate, Mapping):
        return rate
    first = next(iter(rate.values()))
    return first if algorithm is None else rate.get(algorithm, first)


def make_bases(lr: object, weight_decay: object, decay: object) -> Bases:
    """Check base rates and the decay mode."""
    bases = Bases(
        lr=_rate(lr, "lr", above=0),
        weight_decay=_rate(weight_decay, "weight_decay"),
        decay=choice(decay, "decay", DECAYS),
    )
    for setting in ("lr", "weight_decay"):
        rates = getattr(bases, setting)
        missing = [
            name for name in bases.algorithms if isinstance(rates, Mapping) and name not in rates
        ]
        if missing:
            raise NnlrError(
                f"{setting} has no entry for {listed(map(repr, missing))}: name the same "
                "algorithms in lr and weight_decay, or pass one number for all.",
                what=setting,
            )
    return bases


def changed(old: Rate, new: object, what: str, algorithms: Collection[str]) -> object:
    """A base rate with another value; of several the ones that are named."""
    if new is None:
        return old
    if isinstance(new, Mapping) and (strays := [name for name in new if name not in algorithms]):
        hint = nearest_hint(str(strays[0]), algorithms)
        raise ConfigError(
            f"{what} names {shown(strays[0])}, and the plan has "
            f"{listed(map(repr, algorithms)) or 'no algorithms'}. {hint}".rstrip(),
            what=what,
        )
    if isinstance(new, Mapping):
        return {**(old if isinstance(old, Mapping) else dict.fromkeys(algorithms, old)), **new}
    if not isinstance(old, Mapping):
        return new
    example = ", ".join(f"{name!r}: {shown(new)}" for name in old)
    raise ConfigError(
        f"{what}={shown(new)} is one number for {len(old)} algorithms. Say which: "
        f"{what}={{{example}}}.",
        what=what,
    )


def written(rate: Rate) -> str:
    """A base rate as in a call.

    Examples:
        >>> written({"muon": 0.02, "adamw": 3e-4})
        "{'muon': 0.02, 'adamw': 0.0003}"
    """
    if isinstance(rate, Mapping):
        return "{" + ", ".join(f"{name!r}: {value:g}" for name, value in rate.items()) + "}"
    return f"{rate:g}"


def _rate(value: object, what: str, above: float | None = None) -> Rate:
    """A base rate, or those of algorithms by name."""
    if not isinstance(value, Mapping):
        return number(value, what, above=above)
    if not value:
        raise NnlrError(
            f"{what}={{}} names no algorithm. Pass a number, or one for each.", what=what
        )
    return {
        word(name, f"an algorithm in {what}"): number(rate, f"{what}[{name!r}]", above=above)
        for name, rate in value.items()
    }


class Rates(NamedTuple):
    """The product of all factors of one parameter, setting by setting."""

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
    algorithm: str | None


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
    """Multiply the factors of a trace; messages name the parameter."""
    algorithm = only(trace, "algorithm", name)
    only(trace, "group", name)
    base = bases.of(algorithm)
    for setting in ("lr", "weight_decay"):
        _refuse_two_absolutes(trace, setting, name)
    factors = [step.factor for step in trace]
    lr_factors = [_multiplier(step, "lr", "lr_mult", base.lr) for step in trace]
    wd_factors = [_multiplier(s, "weight_decay", "wd_mult", base.weight_decay) for s in trace]
    lr_mult = _product(lr_factors, "lr_mult", name)
    wd_mult = _product(wd_factors, "wd_mult", name)

    if lr_mult and wd_mult and decay_mode_acts(trace, bases):
        compensated = product(
            value
            for value, factor in zip(lr_factors, factors, strict=True)
            if not factor.compensates_decay
        )
        wd_mult /= compensated if bases.decay == "independent" else math.sqrt(compensated)
        if not 0 < wd_mult < math.inf:
            raise NnlrError(
                f"wd_mult of {name!r} is out of range: decay={bases.decay!r} divides it by "
                f"what lr_mult={lr_mult!r} makes too small or too large.",
                name=name,
            )

    layer = next((factor.layer for factor in factors if factor.layer is not None), None)
    return Rates(
        tower=None if layer is None else layer.tower,
        depth=None if layer is None else (layer.depth, layer.last),
        lr=_product([base.lr, lr_mult], "lr", name),
        weight_decay=_product([base.weight_decay, wd_mult], "weight_decay", name),
        lr_mult=lr_mult,
        wd_mult=wd_mult,
        eps_mult=_product([factor.eps_mult for factor in factors], "eps_mult", name),
        init_mult=_product([factor.init_mult for factor in factors], "init_mult", name),
        unlocked_lr_mult=_product(filter(None, lr_factors), "unlocked_lr_mult", name),
        options=_joined_options(trace, name),
        algorithm=algorithm,
    )


def decay_mode_acts(trace: Trace, bases: Bases) -> bool:
    """Whether the decay mode changes ``wd_mult``; it leaves an absolute weight decay alone."""
    return bases.decay != "coupled" and all(step.factor.weight_decay is None for step in trace)


def _refuse_two_absolutes(trace: Trace, setting: str, name: str) -> None:
    """Refuse a rate that two steps set absolutely."""
    absolute = [
        (step.source, value)
        for step in trace
        if (value := getattr(step.factor, setting)) is not None
    ]
    if len(absolute) > 1:
        (one, first), (two, second) = absolute[:2]
        raise ConfigError(
            f"{setting} of {name!r} is set absolutely twice: {first!r} by {one}, {second!r} "
            f"by {two}. Restrict one of them with .where(selector), or put the rules in "
            "nnlr.rules([...]), where the first counts.",
            name=name,
        )


def _multiplier(step: Step, setting: str, relative: str, base: float) -> float:
    """The multiplier of a step; an absolute rate as a multiple of the base rate."""
    value: float | None = getattr(step.factor, setting)
    if value is None:
        return float(getattr(step.factor, relative))
    if value == 0:
        return 0.0
    if base == 0:
        raise NnlrError(
            f"{step.source} sets {setting}={value!r}, but the base weight decay is 0 and "
            "no multiplier of 0 gives that. Pass a base weight_decay > 0 (and wd_mult=0 where "
            "nothing should decay).",
            value=value,
        )
    multiple = value / base
    if multiple == 0 or math.isinf(multiple):
        raise NnlrError(
            f"{step.source} sets {setting}={value!r}, which is {multiple!r} times the base "
            f"{setting} of {base!r} in a float.",
            value=value,
        )
    return multiple


def _product(values: Iterable[float], setting: str, name: str) -> float:
    """The product of multipliers; an error if it overflows, or underflows to 0."""
    values = list(values)
    result = product(values)
    if not math.isfinite(result) or (not result and all(values)):
        raise NnlrError(
            f"{setting} of {name!r} is out of range: the product of "
            f"{' x '.join(f'{value:g}' for value in values)} is {result!r} in a float. "
            "Bring the multipliers nearer to 1.",
            name=name,
        )
    return result


def _joined_options(trace: Trace, name: str) -> Mapping[str, Any]:
    """The options of all steps; an error if two set one option to different values."""
    joined: dict[str, Any] = {}
    source_of: dict[str, str] = {}
    for step in trace:
        for key, value in step.factor.options.items():
            if key in joined and joined[key] != value:
                raise ConfigError(
                    f"Option {key!r} of {name!r} is set twice: {joined[key]!r} by "
                    f"{source_of[key]}, {value!r} by {step.source}. Restrict one of them with "
                    ".where(selector), or let both agree.",
                    name=name,
                    option=key,
                )
            # 1, 1.0 and True are equal: which one is kept must not depend on the order.
            joined[key] = min(joined.get(key, value), value, key=repr)
            source_of[key] = step.source
    return joined


def only(trace: Trace, setting: str, name: str) -> str | None:
    """The algorithm or group that a trace names; what a user says overrules what a scheme does."""
    senders: dict[str, str] = {}
    for explicit in (True, False):
        for step in trace:
            value = getattr(step.factor, setting)
            if value is not None and step.explicit is explicit:
                senders.setdefault(value, step.source)
        if senders:
            break
    if len(senders) > 1:
        both = ", ".join(f"{value!r} by {source}" for value, source in senders.items())
        verb = "sent to two algorithms" if setting == "algorithm" else "put into two groups"
        raise ConfigError(
            f"{name!r} is {verb}: {both}. Restrict one of them with .where(selector).",
            name=name,
        )
    return next(iter(senders), None)
