"""Probes and mappings by name, as a call in text: ``"linear(0.5, 1.5)"``."""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from nnlr._text import nearest_hint, shown
from nnlr.errors import ConfigError, NnlrError

Made = TypeVar("Made")

_EXAMPLES: Final = {"probe": "alpha(50, 4096)", "mapping": "linear(0.5, 1.5)"}


def named(value: object, what: str, table: Mapping[str, Callable[..., Made]]) -> Made:
    """What a text calls: one of the functions of a table, with numbers as arguments.

    Examples:
        >>> named("complex(1, imag=2)", "number", {"complex": complex})
        (1+2j)
        >>> named("complex", "number", {"complex": complex})
        0j
    """
    if not isinstance(value, str):
        raise ConfigError(
            f"{what} must be one of {', '.join(map(repr, table))}, with numbers in brackets where "
            f"it takes some, or a function; got {shown(value, typed=True)}.",
            what=what,
            value=value,
        )
    name, args, kwargs = _parsed(value, what)
    if name not in table:
        hint = nearest_hint(name, table) or f"Known: {', '.join(map(repr, table))}."
        raise ConfigError(f"There is no {what} {name!r}. {hint}", what=what, value=value)
    function = table[name]
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        takes = ", ".join(map(str, plain))
        raise ConfigError(
            f"{what} {value!r}: {error}. It is {name}({takes}).", what=what, value=value
        ) from None
    try:
        return function(*args, **kwargs)
    except NnlrError as error:
        raise ConfigError(f"{what} {value!r}: {error}", what=what, value=value) from error


def _parsed(text: str, what: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name and the arguments of a call in text."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return call.id, [], {}
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            args = [ast.literal_eval(arg) for arg in call.args]
            kwargs = {str(key.arg): ast.literal_eval(key.value) for key in call.keywords}
            return call.func.id, args, kwargs
    except (SyntaxError, ValueError):
        pass
    raise ConfigError(
        f"{what} must be a name, with numbers in brackets where it takes some, such as "
        f"{_EXAMPLES.get(what, 'name(1, 2)')!r}; got {text!r}.",
        what=what,
        value=text,
    )
