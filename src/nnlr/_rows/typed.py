"""Values from a file, read by the types that a class declares for its fields.

A value of another type is an error that says where it stands: ``rows[3].shape[0] must be a
whole number, got 2.5 (float)``.
"""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Final, Literal, NoReturn, Union, get_args, get_origin

from nnlr._text import listed, nearest_hint, shown
from nnlr.errors import ConfigError

_LARGEST: Final = 2**63 - 1  # of torch's sizes


def refuse(path: str, wanted: str, value: object) -> NoReturn:
    """Refuse a value by the place where it stands."""
    raise ConfigError(f"{path} must be {wanted}, got {shown(value, typed=True)}", path=path)


def read(kind: Any, value: object, path: str) -> Any:  # noqa: ANN401 - any type that is declared
    """The value as the declared type has it, or an error that names the path.

    Examples:
        >>> read(tuple[int, ...], [2, 3], "shape"), read(float | None, 1, "lr")
        ((2, 3), 1.0)
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        return _one_of(inner, value, path)
    if origin is Literal:
        if isinstance(value, str) and value in inner:
            return value
        refuse(path, f"one of {', '.join(map(repr, inner))}", value)
    if origin is tuple:
        return _several(inner, value, path)
    if kind in _PLAIN:
        wanted, is_one, make = _PLAIN[kind]
        return make(value) if is_one(value) else refuse(path, wanted, value)
    if issubclass(kind, tuple):  # a NamedTuple, written as a list
        kinds = list(kind.__annotations__.values())
        return kind(*_several(kinds, value, path))
    return value  # an object with checks of its own


def read_fields(
    kinds: Mapping[str, Any], value: object, path: str, *, optional: bool = False
) -> dict[str, Any]:
    """A mapping with these keys, each of its type; all of them, unless they are optional."""
    entries = dict(value) if isinstance(value, Mapping) else refuse(path, "a mapping", value)
    if missing := [] if optional else [key for key in kinds if key not in entries]:
        raise ConfigError(f"{path} lacks {listed(map(repr, missing))}", path=path)
    if strays := [key for key in entries if key not in kinds]:
        hint = nearest_hint(shown(strays[0]), kinds)
        message = f"{path} has {shown(strays[0])}, which is none of {', '.join(kinds)}. {hint}"
        raise ConfigError(message.rstrip(". "), path=path)
    return {key: read(kinds[key], entries[key], f"{path}.{key}") for key in entries}


def members(value: object, path: str) -> list[tuple[str, Any]]:
    """The members of a list, each with its path."""
    if not isinstance(value, list | tuple):
        refuse(path, "a list", value)
    return [(f"{path}[{index}]", member) for index, member in enumerate(value)]


def _one_of(kinds: tuple[Any, ...], value: object, path: str) -> Any:  # noqa: ANN401 - see read
    """The value as one of two types, of which one is None."""
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    return None if value is None else read(kind, value, path)


def _several(kinds: Any, value: object, path: str) -> tuple[Any, ...]:  # noqa: ANN401 - see read
    """The members of a tuple, each of its type."""
    entries = members(value, path)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = [kinds[0]] * len(entries)
    if len(kinds) != len(entries):
        refuse(path, f"a list of {len(kinds)}", value)
    return tuple(read(kind, entry, at) for kind, (at, entry) in zip(kinds, entries, strict=True))


# Type -> what to call it, what is one, and how to make it plain.
_PLAIN: Final[Mapping[Any, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]]] = {
    str: ("a string", lambda value: isinstance(value, str), str),
    bool: ("true or false", lambda value: isinstance(value, bool), bool),
    int: (
        "a whole number >= 0",
        lambda value: (
            isinstance(value, Integral)
            and not isinstance(value, bool)
            and 0 <= int(value) <= _LARGEST
        ),
        int,
    ),
    float: (
        "a finite number",
        lambda value: isinstance(value, Real) and not isinstance(value, bool) and _is_finite(value),
        float,
    ),
}


def _is_finite(value: Real) -> bool:
    """Whether a number is one in a float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
