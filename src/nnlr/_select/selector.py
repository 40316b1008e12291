"""Selectors and what combines them, and the selector that a plain string stands for.

A plain string is a glob over the whole canonical name wherever a selector is expected.
Nothing is ever matched as a substring. Of a tied tensor any name may match.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import ClassVar, NoReturn

from nnlr._arguments import Written, by_fields
from nnlr._model.describe import ModelInfo
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

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __xor__ = __rxor__ = _refuse_sign

    def written_as(self) -> Written | str:
        """The call that makes it, or the pattern that stands for it."""
        return by_fields(self)

    def __repr__(self) -> str:
        """The selector as a user would write it."""
        return repr(self.written_as())

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


def glob(pattern: str, *more: object) -> Selector:
    """Choose by name: ``*`` stands for anything, dots too, ``?`` for one character.

    Args:
        pattern: Compared with the whole canonical name, case-sensitive.
        *more: Nothing: patterns are joined with ``|``.

    Raises:
        NnlrError: If it is no pattern, or there are several.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> plan = nnlr.resolve(net, nnlr.rule("*.bias", lr_mult=2), lr=0.1, weight_decay=0)
        >>> [row.lr_mult for row in plan.rows]
        [1.0, 2.0, 1.0, 2.0]
    """
    refuse_more("glob", pattern, *more)
    if not isinstance(pattern, str) or not pattern:
        got = f"{shown(pattern)}.{selector_hint(pattern)}"
        raise NnlrError(f"glob needs a pattern such as 'head.*', got {got}", value=pattern)
    return Glob(pattern)


def refuse_more(function: str, *patterns: object) -> None:
    """Refuse more than one pattern, and say how to join them."""
    if len(patterns) > 1:
        joined = " | ".join(f"{function}({shown(pattern)})" for pattern in patterns)
        raise CallError(f"{function} takes one pattern, got {len(patterns)}. Join them: {joined}.")


class ByName(Selector):
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
class Glob(ByName):
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

    def written_as(self) -> str:
        """The pattern, which stands for it."""
        return self.pattern


@dataclass(frozen=True, repr=False, eq=False)
class _Pair(Selector):
    """Two selectors and the sign between them."""

    left: Selector
    right: Selector
    sign: ClassVar[str]
    word: ClassVar[str]  # that of configurations

    def written_as(self) -> Written:
        return Written(self.word, self.members())

    def members(self) -> tuple[Selector, ...]:
        """What is joined by one sign from left to right."""
        left = self.left.members() if type(self.left) is type(self) else (self.left,)
        return (*left, self.right)

    def parts(self) -> tuple[Selector, ...]:
        return (*self.left.parts(), *self.right.parts())

    def __repr__(self) -> str:
        return f"{_operand(self.left)} {self.sign} {_operand(self.right)}"


class _Both(_Pair):
    """What two selectors both choose."""

    sign = "&"
    word = "all"

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
    word = "any"

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

    def written_as(self) -> Written:
        return Written("not", (self.inner,))

    def __repr__(self) -> str:
        return f"~{_operand(self.inner)}"


def _operand(selector: Selector) -> str:
    """A selector beside a sign, where a plain string would not do."""
    if isinstance(selector, Glob):
        return f"glob({selector.pattern!r})"
    return f"({selector!r})" if isinstance(selector, _Pair) else repr(selector)
