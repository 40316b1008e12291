"""Schemes: how fast parameters learn relative to the others, written before there is a model.

A scheme turns a described model into factors, one for each parameter. Schemes combine in
two ways only: ``a * b`` multiplies, ``rules([...])`` lets the first rule that matches a
parameter claim it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from types import FunctionType
from typing import NoReturn

from torch import nn

from nnlr._arguments import Written, by_fields, choice, flag
from nnlr._declare.factor import NEUTRAL, Factor, Step, Trace
from nnlr._declare.moves import Move, Moves, Setting, Timed, unit_of
from nnlr._declare.traces import merge, restricted
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo, with_roles
from nnlr._select.selector import Selector, as_selector
from nnlr._select.suggestions import must_match, unmatched_parts
from nnlr._text import plural, shown
from nnlr.errors import CallError, NnlrError, PatternError


class Scheme:
    """How fast parameters learn relative to the others; it meets a model at ``resolve``.

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
        """Return the factor of each parameter.

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
        """Trace by position; parameters that the scheme does not change are left out."""
        factors = self.factors(model)
        count = len(model.params)
        if not isinstance(factors, Sequence) or len(factors) != count:
            got = (
                plural(len(factors), "factor") if isinstance(factors, Sequence) else shown(factors)
            )
            raise NnlrError(
                f"{self!r} gave {got} for the {count} parameters of {model.label}: "
                "factors(model) returns a list with one nnlr.Factor for each, in order."
            )
        source = repr(self)
        # Equal factors share one Step, which is what makes large models cheap to combine.
        shared: dict[int, Trace] = {}
        traces = {}
        for index, factor in enumerate(factors):
            if not isinstance(factor, Factor):
                raise NnlrError(
                    f"{self!r} gave {shown(factor)} for {model.params[index].name!r}: "
                    "factors(model) returns nnlr.Factor objects."
                )
            if factor.why or factor != NEUTRAL:
                traces[index] = shared.setdefault(id(factor), (Step(source, factor),))
        return traces

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
        return Where(self, as_selector(selector, "where"), flag(optional, "optional"))

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

    def at(self, function: Callable[..., float] | Move, *, setting: Setting = "lr") -> "Scheme":
        """The same scheme, whose multipliers move while training.

            lr_mult(p, t) = lr_mult(p) * function(t)

        It moves the parameters that the scheme speaks of. ``nnlr.attach`` has it act.

        Args:
            function: A function of progress, ``f(t)``, or of progress and layer, ``f(t, layer)``,
                that returns a factor, finite, >= 0. ``t`` is the part of the run that is done, 0
                to 1, and has ``t.step``, ``t.total_steps`` and ``t.epoch``; ``layer`` is a
                :class:`nnlr.depth.Layer` of a scheme by depth, such as ``layer_decay(1.0)``, and
                what has none does not move. Or a :class:`nnlr.Move`, whose units are the layers,
                and all that has none is one more.
            setting: What moves, ``"lr"`` or ``"weight_decay"``.

        Raises:
            NnlrError: If the function takes other arguments; at resolve, if it is one of layers and
                the scheme knows none.

        Examples:
            >>> import nnlr, torch
            >>> net = torch.nn.Linear(2, 1)
            >>> scheme = nnlr.rule("bias").at(lambda t: 1 - t)
            >>> plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
            >>> optimizer = plan.optimizer(torch.optim.SGD)
            >>> attached = nnlr.attach(optimizer, plan, total_steps=4)
            >>> optimizer.step()
            >>> [(group["name"], group["lr"]) for group in optimizer.param_groups]
            [('lr1_wd1', 0.1), ('moving_lr1_wd1', 0.07500000000000001)]
        """
        move = function if isinstance(function, Move) else Timed(function)
        return At(self, move, choice(setting, "setting", ("lr", "weight_decay")))

    def __mul__(self, other: "Scheme") -> "Scheme":
        """Both schemes: multipliers multiply, options are joined."""
        if not isinstance(other, Scheme):
            self._refuse_sign(other)
        members: list[Scheme] = []
        for scheme in (self, other):
            members += scheme.members if isinstance(scheme, Product) else [scheme]
        return Product(tuple(members))

    def __invert__(self) -> "Scheme":
        """Refused: only a selector can be turned round."""
        raise CallError(
            f"~ is for selectors: write it inside, as in nnlr.rule(~nnlr.glob('head.*'), ...), and "
            f"not ~{_bracketed(self)}."
        )

    def _refuse_sign(self, other: object, *_: object) -> NoReturn:
        """Refuse what a scheme is not combined with, or not by such a sign."""
        if isinstance(other, Scheme):
            both = f"{_bracketed(self)} * {_bracketed(other)}"
            raise CallError(f"Schemes multiply, and no other sign combines them: {both}.")
        hint = _hint(other)
        if isinstance(other, Real):
            call = f"nnlr.rule('*', lr_mult={shown(other)})"
            hint = f" A factor on all rates is one more scheme: {call}."
        raise CallError(
            f"{self!r} can be combined with schemes only, got {shown(other)}.{hint}", value=other
        )

    __rmul__ = __add__ = __radd__ = __sub__ = __rsub__ = __truediv__ = __pow__ = _refuse_sign
    __matmul__ = __or__ = __ror__ = __and__ = __rand__ = __xor__ = _refuse_sign

    def written_as(self) -> Written:
        """The call that makes the scheme, for its repr and for :mod:`nnlr.config`.

        By default the class with the fields of a dataclass.
        """
        return by_fields(self)

    def __repr__(self) -> str:
        """The scheme as a user would write it."""
        return repr(self.written_as())


def as_schemes(schemes: Iterable[object]) -> tuple[Scheme, ...]:
    """Check that everything given is a scheme."""
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
    if isinstance(getattr(value, "scheme", None), Scheme):
        return " Of a recipe pass the scheme, recipe.scheme; recipe.resolve(model) has its rates."
    if isinstance(value, type) and issubclass(value, Scheme):
        return f" Make one: {value.__name__}()."
    name = value.__name__ if isinstance(value, FunctionType) else ""
    return name and f" If it makes one, call it: {name}(...)."


class _Combined(Scheme):
    """A scheme made of others: its steps are theirs, so it has no factors of its own."""

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """Refused: one parameter may get several factors."""
        raise NnlrError(
            f"{self!r} combines schemes and has no single factors; use "
            "nnlr.resolve(model, scheme, ...).rows."
        )


@dataclass(frozen=True, repr=False, eq=False)
class Product(_Combined):
    """A flat product of schemes; see :meth:`Scheme.__mul__`."""

    members: tuple[Scheme, ...]

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """The steps of all members, in their order."""
        return merge(scheme.steps(model) for scheme in self.members)

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """The findings of all members."""
        return [finding for scheme in self.members for finding in scheme.findings(model)]

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.members))


@dataclass(frozen=True, repr=False, eq=False)
class Where(_Combined):
    """A scheme restricted to some parameters; see :meth:`Scheme.where`."""

    inner: Scheme
    selector: Selector
    optional: bool

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """The steps of the inner scheme for the chosen parameters."""
        if self.optional:
            chosen = self.selector.matches(model)
        else:
            chosen = must_match(self.selector, model, f"where({self.selector!r})")
        unrestricted = self.inner.steps(model)
        traces = {i: trace for i, trace in unrestricted.items() if i in chosen}
        # A recipe may well change nothing here, but what a user wrote out is meant to act.
        explicit = [i for i, trace in unrestricted.items() if any(s.explicit for s in trace)]
        if explicit and not traces and not self.optional:
            raise PatternError(
                f"{self!r} has no effect: {self.inner!r} speaks of parameters of {model.label} "
                f"(such as {model.params[min(explicit)].name}), but of none that "
                f"{self.selector!r} chooses.\n"
                "  Fix one of the two selections, or pass optional=True if they may have nothing "
                "in common.",
                pattern=repr(self.selector),
                nearest=[],
            )
        traces = restricted(traces, f"where {self.selector!r}")
        for index, trace in traces.items():
            if model.params[index].aliases:
                # If scheme and selector matched different names of the tensor, both count.
                reach = self.selector.reach(model, index)
                traces[index] = tuple(
                    replace(step, via=tuple(sorted(reach & {*step.via} or reach | {*step.via})))
                    if step.explicit
                    else step
                    for step in trace
                )
        return traces

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """The findings of the inner scheme, and names in the selector that no parameter has."""
        findings = self.inner.findings(model)
        if self.optional:
            return findings
        return [*findings, *unmatched_parts(self.selector, model, f"where({self.selector!r})")]

    def __repr__(self) -> str:
        optional = ", optional=True" if self.optional else ""
        return f"{_bracketed(self.inner)}.where({self.selector!r}{optional})"


@dataclass(frozen=True, repr=False, eq=False)
class Within(_Combined):
    """A scheme resolved on a submodule; see :meth:`Scheme.within`."""

    inner: Scheme
    path: str

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """The steps of the inner scheme on the submodule, by positions in the whole model."""
        part, positions = self._part(model)
        traces = restricted(self.inner.steps(part), f"within {self.path!r}", self.path)
        for index, trace in traces.items():
            if model.params[positions[index]].aliases:
                # The whole model may know more names of the tensor: tell by which it was reached.
                name = part.params[index].name
                traces[index] = tuple(
                    replace(step, via=tuple(f"{self.path}.{via}" for via in step.via or (name,)))
                    if step.explicit
                    else step
                    for step in trace
                )
        return {positions[index]: trace for index, trace in traces.items()}

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """The findings of the inner scheme, with the names of the whole model."""
        return [
            replace(finding, names=tuple(f"{self.path}.{name}" for name in finding.names))
            for finding in self.inner.findings(self._part(model)[0])
        ]

    def _part(self, model: ModelInfo) -> tuple[ModelInfo, list[int]]:
        """The submodule, described, and the positions of its parameters in the whole."""
        part = model.submodel(self.path)
        whole = {id(places[0].tensor): i for i, places in enumerate(model.places)}
        positions = [whole[id(places[0].tensor)] for places in part.places]
        roles = {
            inner: model.params[outer].role
            for inner, outer in enumerate(positions)
            if model.params[outer].role_basis == "user"
        }
        return with_roles(part, roles), positions

    def __repr__(self) -> str:
        return f"{_bracketed(self.inner)}.within({self.path!r})"


@dataclass(frozen=True, repr=False, eq=False)
class At(_Combined):
    """A scheme whose multipliers move; see :meth:`Scheme.at`."""

    inner: Scheme
    move: Move
    setting: Setting

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """The steps of the inner scheme, each with the move."""
        traces = dict(self.inner.steps(model))
        shared: dict[object, Trace] = {}
        of_layers = self.move.by_layer if isinstance(self.move, Timed) else None
        for index, trace in traces.items():
            layer = next((s.factor.layer for s in trace if s.factor.layer is not None), None)
            if layer is None and of_layers:
                continue
            if layer not in shared:
                counts = None if of_layers is False else layer
                moves = Moves(self.setting, unit_of(counts) or "moving", f"by {self.move}")
                factor = Factor(layer=counts, moves=moves, move=self.move)
                shared[layer] = (Step(repr(self), factor),)
            traces[index] = (*trace, *shared[layer])
        if traces and not shared:
            raise NnlrError(
                f"{self!r} is a function of progress and layer, and {self.inner!r} knows no layers "
                f"of {model.label}. Use a scheme by depth, such as layer_decay(1.0).at(...), or a "
                "function of progress alone."
            )
        return traces

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """The findings of the inner scheme."""
        return self.inner.findings(model)

    def __repr__(self) -> str:
        of = "" if self.setting == "lr" else f", setting={self.setting!r}"
        return f"{_bracketed(self.inner)}.at({self.move}{of})"


def _bracketed(scheme: Scheme) -> str:
    return f"({scheme!r})" if isinstance(scheme, Product) else repr(scheme)
