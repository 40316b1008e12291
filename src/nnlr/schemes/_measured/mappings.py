"""Mappings: from the statistics of all units to their multipliers, as one set.

    linear(s1, s2)       s1 + (s2 - s1) (x - min) / (max - min)
    rank(s1, s2)         s1 + (s2 - s1) r / n, r = 0 for the smallest; equal ones share their mean
    sqrt                 sqrt(x) / mean sqrt(x)
    log2                 log2(x) / mean log2(x), for statistics of at least 1
    sigmoid(k)           2 / (1 + exp(-k (x - mean) / std))
    max                  x / max
    threshold(t)         1 where x >= t, else 0
    balance(p, s1, s2)   (geometric mean / x)^p, not below s1 and not above s2

They are those of TempBalance (arXiv 2312.00359), LLR (2605.22297), and surgical fine-tuning
(2210.11466). All but log2 and threshold give the same for statistics in another unit of
measurement. Where all statistics are equal nothing tells the units apart: linear and rank give 1,
or the middle of s1 and s2 if 1 is not between them, the others of themselves 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from nnlr._arguments import number
from nnlr.errors import ConfigError

SetMap = Callable[[Sequence[float]], Sequence[float]]


def linear(s1: float, s2: float) -> SetMap:
    """From ``s1`` for the smallest statistic to ``s2`` for the largest; either may be larger.

    Examples:
        >>> linear(0.5, 1.5)([2.0, 3.0, 6.0])
        [0.5, 0.75, 1.5]
    """
    low, high = number(s1, "s1"), number(s2, "s2")

    def assign(values: Sequence[float]) -> Sequence[float]:
        least, most = min(values), max(values)
        if least == most:
            return _undecided(low, high, len(values))
        # Halves, as the difference of two finite numbers may be infinite.
        shares = [(x / 2 - least / 2) / (most / 2 - least / 2) for x in values]
        return [low * (1 - share) + high * share for share in shares]

    return assign


def rank(s1: float, s2: float) -> SetMap:
    """By place in the order only; the largest of n gets ``s1 + (s2 - s1) (n - 1) / n``.

    Examples:
        >>> rank(0.5, 1.5)([9.0, 1.0, 2.0, 2.0])
        [1.25, 0.5, 0.875, 0.875]
    """
    low, high = number(s1, "s1"), number(s2, "s2")

    def assign(values: Sequence[float]) -> Sequence[float]:
        ordered = sorted(values)
        if ordered[0] == ordered[-1]:
            return _undecided(low, high, len(values))
        count = len(ordered)
        first = {x: at for at, x in reversed([*enumerate(ordered)])}
        last = {x: at for at, x in enumerate(ordered)}
        return [low + (high - low) * (first[x] + last[x]) / (2 * count) for x in values]

    return assign


def sqrt() -> SetMap:
    """The root, relative to its mean.

    Examples:
        >>> sqrt()([1.0, 9.0])
        [0.5, 1.5]
    """
    return _by_mean(math.sqrt, 0.0, "sqrt")


def log2() -> SetMap:
    """The logarithm, relative to its mean; for statistics of at least 1, as exponents are.

    Examples:
        >>> log2()([2.0, 8.0])
        [0.5, 1.5]
    """
    return _by_mean(math.log2, 1.0, "log2")


def sigmoid(k: float = 4.0) -> SetMap:
    """Between 0 and 2, by the distance from the mean in standard deviations.

    Examples:
        >>> [round(mult, 3) for mult in sigmoid(4)([1.0, 2.0, 3.0])]
        [0.015, 1.0, 1.985]
    """
    steepness = number(k, "k", above=0)

    def assign(values: Sequence[float]) -> Sequence[float]:
        scale = max(map(abs, values)) or 1.0
        scaled = [x / scale for x in values]
        mean = math.fsum(scaled) / len(scaled)
        std = math.sqrt(math.fsum((x - mean) ** 2 for x in scaled) / len(scaled))
        if min(values) == max(values) or not std:
            return [1.0] * len(values)
        return [1 + math.tanh(steepness * (x - mean) / std / 2) for x in scaled]

    return assign


def max_norm() -> SetMap:
    """Relative to the largest.

    Examples:
        >>> max_norm()([1.0, 4.0])
        [0.25, 1.0]
    """

    def assign(values: Sequence[float]) -> Sequence[float]:
        _refuse_below(values, 0.0, "max")
        most = max(values)
        return [x / most for x in values] if most else [1.0] * len(values)

    return assign


def threshold(t: float) -> SetMap:
    """1 from a value on, 0 below it.

    Examples:
        >>> threshold(0.95)([0.9, 0.95])
        [0.0, 1.0]
    """
    least = number(t, "t", minimum=-math.inf)
    return lambda values: [float(x >= least) for x in values]


def balance(p: float = 1.0, s1: float = 0.1, s2: float = 10.0) -> SetMap:
    """The smaller the statistic, the faster, so that rate times statistic comes out alike.

    Examples:
        >>> balance()([1.0, 4.0])
        [2.0, 0.5]
    """
    power = number(p, "p", above=0)
    low, high = number(s1, "s1", above=0), number(s2, "s2", above=0)
    if low > high:
        raise ConfigError(f"s1={low:g} is above s2={high:g}: they are the least and the most.")

    def assign(values: Sequence[float]) -> Sequence[float]:
        _refuse_below(values, 0.0, "balance")
        logs = [math.log(x) for x in values if x]
        if not logs or min(values) == max(values):
            return [1.0] * len(values)
        mean = math.fsum(logs) / len(logs)
        most = math.log(high)
        return [
            max(low, math.exp(min(most, power * (mean - math.log(x))))) if x else high
            for x in values
        ]

    return assign


MAPPINGS: Final[Mapping[str, Callable[..., SetMap]]] = {
    "linear": linear,
    "rank": rank,
    "sqrt": sqrt,
    "log2": log2,
    "sigmoid": sigmoid,
    "max": max_norm,
    "threshold": threshold,
    "balance": balance,
}


def _undecided(low: float, high: float, count: int) -> list[float]:
    """The multipliers where all statistics are equal."""
    between = min(low, high) <= 1 <= max(low, high)
    return [1.0 if between else (low + high) / 2] * count


def _by_mean(function: Callable[[float], float], least: float, name: str) -> SetMap:
    """A function of each, relative to its mean over all."""

    def assign(values: Sequence[float]) -> Sequence[float]:
        _refuse_below(values, least, name)
        if min(values) == max(values):
            return [1.0] * len(values)
        each = [function(x) for x in values]
        mean = math.fsum(each) / len(each)
        return [x / mean for x in each]

    return assign


def _refuse_below(values: Sequence[float], least: float, name: str) -> None:
    """Refuse statistics for which a mapping would give no multiplier."""
    if min(values) < least:
        raise ConfigError(
            f"mapping {name!r} is for statistics of at least {least:g}, and one is "
            f"{min(values):g}. Use 'linear(0.5, 1.5)' or 'rank(0.5, 1.5)', which take any."
        )
