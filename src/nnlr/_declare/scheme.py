"""Schemes: how fast parameters learn relative to the rest, said without a model.

A scheme turns a described model into factors, one for each parameter. Schemes combine in
two ways and no third: ``a * b`` multiplies, ``rules([...])`` lets the first rule that
matches a parameter claim it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import FunctionType

from torch import nn

from nnlr._arguments import flag
from nnlr._declare.factor import NEUTRAL, Factor, Step, Trace
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo, with_roles
from nnlr._select.selectors import Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import plural, shown
from nnlr.errors import NnlrError, PatternError


class Scheme:
    """How fast parameters learn relative to the rest; knows no model until it is resolved.

    Subclass it and write :meth:`factors` for a scheme of your own.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> class HalfForBiases(nnlr.Scheme):
        ...     def factors(self, model):
        ...         half = nnlr.Factor(lr_mult=0.5, why="a bias")
        ...         return [half if p.role == "bias" else nnlr.Factor() for p in model.params]
        >>> plan = nnlr.resolve(nn.Linear(2, 1), HalfForBiases(), lr=0.1, weight_decay=0)
        >>> plan["bias"].lr
        0.05
    """

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """Say what the scheme does to each parameter.

        Args:
            model: The described model.

        Returns:
            One factor for each of ``model.params``, in order.
        """
        raise NnlrError(
            f"{type(self).__name__} does not define factors(self, model). Write it: it returns "
            "one nnlr.Factor for each of model.params, in order."
        )

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """Trace entries by position; parameters the scheme says nothing of are left out."""
        factors = self.factors(model)
        count = len(model.params)
        if not isinstance(factors, Sequence) or len(factors) != count:
            got = (
                plural(len(factors), "factor")
                if isinstance(factors, Sequence)
                else f"a {type(factors).__name__}"
            )
            raise NnlrError(
                f"{self!r} gave {got} for the {count} parameters of {model.label}: "
                "factors(model) returns a list with one nnlr.Factor for each, in order."
            )
        source = repr(self)
        # Equal rates share one Step, which is what makes large models cheap to combine.
        shared: dict[int, Trace] = {}
        said = {}
        for index, factor in enumerate(factors):
            if not isinstance(factor, Factor):
                raise NnlrError(
                    f"{self!r} gave {shown(factor)} for {model.params[index].name!r}: "
                    "factors(model) returns nnlr.Factor objects."
                )
            if factor.why or factor != NEUTRAL:
                said[index] = shared.setdefault(id(factor), (Step(source, factor),))
        return said

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What the scheme's author would point out about this model; nothing by default."""
        return ()

    def where(self, selector: Selector | str, *, optional: bool = False) -> "Scheme":
        """The same scheme, resolved on the whole model, but acting on these parameters only.

        Args:
            selector: A pattern over whole names or a selector.
            optional: Whether the scheme may have nothing to act on there.

        Raises:
            PatternError: At resolve, if nothing matches or the scheme says nothing of what
                does, and that is not optional.
        """
        return Where(self, as_selector(selector, "where"), optional=flag(optional, "optional"))

    def within(self, path: str) -> "Scheme":
        """The scheme resolved on one submodule as if it were the model; identity outside.

        Args:
            path: Canonical path of the submodule, such as ``"model.backbone"``.

        Raises:
            NnlrError: At resolve, if there is no such submodule.
        """
        if not isinstance(path, str) or not path:
            raise NnlrError(f"within needs a module's path such as 'backbone', got {shown(path)}.")
        return Within(self, path)

    def __mul__(self, other: "Scheme") -> "Scheme":
        """Both schemes: multipliers multiply, options are joined."""
        if not isinstance(other, Scheme):
            return NotImplemented
        return Product((*_members(self), *_members(other)))

    def __repr__(self) -> str:
        """The scheme as a user would write it."""
        return f"{type(self).__name__}()"


def as_schemes(schemes: Iterable[object]) -> tuple[Scheme, ...]:
    """Check that everything given is a scheme.

    Raises:
        NnlrError: If something is not.
    """
    checked = []
    for scheme in schemes:
        if not isinstance(scheme, Scheme):
            raise NnlrError(
                f"Expected a scheme such as nnlr.rule('head.*', lr_mult=10), got "
                f"{shown(scheme, typed=True)}.{_hint(scheme)}",
                value=scheme,
            )
        checked.append(scheme)
    return tuple(checked)


def _hint(value: object) -> str:
    if isinstance(value, nn.Module):
        return " The model comes first: resolve(model, scheme, ...)."
    if isinstance(value, list | tuple):
        return (
            " Schemes are given one by one: resolve(model, *schemes, ...). A list of which "
            "the first match counts is nnlr.rules([...])."
        )
    if isinstance(value, Selector | str):
        return f" A selector says where; say what as well: nnlr.rule({value!r}, lr_mult=...)."
    if isinstance(value, type) and issubclass(value, Scheme):
        return f" Make one: {value.__name__}()."
    if isinstance(value, FunctionType):
        return f" If it makes one, call it: {value.__name__}(...)."
    return ""


def merge(traces: Iterable[Mapping[int, Trace]]) -> dict[int, Trace]:
    """Join what several schemes say of each parameter."""
    merged: dict[int, Trace] = {}
    for said in traces:
        for index, trace in said.items():
            merged[index] = (*merged[index], *trace) if index in merged else trace
    return merged


def _members(scheme: Scheme) -> tuple[Scheme, ...]:
    return scheme.members if isinstance(scheme, Product) else (scheme,)


class _Combined(Scheme):
    """A scheme made of others: its steps are theirs, so it has no factors of its own."""

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """Refused: one parameter may get several factors."""
        raise NnlrError(
            f"{self!r} combines schemes and has no single factors; use "
            "nnlr.resolve(model, scheme, ...).rows."
        )


class Product(_Combined):
    """A flat product of schemes; see :meth:`Scheme.__mul__`."""

    def __init__(self, members: tuple[Scheme, ...]) -> None:
        self.members = members

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """What all members say, in their order."""
        return merge(scheme.steps(model) for scheme in self.members)

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What all members point out."""
        return [found for scheme in self.members for found in scheme.findings(model)]

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.members))


class Where(_Combined):
    """A scheme restricted to some parameters; see :meth:`Scheme.where`."""

    def __init__(self, inner: Scheme, selector: Selector, *, optional: bool) -> None:
        self.inner = inner
        self.selector = selector
        self.optional = optional

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """What the inner scheme says, of the chosen parameters."""
        if self.optional:
            chosen = self.selector.matches(model)
        else:
            chosen = must_match(self.selector, model, f"where({self.selector!r})")
        said = self.inner.steps(model)
        kept = {i: trace for i, trace in said.items() if i in chosen}
        # A recipe may well say nothing here; what a user wrote out is meant to act.
        stated = [i for i, trace in said.items() if any(s.explicit for s in trace)]
        if stated and not kept and not self.optional:
            raise self._apart(model, min(stated))
        renamed = _renamed(kept, f"where {self.selector!r}")
        for index, trace in renamed.items():
            if model.params[index].aliases:
                reach = self.selector.reach(model, index)
                renamed[index] = tuple(_narrowed(step, reach) for step in trace)
        return renamed

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What the inner scheme points out."""
        return self.inner.findings(model)

    def _apart(self, model: ModelInfo, spoken: int) -> PatternError:
        return PatternError(
            f"{self!r} has no effect: {self.inner!r} speaks of parameters of {model.label} "
            f"(such as {model.params[spoken].name}), but of none that "
            f"{self.selector!r} chooses.\n"
            "  Fix one of the two selections, or pass optional=True if they may have nothing "
            "in common.",
            pattern=repr(self.selector),
            nearest=[],
        )

    def __repr__(self) -> str:
        optional = ", optional=True" if self.optional else ""
        return f"{_bracketed(self.inner)}.where({self.selector!r}{optional})"


class Within(_Combined):
    """A scheme resolved on a submodule; see :meth:`Scheme.within`."""

    def __init__(self, inner: Scheme, path: str) -> None:
        self.inner = inner
        self.path = path

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """What the inner scheme says of the submodule, by positions in the whole."""
        part, position = self._part(model)
        said = {}
        inside = self.inner.steps(part)
        renamed = _renamed(inside, f"within {self.path!r}", self.path)
        for inner, trace in renamed.items():
            said[position[inner]] = (
                tuple(self._seen_from_outside(step, part.params[inner].name) for step in trace)
                if model.params[position[inner]].aliases
                else trace
            )
        return said

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What the inner scheme points out, with the names of the whole model."""
        return [
            replace(found, names=tuple(f"{self.path}.{name}" for name in found.names))
            for found in self.inner.findings(self._part(model)[0])
        ]

    def _part(self, model: ModelInfo) -> tuple[ModelInfo, list[int]]:
        """The submodule, described, and the positions of its parameters in the whole."""
        part = model.submodel(self.path)
        whole = {id(places[0].tensor): i for i, places in enumerate(model.places)}
        position = [whole[id(places[0].tensor)] for places in part.places]
        roles = {
            inner: model.params[outer].role
            for inner, outer in enumerate(position)
            if model.params[outer].role_basis == "user"
        }
        return with_roles(part, roles), position

    def _seen_from_outside(self, step: Step, name: str) -> Step:
        """A step on a tied parameter, with the names that it has in the whole model."""
        via = tuple(f"{self.path}.{inside}" for inside in step.via or (name,))
        return replace(step, via=via) if step.explicit else step

    def __repr__(self) -> str:
        return f"{_bracketed(self.inner)}.within({self.path!r})"


def _renamed(said: Mapping[int, Trace], restriction: str, path: str = "") -> dict[int, Trace]:
    """The same traces, whose sources name a restriction; steps that were shared stay so.

    Towers get the path of the submodule that they were found in.
    """
    steps = {id(step): step for trace in said.values() for step in trace}
    named = {
        key: replace(
            step,
            source=f"{step.source} {restriction}",
            factor=_below(step.factor, path) if path else step.factor,
        )
        for key, step in steps.items()
    }
    return {i: tuple([named[id(step)] for step in t]) for i, t in said.items()}


def _below(factor: Factor, path: str) -> Factor:
    layer = factor.layer
    if layer is None:
        return factor
    tower = f"{path}.{layer.tower}" if layer.tower else path
    return replace(factor, layer=layer._replace(tower=tower))


def _narrowed(step: Step, reach: frozenset[str]) -> Step:
    """A declaration on a tied parameter, by those of its names that a selector reaches."""
    via = frozenset(step.via)
    # Two names of one tensor, each reached by one side: both have led here.
    names = tuple(sorted(via & reach or via | reach))
    return replace(step, via=names) if step.explicit else step


def _bracketed(scheme: Scheme) -> str:
    return f"({scheme!r})" if isinstance(scheme, Product) else repr(scheme)
