"""Discriminative fine-tuning: the nearer to the input a group of layers, the slower it learns.

    lr_mult(p) = factor ** (group(p) - last)                       a number
    lr(p) = start ** (1 - t) * stop ** t,  t = group(p) / last     slice(start, stop)
    lr(p) = stop [last group], stop / 10 [all others]              slice(stop)
    lr(p) = rates[group(p)]                                        a list

The factor is 2.6 in ULMFiT (Howard and Ruder 2018, arXiv 1801.06146); slices and lists are
those of fastai (Howard and Gugger 2020, arXiv 2002.04688), absolute learning rates.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeGuard

from torch import Tensor

from nnlr._arguments import Written, as_call, number
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, warning
from nnlr._model.describe import ModelInfo
from nnlr._text import plural, shown
from nnlr.errors import NnlrError
from nnlr.schemes._layer_groups import AnyGroups, GroupPlace, Groups, as_groups

ULMFIT = 2.6

# Below this share of the top rate a group hardly moves; 2.6 over 5 groups reaches 0.02.
STEEP = 1e-3

# Factors on the base rate of which none is larger than this are probably learning rates.
TINY = 1e-2

Spread = float | slice | list[float]


def discriminative(
    rates: float | slice | Sequence[float] | None = None,
    groups: AnyGroups = None,
    *,
    lr_mults: slice | Sequence[float] | None = None,
) -> Scheme:
    """Discriminative fine-tuning: a learning rate for each of some ordered groups.

    With a number f and n groups, group i from the input has
    ``lr_mult = f ** -(n - 1 - i)``. References: arXiv 1801.06146 (ULMFiT), 2002.04688
    (fastai).

    Args:
        rates: A number >= 1 is the factor between neighbouring groups, the last of which
            gets the base rate: ULMFiT's 2.6, which is the default. ``slice(a, b)`` runs
            from ``a`` in the first group to ``b`` in the last in equal ratios;
            ``slice(b)`` is ``b`` in the last and ``b / 10`` in all others (as in fastai, a
            start of 0 counts as none); a list has one entry for each group. Slices and lists
            are absolute learning rates, whatever the base rate.
        groups: From the input to the head: a list of patterns or selectors, of which the
            first that matches a parameter gets it; a splitter, a function of the model that
            gives a list of groups of modules or parameters; an indexer such as ``"auto"``
            (every layer a group, every tower by itself); or a number of groups that the
            layers of ``"auto"`` are cut into, the head by itself. By default as many as
            the list has entries, else 5, or one for each layer where there are fewer:
            ULMFiT found 2.6 on about that many.
        lr_mults: A slice or a list as above, of factors on the base rate; instead of
            ``rates``.

    Raises:
        NnlrError: If a number is out of range; at resolve, if a list has the wrong length
            or groups do not fit the model.
        PatternError: At resolve, if a group is left with nothing.
        CoverageError: At resolve, if a trainable parameter is in no group.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> split = ["0.*", "1.*", "2.*"]
        >>> plan = nnlr.resolve(net, discriminative(2, split), lr=1, weight_decay=0)
        >>> [row.lr for row in plan if row.name.endswith("weight")]
        [0.25, 0.5, 1.0]
        >>> fastai = discriminative(slice(1e-4, 1e-2), split)
        >>> plan = nnlr.resolve(net, fastai, lr=1, weight_decay=0)
        >>> [round(row.lr, 8) for row in plan if row.name.endswith("weight")]
        [0.0001, 0.001, 0.01]
    """
    spread: Spread
    if lr_mults is not None:
        if rates is not None:
            raise NnlrError(
                f"rates={shown(rates)} and lr_mults={shown(lr_mults)} both say how fast the "
                "groups learn: pass one of them."
            )
        spread = _several(lr_mults, "lr_mults")
    else:
        spread = _spread(ULMFIT if rates is None else rates)
    if groups is None and isinstance(spread, list):
        groups = len(spread)
    return Discriminative(spread, as_groups(groups), lr_mults is not None)


def _spread(rates: object) -> Spread:
    """Check ``rates``: a factor between groups, or a rate for each."""
    if isinstance(rates, slice) or _is_row(rates):
        return _several(rates, "rates")
    try:
        return number(rates, "rates", minimum=1)
    except NnlrError as error:
        raise NnlrError(
            f"{error} A number is the factor between neighbouring groups, such as 2.6; "
            "learning rates are a slice or a list, such as slice(1e-5, 1e-3).",
            value=rates,
        ) from None


def _several(values: object, what: str) -> slice | list[float]:
    """Check a slice or a list of rates."""
    if isinstance(values, slice):
        if values.step is not None:
            raise NnlrError(
                f"{what}={values!r} has a step; it is slice(start, stop) or slice(stop).",
                value=values,
            )
        stop = number(values.stop, f"the stop of {what}", above=0)
        start = 0 if values.start is None else values.start
        start = number(start, f"the start of {what}")
        return slice(start, stop) if start else slice(stop)  # as fastai tests it
    if _is_row(values):
        numbers = [number(value, f"{what}[{i}]") for i, value in enumerate(values)]
        if numbers:
            return numbers
    raise NnlrError(
        f"{what} must be a slice or a list with a number for each group, got "
        f"{shown(values, typed=True)}.",
        value=values,
    )


def _is_row(values: object) -> TypeGuard[Iterable[object]]:
    """Whether it holds numbers in an order: a list, an array; not a set or an array of 0-d."""
    unordered = isinstance(values, str | bytes | Set | Mapping | Tensor)
    return isinstance(values, Iterable) and not unordered and getattr(values, "ndim", 1) > 0


@dataclass(frozen=True, repr=False, eq=False)
class Discriminative(Scheme):
    """A rate for each of some ordered groups; made by :func:`discriminative`."""

    spread: Spread
    groups: Groups
    relative: bool

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor for each group; neutral for what is frozen and in none."""
        places = self.groups.of(model)
        if isinstance(self.spread, list):
            for count in sorted({place.last + 1 for place in places if place}):
                if (entries := len(self.spread)) != count:
                    raise NnlrError(
                        f"{'lr_mults' if self.relative else 'rates'} has "
                        f"{entries} {'entry' if entries == 1 else 'entries'} for the "
                        f"{plural(count, 'group')} that {self.groups!r} makes of {model.label}: "
                        "give one for each, or a slice.",
                        groups=count,
                        entries=entries,
                    )
        factor_of = {place: self._factor(place) for place in set(places)}
        return [factor_of[place] for place in places]

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Those of the groups; groups that hardly move; rates that look like what they are not."""
        return [*self.groups.findings(model), *self._of_spread(model)]

    def _of_spread(self, model: ModelInfo) -> Sequence[Finding]:
        if isinstance(self.spread, float):
            places = self.groups.of(model)
            last = max((p.last for p in places if p and p.inside), default=0)
            lowest = self._rate(0, last)
            if lowest >= STEEP:
                return ()
            first_group = [
                param.name
                for param, place in zip(model.params, places, strict=True)
                if place and (place.position, place.last) == (0, last)
            ]
            cause = (
                f"{self.spread:g} between each of {last + 1} groups leaves the first "
                f"{lowest:.2g} of the last one's rate, so that it hardly learns"
            )
            fix = (
                "ULMFiT's 2.6 is for about 5 groups: pass groups=5, a smaller factor, or "
                "use layer_decay(0.75)."
            )
            return [warning("steep-groups", first_group, cause, fix)]
        spread = self.spread
        largest = max(spread if isinstance(spread, list) else (spread.start or 0, spread.stop))
        if self.relative and 0 < largest <= TINY:
            kind, fix = "looks-absolute", "Learning rates are rates=, not lr_mults=."
            what = "factors on the base rate"
        elif not self.relative and largest >= 1:
            kind, fix = "looks-relative", "Factors on the base rate are lr_mults=."
            what = "absolute learning rates"
        else:
            return ()
        trained = [param.name for param in model.params if param.requires_grad]
        cause = f"{self!r} sets {what}, and the largest is {largest:g}"
        return [warning(kind, trained, cause, fix)]

    def _factor(self, place: GroupPlace | None) -> Factor:
        if place is None:
            return NEUTRAL
        rate, why = self._rate(place.position, place.last), str(place)
        if isinstance(self.spread, float) and place.inside:
            why = f"{self.spread:g}^-{place.last - place.position}, {why}"
        if isinstance(self.spread, float) or self.relative:
            return Factor(lr_mult=rate, why=why, layer=place.layer)
        return Factor(lr=rate, why=why, layer=place.layer)

    def _rate(self, index: int, last: int) -> float:
        spread = self.spread
        if isinstance(spread, list):
            return spread[index]
        if isinstance(spread, float):
            rate = spread ** (index - last)
        elif spread.start is None:
            rate = spread.stop if index == last else spread.stop / 10
        else:  # both ends come out exactly
            share = index / last if last else 1.0
            rate = math.pow(spread.start, 1 - share) * math.pow(spread.stop, share)
        if not rate:
            raise NnlrError(
                f"{self!r} gives group {index} of {last} a rate that is 0 in a float, which "
                "would lock it. Take fewer groups or a smaller factor."
            )
        return rate

    def written_as(self) -> Written:
        """The call of :func:`discriminative`."""
        groups = None if self.groups.written_as() is None else self.groups
        if self.relative:
            return as_call(discriminative, groups=groups, lr_mults=self.spread)
        return as_call(discriminative, self.spread, groups=groups)
