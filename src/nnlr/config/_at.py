"""A place in a configuration: its path for messages, and what may be imported there."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NoReturn

from nnlr._arguments import names
from nnlr._text import nearest_hint, printable, shown
from nnlr.errors import ConfigError

_REFERENCE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class At:
    """A place in a configuration.

    Examples:
        >>> str(At("scheme")[2] / "layer_decay" / "min_mult")
        'scheme[2].layer_decay.min_mult'
    """

    path: str
    allow: Sequence[str] = ()
    file: str = ""

    def __truediv__(self, key: object) -> "At":
        """The place of a key."""
        key = printable(key if isinstance(key, str) else repr(key))
        key = key if key.isidentifier() or not self.path else f"[{key!r}]"
        dot = "." if self.path and key[0] != "[" else ""
        return replace(self, path=f"{self.path}{dot}{key}")

    def __getitem__(self, position: int) -> "At":
        """The place of a member of a list."""
        return replace(self, path=f"{self.path}[{position}]")

    def __str__(self) -> str:
        """The file and the path of the key."""
        return ": ".join(filter(None, (self.file, self.path))) or "The configuration"

    @property
    def facts(self) -> dict[str, str]:
        """Where it is, for errors."""
        return {"path": self.path, "file": self.file}

    def refuse(self, message: str, **facts: object) -> NoReturn:
        """Raise an error that begins with the place."""
        raise ConfigError(f"{self}: {message}", **self.facts, **facts)

    def refuse_key(self, key: object, what: str, keys: Iterable[str]) -> NoReturn:
        """Refuse a key, and name the nearest or all valid ones."""
        (self / key).refuse(f"{what} {shown(key)}. {_hint(key, keys)}", key=key)

    def refuse_value(self, value: object, what: str, words: Iterable[str]) -> NoReturn:
        """Refuse a word, and name the nearest or all valid ones."""
        self.refuse(f"{what} {shown(value)}. {_hint(value, words)}", value=value)

    def imported(self, reference: str) -> Any:  # noqa: ANN401 - whatever has that name
        """What a reference ``pkg.mod:name`` names, if the caller allows it.

        A pattern allows what the package defines, and not what its modules have imported:
        ``mod:*`` is not meant to allow ``mod:os.system``. The full name allows anything.
        """
        if not any(fnmatchcase(reference, pattern) for pattern in self.allow):
            self.refuse(
                f"{reference!r} names code, and loading runs none that is not allowed. If you "
                f"trust it, pass allow=[{reference!r}].",
                reference=reference,
            )
        module, _, name = reference.partition(":")
        steps: list[Any] = []
        try:
            value = import_module(module)
            for part in name.split("."):
                value = getattr(value, part)
                steps.append(value)
        except (ImportError, AttributeError) as error:
            self.refuse(f"{reference!r} cannot be imported: {error}.", reference=reference)
        is_foreign = callable(value) and _package(getattr(value, "__module__", "")) != _package(
            module
        )
        leaves = is_foreign or any(isinstance(step, ModuleType) for step in steps)
        if leaves and reference not in self.allow:
            self.refuse(
                f"{reference!r} is not of {_package(module)!r} itself, and a pattern allows only "
                f"what is. If you trust it, pass allow=[{reference!r}].",
                reference=reference,
            )
        return value


def _package(module: object) -> str:
    """The name of the package that a module is in."""
    return str(module).partition(".")[0]


def _hint(word: object, words: Iterable[str]) -> str:
    """The nearest of some words, or all of them."""
    words = list(words)
    return nearest_hint(str(word), words) or f"Valid: {', '.join(words) or 'none'}."


def is_reference(value: object) -> bool:
    """Whether it is written as the name of code.

    Examples:
        >>> is_reference("my.module:depth_of"), is_reference("auto")
        (True, False)
    """
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def root(path: str, allow: object, source: object = None) -> At:
    """The place where a configuration starts, in a file if the source is one.

    Raises:
        NnlrError: If ``allow`` is no list of names.
    """
    file = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    return At(path, names(allow, "allow", "['my.module:name']"), printable(str(file)))
