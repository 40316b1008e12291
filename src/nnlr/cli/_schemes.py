"""``nnlr schemes``: the published recipes, each with its defaults and its first line."""

import json
import re
from collections.abc import Callable
from inspect import Parameter, Signature, cleandoc, getdoc, isfunction, signature
from textwrap import fill

import nnlr
from nnlr._text import nearest_hint
from nnlr.cli._output import Target, deliver
from nnlr.errors import NnlrError

_WIDTH = 80


def schemes(name: str | None, target: Target) -> int:
    """List every published scheme, or tell all of one."""
    recipes = {
        name: scheme for name, scheme in sorted(vars(nnlr.schemes).items()) if isfunction(scheme)
    }
    if name is not None:
        if name not in recipes:
            hint = nearest_hint(name, recipes) or f"There are {', '.join(recipes)}."
            raise NnlrError(f"There is no scheme {name!r}. {hint}", value=name)
        recipes = {name: recipes[name]}
    facts = [
        {"name": name, "call": _call(name, scheme), "line": _first_line(scheme)}
        for name, scheme in recipes.items()
    ]
    views = {
        "table": lambda: (
            "\n".join(map(_entry, recipes, recipes.values()))
            if name is None
            else f"{_entry(name, recipes[name], alone=True)}\n\n{_documentation(recipes[name])}"
        ),
        "json": lambda: json.dumps(facts, indent=1),
        "markdown": lambda: "\n".join(f"- `{fact['call']}`: {fact['line']}" for fact in facts),
    }
    deliver(views, target)
    return 0


def _call(name: str, scheme: Callable[..., object]) -> str:
    """The call with its defaults; types take more room than they help."""
    plain = [
        parameter.replace(annotation=Parameter.empty)
        for parameter in signature(scheme).parameters.values()
    ]
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", name + str(Signature(plain)))


def _first_line(scheme: Callable[..., object]) -> str:
    """What it is, in one line."""
    return (getdoc(scheme) or "").partition("\n")[0].replace("``", "")


def _entry(name: str, scheme: Callable[..., object], *, alone: bool = False) -> str:
    """Its call, and the line below it."""
    call = fill(_call(name, scheme), _WIDTH, subsequent_indent=" " * (len(name) + 1))
    if alone:
        return call
    indent = " " * 4
    line = fill(_first_line(scheme), _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return f"{call}\n{line}"


def _documentation(scheme: Callable[..., object]) -> str:
    """Its documentation without the marks of markup."""
    text = cleandoc(getdoc(scheme) or "")
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "")
