"""Selectors by name, class, role and number of axes: which parameters a rule is about."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from nnlr._arguments import Call, Written, as_call, function, text, whole
from nnlr._model.describe import ModelInfo, ParamInfo, check_role
from nnlr._model.names import lineage
from nnlr._model.scopes import Scope, module_class
from nnlr._select.selector import ByName, Indices, Selector, refuse_more
from nnlr._text import shown
from nnlr.errors import CallError, NnlrError


def regex(pattern: str, *more: object) -> Selector:
    r"""Choose by name: a regular expression that must match the whole canonical name.

    Args:
        pattern: The expression, as Python's ``re`` has it.
        *more: Nothing: patterns are joined with ``|``.

    Raises:
        NnlrError: If it is no regular expression, or there are several.

    Examples:
        >>> regex(r"blocks\.([0-5])\..*")
        regex('blocks\\.([0-5])\\..*')
    """
    refuse_more("regex", pattern, *more)
    try:
        re.compile(text(pattern, "pattern of regex", r"blocks\.[0-5]\..*"))
    except re.error as error:
        raise NnlrError(
            f"regex({pattern!r}) is no regular expression: {error}.", value=pattern
        ) from None
    return Regex(pattern)


def module_type(*types: type | str) -> Selector:
    """Choose what belongs to modules of these types, at any depth below them.

    Args:
        *types: Classes, or names of classes: ``"LayerNorm"``, or where several have that name
            ``"torch.nn.modules.normalization.LayerNorm"``. Their subclasses count too.

    Examples:
        >>> from torch import nn
        >>> module_type(nn.LayerNorm, nn.BatchNorm2d), module_type("LlamaRMSNorm")
        (module_type(LayerNorm, BatchNorm2d), module_type('LlamaRMSNorm'))
    """
    if not types or not all(isinstance(cls, type | str) and cls for cls in types):
        got = ", ".join(map(shown, types)) or "none"
        raise NnlrError(
            f"module_type needs classes such as nn.LayerNorm, or their names, got {got}."
        )
    return _ModuleType(types)


def role(*roles: str) -> Selector:
    """Choose by role: what a parameter is for.

    Args:
        *roles: ``"embedding"`` (a table looked up by index), ``"position"``, ``"token"`` (class,
            mask and register tokens, queries), ``"norm"``, ``"bias"``, ``"gain"`` (LayerScale and
            what else multiplies), ``"scalar"`` (a temperature, a gate), ``"state"`` (of
            state-space layers), ``"vector"`` (any other), ``"matrix"``, ``"conv"``, ``"head"``
            (weights of an output layer), ``"router"`` (of experts), ``"lora_a"``, ``"lora_b"``,
            ``"adapter"`` (any other part of one).

    Raises:
        NnlrError: If there is none, or one is no role.

    Examples:
        >>> role("norm", "bias")
        role('norm', 'bias')
    """
    if not roles:
        raise NnlrError("role needs at least one role, such as role('norm', 'bias').")
    if strays := [shown(name) for name in roles if not isinstance(name, str)]:
        raise NnlrError(f"role takes names one by one, such as role('norm'), got {strays[0]}.")
    return Role(tuple(map(check_role, roles)))


def ndim(*size: object, min: int | None = None, max: int | None = None) -> Selector:
    """Choose by the number of axes, both ends included.

    Args:
        *size: Nothing: both ends are written by name, so that it is plain which is meant.
        min: Fewest axes, a whole number.
        max: Most axes, a whole number.

    Raises:
        NnlrError: If there is no bound, or ``min`` is above ``max``.

    Examples:
        >>> ndim(max=1)
        ndim(max=1)
    """
    if size:
        one = shown(size[0])
        raise CallError(
            f"ndim takes its bounds by name: ndim(min={one}, max={one}) is exactly {one}, "
            f"ndim(max={one}) at most.",
            value=size,
        )
    for name, bound in (("min", min), ("max", max)):
        if bound is not None:
            whole(bound, f"{name} of ndim", minimum=0)
    if min is None and max is None:
        raise NnlrError("ndim needs min=, max= or both.")
    if min is not None and max is not None and min > max:
        raise NnlrError(f"ndim(min={min}, max={max}) can never match: min is above max.")
    return _Ndim(min, max)


def predicate(test: Callable[[ParamInfo], bool]) -> Selector:
    """Choose by a function of :class:`ParamInfo`.

    Examples:
        >>> import nnlr
        >>> large = nnlr.predicate(lambda param: param.numel > 1_000_000)
    """
    return _Predicate(function(test, "test of predicate", "lambda param: param.ndim > 1"))


@dataclass(frozen=True, repr=False, eq=False)
class Regex(Call, ByName):
    """A regular expression; made by :func:`regex`."""

    pattern: str

    def accepted(self, names: list[str]) -> Iterable[int]:
        """Positions of the names that match as a whole."""
        match = re.compile(self.pattern).fullmatch
        return [i for i, name in enumerate(names) if match(name)]


@cache
def names_of_class(cls: type) -> frozenset[str]:
    """The names of a class and its bases, short and with their modules."""
    return lineage(cls) | {base.__name__ for base in cls.__mro__}


@dataclass(frozen=True, repr=False, eq=False)
class _ModuleType(Selector):
    """A choice of module types; made by :func:`module_type`."""

    types: tuple[type | str, ...]

    def _means(self, cls: type) -> bool:
        """Whether a class is one of these, or derived from one."""
        return any(
            issubclass(cls, one) if isinstance(one, type) else one in names_of_class(cls)
            for one in self.types
        )

    def matches(self, model: ModelInfo) -> Indices:
        @cache  # parameters of one module share its scope, modules those above them
        def inside(scope: Scope | None) -> bool:
            if scope is None or scope.cls is None:
                return False
            return self._means(scope.cls) or inside(scope.above)

        return frozenset(
            index
            for index, param in enumerate(model.params)
            if inside(param.scope) or (param.aliases and self.reach(model, index))
        )

    def reach(self, model: ModelInfo, index: int) -> frozenset[str]:
        return frozenset(
            place.name
            for place in model.places[index]
            if place.node is not None
            and any(self._means(module_class(up.module)) for up in place.node.above())
        )

    def written_as(self) -> Written:
        return as_call(module_type, *self.types)

    def __repr__(self) -> str:
        names = (cls.__name__ if isinstance(cls, type) else repr(cls) for cls in self.types)
        return f"module_type({', '.join(names)})"


@dataclass(frozen=True, repr=False, eq=False)
class Role(Selector):
    """A choice of roles; made by :func:`role`."""

    roles: tuple[str, ...]

    def matches(self, model: ModelInfo) -> Indices:
        """Positions of the parameters of these roles."""
        roles = self.roles
        return frozenset([i for i, param in enumerate(model.params) if param.role in roles])

    def written_as(self) -> Written:
        """The call of :func:`role`."""
        return as_call(role, *self.roles)


@dataclass(frozen=True, repr=False, eq=False)
class _Ndim(Selector):
    """A range of numbers of axes; made by :func:`ndim`."""

    least: int | None
    most: int | None

    def matches(self, model: ModelInfo) -> Indices:
        least = 0 if self.least is None else self.least
        most = float("inf") if self.most is None else self.most
        return frozenset([i for i, p in enumerate(model.params) if least <= len(p.shape) <= most])

    def written_as(self) -> Written:
        return as_call(ndim, min=self.least, max=self.most)


@dataclass(frozen=True, repr=False, eq=False)
class _Predicate(Selector):
    """A function that chooses; made by :func:`predicate`."""

    test: Callable[[ParamInfo], bool]

    def matches(self, model: ModelInfo) -> Indices:
        return frozenset([i for i, param in enumerate(model.params) if self._holds(param)])

    def _holds(self, param: ParamInfo) -> bool:
        """What the function says, which must be true or false, or something like it."""
        answer = self.test(param)
        try:
            return bool(answer)
        except (TypeError, ValueError, RuntimeError):  # of an array or a tensor of several
            raise NnlrError(
                f"{self!r} must return True or False, and returns {shown(answer)} for "
                f"{param.name!r}.",
                value=answer,
            ) from None

    def written_as(self) -> Written:
        return as_call(predicate, self.test)

    def __repr__(self) -> str:
        return f"predicate({getattr(self.test, '__name__', repr(self.test))})"
