"""Selectors: which parameters a rule is about.

A plain string is a glob over the whole canonical name wherever a selector is expected.
Nothing is ever matched as a substring. Of a tied tensor any name may match.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cache
from typing import ClassVar, NoReturn

from nnlr._arguments import Call, whole
from nnlr._model.describe import ModelInfo, ParamInfo, check_role
from nnlr._model.scopes import Scope, module_class
from nnlr._text import selector_hint, shown
from nnlr.errors import CallError, NnlrError

Indices = frozenset[int]


class Selector(ABC):
    """Chooses parameters of a model. Combine with ``&``, ``|`` and ``~``.

    Build one with :func:`glob`, :func:`regex`, :func:`module_type`, :func:`role`,
    :func:`ndim` or :func:`predicate`.
    """

    @abstractmethod
    def matches(self, model: ModelInfo) -> Indices:
        """Positions in ``model.params`` of the parameters it chooses."""

    def reach(self, model: ModelInfo, index: int) -> frozenset[str]:
        """The names of a tied parameter by which this chooses it."""
        param = model.params[index]
        alone = replace(model, params=(param,), places=(model.places[index],))
        return frozenset(param.names) if self.matches(alone) else frozenset()

    def __and__(self, other: "Selector | str") -> "Selector":
        """Parameters that both choose."""
        return _Both(self, as_selector(other, "&"))

    def __or__(self, other: "Selector | str") -> "Selector":
        """Parameters that either chooses."""
        return _Either(self, as_selector(other, "|"))

    def __rand__(self, other: "Selector | str") -> "Selector":
        """As ``&``, with a string on the left."""
        return _Both(as_selector(other, "&"), self)

    def __ror__(self, other: "Selector | str") -> "Selector":
        """As ``|``, with a string on the left."""
        return _Either(as_selector(other, "|"), self)

    def __invert__(self) -> "Selector":
        """Parameters that this one does not choose."""
        return _Not(self)

    def __bool__(self) -> bool:
        """Refused: ``and`` and ``or`` would drop one side without a word."""
        raise NnlrError(
            f"{self!r} is not true or false: combine selectors with &, | and ~, not and/or/not."
        )

    def _refuse_sign(self, other: object) -> NoReturn:
        """Refuse a sign that selectors are not combined by."""
        both = f"{_operand(self)} | {_operand(as_selector(other, 'a sign'))}"
        raise CallError(
            "Selectors are combined by | (what either chooses), & (what both choose) and ~ (all "
            f"others), and by no other sign: {both}."
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse_sign

    @abstractmethod
    def __repr__(self) -> str:
        """The selector as a user would write it."""

    def parts(self) -> tuple["Selector", ...]:
        """The selectors that ``&``, ``|`` and ``~`` combine; of a single one itself."""
        return (self,)


def as_selector(value: object, where: str) -> Selector:
    """Return a selector: itself, or a glob for a plain string."""
    if isinstance(value, Selector):
        return value
    if isinstance(value, str):
        return glob(value)
    raise NnlrError(
        f"{where} needs a selector: a pattern such as 'head.*', or nnlr.glob, nnlr.regex, "
        f"nnlr.role and so on; got {shown(value, typed=True)}.{selector_hint(value)}",
        value=value,
    )


def glob(pattern: str) -> Selector:
    """Choose by name: ``*`` stands for anything, dots too, ``?`` for one character.

    Args:
        pattern: Compared with the whole canonical name, case-sensitive.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> plan = nnlr.resolve(net, nnlr.rule("*.bias", lr_mult=2), lr=0.1, weight_decay=0)
        >>> [row.lr_mult for row in plan.rows]
        [1.0, 2.0, 1.0, 2.0]
    """
    if not isinstance(pattern, str) or not pattern:
        got = f"{shown(pattern)}.{selector_hint(pattern)}"
        raise NnlrError(f"glob needs a pattern such as 'head.*', got {got}", value=pattern)
    return Glob(pattern)


def regex(pattern: str) -> Selector:
    r"""Choose by name: a regular expression that must match the whole canonical name.

    Examples:
        >>> regex(r"blocks\.([0-5])\..*")
        regex('blocks\\.([0-5])\\..*')
    """
    if not isinstance(pattern, str):
        raise NnlrError(
            f"regex needs a string such as r'blocks\\.[0-5]\\..*', got {shown(pattern)}.",
            value=pattern,
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise NnlrError(
            f"regex({pattern!r}) is no regular expression: {error}.", value=pattern
        ) from None
    return Regex(pattern)


def module_type(*types: type) -> Selector:
    """Choose what belongs to modules of these types, at any depth below them.

    Examples:
        >>> from torch import nn
        >>> module_type(nn.LayerNorm, nn.BatchNorm2d)
        module_type(LayerNorm, BatchNorm2d)
    """
    if not types or not all(isinstance(cls, type) for cls in types):
        got = ", ".join(map(shown, types)) or "none"
        raise NnlrError(f"module_type needs classes such as nn.LayerNorm, got {got}.")
    return _ModuleType(types)


def role(*roles: str) -> Selector:
    """Choose by role; :data:`nnlr._model.roles.ROLES` lists them.

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
    if not callable(test):
        got = shown(test)
        raise NnlrError(f"predicate needs a function of ParamInfo, got {got}.", value=test)
    return _Predicate(test)


class _ByName(Selector):
    """A selector that looks at names only."""

    @abstractmethod
    def accepted(self, names: list[str]) -> Iterable[int]:
        """Positions of the names it accepts."""

    def matches(self, model: ModelInfo) -> Indices:
        names, positions = model.spellings
        return frozenset([positions[i] for i in self.accepted(names)])

    def reach(self, model: ModelInfo, index: int) -> frozenset[str]:
        names = list(model.params[index].names)
        return frozenset(names[i] for i in self.accepted(names))


@dataclass(frozen=True, repr=False, eq=False)
class Glob(_ByName):
    """A glob; made by :func:`glob`."""

    pattern: str

    def accepted(self, names: list[str]) -> Iterable[int]:
        """Positions of the names it accepts.

        Its longest literal piece sorts out nearly all names at the speed of ``in``, so that
        a rule costs next to nothing on a model of 40,000 tensors.
        """
        piece = max(re.split(r"[*?]", self.pattern.partition("[")[0]), key=len)
        match = re.compile(translate(self.pattern)).match
        return [i for i, name in enumerate(names) if piece in name and match(name)]

    def __repr__(self) -> str:
        return repr(self.pattern)


@dataclass(frozen=True, repr=False, eq=False)
class Regex(Call, _ByName):
    """A regular expression; made by :func:`regex`."""

    pattern: str

    def accepted(self, names: list[str]) -> Iterable[int]:
        """Positions of the names that match as a whole."""
        match = re.compile(self.pattern).fullmatch
        return [i for i, name in enumerate(names) if match(name)]


@dataclass(frozen=True, repr=False, eq=False)
class _ModuleType(Selector):
    """A choice of module types; made by :func:`module_type`."""

    types: tuple[type, ...]

    def matches(self, model: ModelInfo) -> Indices:
        @cache  # parameters of one module share its scope, modules those above them
        def inside(scope: Scope | None) -> bool:
            if scope is None or scope.cls is None:
                return False
            return issubclass(scope.cls, self.types) or inside(scope.above)

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
            and any(issubclass(module_class(up.module), self.types) for up in place.node.above())
        )

    def __repr__(self) -> str:
        return f"module_type({', '.join(cls.__name__ for cls in self.types)})"


@dataclass(frozen=True, repr=False, eq=False)
class Role(Selector):
    """A choice of roles; made by :func:`role`."""

    roles: tuple[str, ...]

    def matches(self, model: ModelInfo) -> Indices:
        """Positions of the parameters of these roles."""
        roles = self.roles
        return frozenset([i for i, param in enumerate(model.params) if param.role in roles])

    def __repr__(self) -> str:
        return f"role({', '.join(map(repr, self.roles))})"


@dataclass(frozen=True, repr=False, eq=False)
class _Ndim(Selector):
    """A range of numbers of axes; made by :func:`ndim`."""

    least: int | None
    most: int | None

    def matches(self, model: ModelInfo) -> Indices:
        least = 0 if self.least is None else self.least
        most = float("inf") if self.most is None else self.most
        return frozenset([i for i, p in enumerate(model.params) if least <= len(p.shape) <= most])

    def __repr__(self) -> str:
        bounds = {"min": self.least, "max": self.most}
        texts = (f"{name}={bound}" for name, bound in bounds.items() if bound is not None)
        return f"ndim({', '.join(texts)})"


@dataclass(frozen=True, repr=False, eq=False)
class _Predicate(Selector):
    """A function that chooses; made by :func:`predicate`."""

    test: Callable[[ParamInfo], bool]

    def matches(self, model: ModelInfo) -> Indices:
        test = self.test
        return frozenset([i for i, param in enumerate(model.params) if test(param)])

    def __repr__(self) -> str:
        return f"predicate({getattr(self.test, '__name__', repr(self.test))})"


@dataclass(frozen=True, repr=False, eq=False)
class _Pair(Selector):
    """Two selectors and the sign between them."""

    left: Selector
    right: Selector
    sign: ClassVar[str]

    def parts(self) -> tuple[Selector, ...]:
        return (*self.left.parts(), *self.right.parts())

    def __repr__(self) -> str:
        return f"{_operand(self.left)} {self.sign} {_operand(self.right)}"


class _Both(_Pair):
    """What two selectors both choose."""

    sign = "&"

    def matches(self, model: ModelInfo) -> Indices:
        return self.left.matches(model) & self.right.matches(model)

    def reach(self, model: ModelInfo, index: int) -> frozenset[str]:
        left, right = self.left.reach(model, index), self.right.reach(model, index)
        if not left or not right:
            return frozenset()
        # Two names of one tensor, each chosen by one side: both names count.
        return left & right or left | right


class _Either(_Pair):
    """What at least one of two selectors chooses."""

    sign = "|"

    def matches(self, model: ModelInfo) -> Indices:
        return self.left.matches(model) | self.right.matches(model)

    def reach(self, model: ModelInfo, index: int) -> frozenset[str]:
        return self.left.reach(model, index) | self.right.reach(model, index)


@dataclass(frozen=True, repr=False, eq=False)
class _Not(Selector):
    """What a selector does not choose."""

    inner: Selector

    def matches(self, model: ModelInfo) -> Indices:
        return frozenset(range(len(model.params))) - self.inner.matches(model)

    def parts(self) -> tuple[Selector, ...]:
        return self.inner.parts()

    def __repr__(self) -> str:
        return f"~{_operand(self.inner)}"


def _operand(selector: Selector) -> str:
    """A selector beside a sign, where a plain string would not do."""
    if isinstance(selector, Glob):
        return f"glob({selector.pattern!r})"
    return f"({selector!r})" if isinstance(selector, _Pair) else repr(selector)
