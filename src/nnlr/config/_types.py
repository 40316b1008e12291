"""Types of arguments, as annotations have them: their alternatives, and what fits them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import (
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

# The types of lists.
LISTS: Final = frozenset({Sequence, Iterable, list})

_WORDS: Final = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
}


def alternatives(hint: object) -> tuple[Any, ...]:
    """The members of a union, flat; of another type itself, and of a variable what it stands for.

    Examples:
        >>> alternatives(int | str | None)
        (<class 'int'>, <class 'str'>, <class 'NoneType'>)
    """
    if isinstance(hint, TypeVar):
        return alternatives(hint.__bound__)
    if get_origin(hint) in {Union, UnionType}:
        return tuple(one for part in get_args(hint) for one in alternatives(part))
    return (hint,)


def keys_of(types: Sequence[Any]) -> Mapping[str, tuple[Any, ...]]:
    """The keys of the ``TypedDict`` among some types, each with its types; none without one.

    Examples:
        >>> from typing import TypedDict
        >>> keys_of((int, TypedDict("Part", {"size": int | str})))
        {'size': (<class 'int'>, <class 'str'>)}
    """
    tables = [get_type_hints(one) for one in types if is_typeddict(one)]
    return {key: alternatives(hint) for key, hint in tables[0].items()} if tables else {}


def is_open(one: object) -> bool:
    """Whether a type says nothing, or could not be read."""
    return one is Any or one is object or isinstance(one, str)


def fits(value: object, types: Sequence[Any]) -> bool:
    """Whether a value is of one of some types, as far as they can be checked.

    Examples:
        >>> fits(1, (float, str)), fits("a", (int, list[int])), fits([1, 2], (tuple[float, int],))
        (True, False, True)
    """
    return any(_fits(value, one) for one in types)


def _fits(value: object, one: Any) -> bool:  # noqa: ANN401, PLR0911 - a line for each kind of type
    """Whether a value is of a type."""
    origin, inside = get_origin(one), get_args(one)
    if is_open(one):
        return True
    if origin is Literal:
        return value in inside
    if origin is Callable:
        return callable(value)
    if isinstance(value, list):
        if origin is tuple:
            pairs = zip(value, inside, strict=False)
            return len(value) == len(inside) and all(fits(v, alternatives(t)) for v, t in pairs)
        return origin in LISTS and all(fits(item, alternatives(inside[0])) for item in value)
    if isinstance(value, bool):
        return one is bool
    if one is float:
        return isinstance(value, int | float)
    return isinstance(one, type) and isinstance(value, one)


def told(types: Sequence[Any]) -> str:
    """What fits some types, in words.

    Examples:
        >>> told((float, list[float], None.__class__))
        'a number, a list or null'
    """
    words = [word for one in types if (word := _told(one))]
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _told(one: Any) -> str:  # noqa: ANN401 - a type
    """What fits a type; nothing for what cannot be written."""
    origin, inside = get_origin(one), get_args(one)
    if origin is Literal:
        return f"one of {', '.join(map(repr, inside))}"
    if origin is tuple:
        return f"a list of {len(inside)}"
    if origin is Callable:
        return "the name of a function ('module:name')"
    return "a list" if origin in LISTS else _WORDS.get(one, "")
