"""Words of messages: lists, counts, nearest names, values as written; warnings."""

import re
import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from nnlr.errors import NnlrWarning

# Packages whose frames lie between a warning of nnlr and the user's line that led to it.
_BETWEEN: Final = {"nnlr", "torch", "contextlib", "functools"}


def listed(names: Iterable[str], limit: int = 5) -> str:
    """Join names for a message, at most ``limit`` of them and a count of the rest.

    Examples:
        >>> listed(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    names = list(names)
    first = ", ".join(map(printable, names[:limit]))
    more = len(names) - limit
    return f"{first} and {more} more" if more > 0 else first


def printable(name: str) -> str:
    r"""A name with what cannot be printed, such as a newline, as in a Python string.

    Examples:
        >>> printable("head.weight"), printable("a\nb")
        ('head.weight', 'a\\nb')
    """
    return name if name.isprintable() else repr(name)[1:-1]


def beginnings(names: Iterable[str]) -> str:
    """What dotted names begin with, for a message.

    Examples:
        >>> beginnings(["blocks.0.weight", "blocks.1.weight", "head.bias"])
        'blocks, head'
    """
    return listed(dict.fromkeys(name.partition(".")[0] for name in names)) or "nothing"


def plural(number: int, what: str, verb: str = "") -> str:
    """A count with its noun, and the verb that agrees with it.

    Examples:
        >>> plural(1, "group"), plural(2, "group")
        ('1 group', '2 groups')
        >>> plural(1, "group", "have"), plural(2, "group", "have"), plural(1, "group", "hold")
        ('1 group has', '2 groups have', '1 group holds')
    """
    one = number == 1
    if one and verb:
        verb = {"are": "is", "have": "has"}.get(verb, f"{verb}s")
    return f"{number:,} {what}{'' if one else 's'} {verb}".rstrip()


def nearest_hint(name: str, candidates: Iterable[str], limit: int = 3) -> str:
    """Return a sentence with the candidates that look like ``name``, or ``""``.

    One that differs in capitals only is the only one.

    Examples:
        >>> nearest_hint("wieght", ["weight", "bias"]), nearest_hint("Adamw", ["Adam", "AdamW"])
        ("Nearest: 'weight'.", "Nearest: 'AdamW'.")
    """
    candidates = list(candidates)
    close = [each for each in candidates if each.lower() == name.lower() and each != name]
    close = close or get_close_matches(name, candidates, n=limit, cutoff=0.6)
    return f"Nearest: {', '.join(map(repr, close))}." if close else ""


def shown(value: object, *, typed: bool = False) -> str:
    """Return a user's value as it was written, or only what it is if that would be long.

    Args:
        value: Any object, such as a model that got into the wrong argument.
        typed: Add the type, where 0.1 and '0.1' must be told apart.

    Examples:
        >>> shown("0.1", typed=True)
        "'0.1' (str)"
        >>> shown(list(range(100)))
        'a list'
    """
    type_name = type(value).__name__
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a broken repr must not hide the message
        text = ""
    if not 0 < len(text) <= 80 or not text.isprintable() or " at 0x" in text:
        return f"{'an' if type_name[:1] in tuple('AEIOUaeiou') else 'a'} {type_name}"
    return f"{text} ({type_name})" if typed else text


def selector_hint(value: object) -> str:
    """Return a sentence on what to write instead of something that is no selector, or ``""``.

    Examples:
        >>> selector_hint(dict)
        ' Of a class: nnlr.module_type(dict).'
    """
    if isinstance(value, type):
        return f" Of a class: nnlr.module_type({value.__name__})."
    if isinstance(value, re.Pattern):
        return f" Of a regular expression: nnlr.regex({shown(value.pattern)})."
    many = isinstance(value, list | tuple | set)
    return " Join patterns with |: nnlr.glob('head.*') | 'norm.*'." if many else ""


def warn(message: str) -> None:
    """Warn at the user's line: the innermost one that is not in nnlr or torch."""
    level, frame = 1, sys._getframe()
    while frame.f_back and (frame.f_globals.get("__name__") or "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, NnlrWarning, stacklevel=level)
