"""Selectors: which parameters a rule speaks of.

A plain string is a glob over the whole canonical name wherever a selector is expected.
Nothing is ever matched as a substring. Of a tied tensor any name may match.
"""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from fnmatch import translate
from functools import cache
from typing import Final

from nnlr.describe import ModelInfo, ParamInfo, check_role
from nnlr.errors import NnlrError, PatternError

Indices = frozenset[int]

# More names than this are not searched for near misses; the message is for a person.
_NEAR_MISS_LIMIT: Final = 5000


class Selector:
    """Chooses parameters of a model. Combine with ``&``, ``|`` and ``~``.

    Build one with :func:`glob`, :func:`regex`, :func:`module_type`, :func:`role`,
    :func:`ndim` or :func:`predicate`.
    """

    def matches(self, model: ModelInfo) -> Indices:
        """Positions in ``model.params`` of the parameters it chooses."""
        raise NotImplementedError

    def reach(self, param: ParamInfo) -> frozenset[str]:
        """The names of a tied parameter by which this chooses it."""
        alone = ModelInfo(params=(param,), module=None, label="", places=())
        return frozenset(param.names) if self.matches(alone) else frozenset()

    def __and__(self, other: "Selector | str") -> "Selector":
        """Parameters that both choose."""
        return _Both(self, as_selector(other, "&"))

    def __or__(self, other: "Selector | str") -> "Selector":
        """Parameters that either chooses."""
        return _Either(self, as_selector(other, "|"))

    def __rand__(self, other: str) -> "Selector":
        """As ``&``, with a string on the left."""
        return _Both(as_selector(other, "&"), self)

    def __ror__(self, other: str) -> "Selector":
        """As ``|``, with a string on the left."""
        return _Either(as_selector(other, "|"), self)

    def __invert__(self) -> "Selector":
        """Parameters that this one does not choose."""
        return _Not(self)

    def __repr__(self) -> str:
        """The selector as a user would write it."""
        raise NotImplementedError


def as_selector(value: object, where: str) -> Selector:
    """Return a selector: itself, or a glob for a plain string.

    Raises:
        NnlrError: If the value is neither.
    """
    if isinstance(value, Selector):
        return value
    if isinstance(value, str):
        return glob(value)
    raise NnlrError(
        f"{where} needs a selector: a pattern such as 'head.*', or nnlr.glob, nnlr.regex, "
        f"nnlr.role and so on; got {value!r} ({type(value).__name__}).",
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
        raise NnlrError(f"glob needs a pattern such as 'head.*', got {pattern!r}.", value=pattern)
    return _Glob(pattern)


def regex(pattern: str) -> Selector:
    r"""Choose by name: a regular expression that must match the whole canonical name.

    Examples:
        >>> regex(r"blocks\.([0-5])\..*")
        regex('blocks\\.([0-5])\\..*')
    """
    try:
        return _Regex(re.compile(pattern))
    except (re.error, TypeError) as error:
        raise NnlrError(f"regex({pattern!r}) is no regular expression: {error}.") from None


def module_type(*types: type) -> Selector:
    """Choose what belongs to modules of these types, at any depth below them.

    Examples:
        >>> from torch import nn
        >>> module_type(nn.LayerNorm, nn.BatchNorm2d)
        module_type(LayerNorm, BatchNorm2d)
    """
    if not types or not all(isinstance(cls, type) for cls in types):
        raise NnlrError(f"module_type needs classes such as nn.LayerNorm, got {types!r}.")
    return _ModuleType(types)


def role(*roles: str) -> Selector:
    """Choose by role; :data:`nnlr.roles.ROLES` lists them.

    Examples:
        >>> role("norm", "bias")
        role('norm', 'bias')
    """
    if not roles:
        raise NnlrError("role needs at least one role, such as role('norm', 'bias').")
    return _Role(tuple(map(check_role, roles)))


def ndim(*, min: int | None = None, max: int | None = None) -> Selector:  # noqa: A002  the words users know
    """Choose by the number of axes, both ends included.

    Examples:
        >>> ndim(max=1)
        ndim(max=1)
    """
    bounds = {"min": min, "max": max}
    for name, bound in bounds.items():
        if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool)):
            raise NnlrError(f"ndim needs whole numbers, got {name}={bound!r}.", value=bound)
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
        raise NnlrError(f"predicate needs a function of ParamInfo, got {test!r}.", value=test)
    return _Predicate(test)


class _ByName(Selector):
    """A selector that looks at names only."""

    def accepted(self, names: list[str]) -> Iterable[int]:
        """Positions of the names it accepts."""
        raise NotImplementedError

    def matches(self, model: ModelInfo) -> Indices:
        names, positions = model.spellings
        return frozenset([positions[i] for i in self.accepted(names)])

    def reach(self, param: ParamInfo) -> frozenset[str]:
        names = list(param.names)
        return frozenset(names[i] for i in self.accepted(names))


class _Glob(_ByName):
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def accepted(self, names: list[str]) -> Iterable[int]:
        """Positions of the names it accepts.

        The literal pieces between the stars sort out nearly all names at the speed of
        ``str`` methods, so that a rule costs next to nothing on a model of 40,000 tensors.
        """
        hits: Iterable[int] = range(len(names))
        head, *rest = self.pattern.split("*")
        if "?" in self.pattern or "[" in self.pattern:
            return self._by_regex(names, hits)
        if not rest:
            return [i for i, name in enumerate(names) if name == head]
        *middle, tail = rest
        if head:
            hits = [i for i in hits if names[i].startswith(head)]
        if tail:
            hits = [i for i in hits if names[i].endswith(tail)]
        pieces = [piece for piece in middle if piece]
        for piece in pieces:
            hits = [i for i in hits if piece in names[i]]
        if not pieces:
            shortest = len(head) + len(tail)
            return [i for i in hits if len(names[i]) >= shortest] if head and tail else hits
        alone = len(pieces) == 1 and not head and not tail
        return hits if alone else self._by_regex(names, hits)

    def _by_regex(self, names: list[str], hits: Iterable[int]) -> list[int]:
        match = re.compile(translate(self.pattern)).match
        return [i for i in hits if match(names[i])]

    def __repr__(self) -> str:
        return repr(self.pattern)


class _Regex(_ByName):
    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern

    def accepted(self, names: list[str]) -> Iterable[int]:
        match = self.pattern.fullmatch
        return [i for i, name in enumerate(names) if match(name)]

    def __repr__(self) -> str:
        return f"regex({self.pattern.pattern!r})"


class _ModuleType(Selector):
    def __init__(self, types: tuple[type, ...]) -> None:
        self.types = types

    def matches(self, model: ModelInfo) -> Indices:
        types = self.types
        # Neighbours share their tuple of ancestors, so each is looked at once.
        inside = cache(lambda above: any(issubclass(cls, types) for _, cls in above))
        return frozenset([i for i, p in enumerate(model.params) if inside(p.ancestors)])

    def __repr__(self) -> str:
        return f"module_type({', '.join(cls.__name__ for cls in self.types)})"


class _Role(Selector):
    def __init__(self, roles: tuple[str, ...]) -> None:
        self.roles = roles

    def matches(self, model: ModelInfo) -> Indices:
        roles = self.roles
        return frozenset([i for i, param in enumerate(model.params) if param.role in roles])

    def __repr__(self) -> str:
        return f"role({', '.join(map(repr, self.roles))})"


class _Ndim(Selector):
    def __init__(self, least: int | None, most: int | None) -> None:
        self.least = least
        self.most = most

    def matches(self, model: ModelInfo) -> Indices:
        least = 0 if self.least is None else self.least
        most = float("inf") if self.most is None else self.most
        return frozenset([i for i, p in enumerate(model.params) if least <= len(p.shape) <= most])

    def __repr__(self) -> str:
        bounds = {"min": self.least, "max": self.most}
        given = (f"{name}={bound}" for name, bound in bounds.items() if bound is not None)
        return f"ndim({', '.join(given)})"


class _Predicate(Selector):
    def __init__(self, test: Callable[[ParamInfo], bool]) -> None:
        self.test = test

    def matches(self, model: ModelInfo) -> Indices:
        test = self.test
        return frozenset([i for i, param in enumerate(model.params) if test(param)])

    def __repr__(self) -> str:
        return f"predicate({getattr(self.test, '__name__', repr(self.test))})"


class _Both(Selector):
    def __init__(self, left: Selector, right: Selector) -> None:
        self.left = left
        self.right = right

    def matches(self, model: ModelInfo) -> Indices:
        return self.left.matches(model) & self.right.matches(model)

    def reach(self, param: ParamInfo) -> frozenset[str]:
        left, right = self.left.reach(param), self.right.reach(param)
        # Two names of one tensor, each matched by one side: both have led here.
        return left & right or left | right

    def __repr__(self) -> str:
        return f"({self.left!r} & {self.right!r})"


class _Either(Selector):
    def __init__(self, left: Selector, right: Selector) -> None:
        self.left = left
        self.right = right

    def matches(self, model: ModelInfo) -> Indices:
        return self.left.matches(model) | self.right.matches(model)

    def reach(self, param: ParamInfo) -> frozenset[str]:
        return self.left.reach(param) | self.right.reach(param)

    def __repr__(self) -> str:
        return f"({self.left!r} | {self.right!r})"


class _Not(Selector):
    def __init__(self, inner: Selector) -> None:
        self.inner = inner

    def matches(self, model: ModelInfo) -> Indices:
        return frozenset(range(len(model.params))) - self.inner.matches(model)

    def __repr__(self) -> str:
        return f"~{self.inner!r}"


def must_match(selector: Selector, model: ModelInfo, what: str) -> Indices:
    """Positions that a user's selector matches, which must be some.

    Args:
        selector: What the user wrote.
        model: The model.
        what: How to call it in the message, for example ``"rule 2 'encoder.layr.*'"``.

    Raises:
        PatternError: If it matches nothing.
    """
    found = selector.matches(model)
    if found:
        return found
    nearest = near_misses(selector, model)
    count = len(model.params)
    raise PatternError(
        f"{what} matches no parameter of {model.label} ({count} parameters).\n"
        + (f"  Nearest: {'; '.join(nearest)}.\n" if nearest else "")
        + "  Fix the pattern, or pass optional=True if it may match nothing.",
        pattern=getattr(selector, "pattern", repr(selector)),
        nearest=nearest,
    )


def near_misses(selector: Selector, model: ModelInfo) -> list[str]:
    """Patterns close to a glob that matches nothing, with what they would match."""
    if not isinstance(selector, _Glob):
        return []
    pattern = selector.pattern
    names, _ = model.spellings
    wider = [f"{pattern}.*", f"*.{pattern}", f"*.{pattern}.*"]
    close = [guess for guess in wider if "*" not in pattern and _count(guess, model)]
    if not close:
        depth = pattern.removesuffix(".*").count(".") + 1
        prefixes = {
            ".".join(name.split(".")[:depth]) + (".*" if name.count(".") >= depth else "")
            for name in names
        }
        candidates = sorted(prefixes | set(names))[:_NEAR_MISS_LIMIT]
        close = get_close_matches(pattern, candidates, n=2, cutoff=0.6)
    return [
        f"{guess!r} ({count} parameter{'s' if count != 1 else ''})"
        for guess in close[:2]
        if (count := _count(guess, model))
    ]


def _count(pattern: str, model: ModelInfo) -> int:
    return len(_Glob(pattern).matches(model))
