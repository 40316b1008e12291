"""Models by ``package.module:callable`` or ``file.py:callable``, from the current folder too."""

import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Final

from torch import nn

from nnlr._text import listed, nearest_hint, plural
from nnlr.errors import NnlrError

# What Python says of an argument that a constructor does not take.
_STRAY: Final = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")

# Where lines are that are not the user's.
_NNLR: Final = str(Path(__file__).parents[1])
_PYTHON: Final = sysconfig.get_path("stdlib")


def find(module: str, path: str, libraries: Iterable[str]) -> object:
    """The object at a dotted path in a module.

    Args:
        module: Dotted name of the module, or a ``.py`` file.
        path: Name of the object in it, dots allowed.
        libraries: Words that may stand in place of the module, for the nearest one.

    Raises:
        NnlrError: If either is missing or the module cannot be imported.
    """
    value: object = _imported(module, libraries)
    at = module
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise NnlrError(_missing(value, name, at), value=name) from None
        at = f"{at}:{name}" if at == module else f"{at}.{name}"
    return value


def _missing(value: object, name: str, at: str) -> str:
    """The message on an object that lacks a name."""
    members = getattr(value, "__dict__", {})
    names = [
        other
        for other, member in members.items()
        if not other.startswith("_") and (isinstance(member, nn.Module) or callable(member))
    ]
    own = [other for other in names if getattr(members[other], "__module__", at) == at]
    hint = nearest_hint(name, names) or (f"It has: {', '.join(own[:8])}." if own else "")
    return f"{at} has no {name!r}. {hint}".rstrip()


def _imported(name: str, libraries: Iterable[str]) -> object:
    """A module, by its dotted name or its file."""
    folder = Path.cwd()
    if name.endswith(".py"):
        file = Path(name).expanduser()
        if not file.is_file():
            beside = [str(file.with_name(p.name)) for p in file.parent.glob("*.py")]
            hint = nearest_hint(name, beside)
            raise NnlrError(f"There is no file {name!r}. {hint}".rstrip(), value=name)
        folder, name = file.resolve().parent, file.stem
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if f"{name}.".startswith(f"{error.name}."):
            raise NnlrError(_no_module(error.name or name, libraries), value=name) from None
        raise NnlrError(
            f"{name!r} needs the module {error.name!r}, which is not installed.", value=name
        ) from None
    except (Exception, SystemExit) as error:
        raise NnlrError(f"{name!r} cannot be imported: {described(error)}", value=name) from error


def _no_module(missing: str, libraries: Iterable[str]) -> str:
    """The message on a module that is not there."""
    above, _, leaf = missing.rpartition(".")
    paths = getattr(sys.modules[above], "__path__", []) if above else None
    beside = {module.name for module in iter_modules(paths)}
    if not above:
        beside |= {*libraries, *sys.stdlib_module_names}
    hint = nearest_hint(leaf, beside)
    return f"There is no module {missing!r}. {hint}".rstrip()


def check_arguments(text: str, maker: Callable[..., object], arguments: Iterable[str]) -> None:
    """Refuse arguments that a callable does not take, and say which it needs.

    Raises:
        NnlrError: With the nearest name of an argument that it takes.
    """
    try:
        parameters = inspect.signature(maker).parameters
    except (TypeError, ValueError):  # of a callable in C
        return
    named = {
        n: p for n, p in parameters.items() if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}
    }
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in arguments:
            if name not in named:
                raise NnlrError(_no_argument(text, name, named), value=name)
    missing = [n for n, p in named.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise NnlrError(
            f"{text} needs {plural(len(missing), 'argument')}: {listed(missing)}.\n"
            f"  Fix: {' '.join(f'--arg {name}=VALUE' for name in missing[:3])}",
            value=missing,
        )


def _no_argument(text: str, name: str, names: Iterable[str]) -> str:
    """The message on an argument that something does not take."""
    names = list(names)
    hint = nearest_hint(name, names) or f"It takes: {listed(names, 8) or 'none'}."
    return f"{text} takes no argument {name!r}. {hint}"


def build_error(text: str, error: BaseException) -> NnlrError:
    """The error on a model that could not be made by code of others."""
    stray = _STRAY.search(str(error)) if isinstance(error, TypeError) else None
    if stray:
        # The class that refused an argument is known where it was called.
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if isinstance(cls := frame.f_globals.get(stray[1]), type):
                return NnlrError(_no_argument(text, stray[2], inspect.signature(cls).parameters))
    return NnlrError(f"{text} cannot be built: {described(error)}", value=text)


def described(error: BaseException) -> str:
    """An error of others' code in one line: its class, its text, and the user's line in it."""
    lines = str(error).strip().splitlines() or ["no message"]
    text = f"{type(error).__name__}: {lines[0].rstrip('.')}"
    own = users_line(error)
    return f"{text} ({Path(own.filename).name}, line {own.lineno})" if own else f"{text}."


def users_line(error: BaseException) -> traceback.FrameSummary | None:
    """The user's line that led to an error, if it is in code of the user's."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", _NNLR, _PYTHON))
        and "-packages" not in frame.filename
    ]
    return own[-1] if own else None
