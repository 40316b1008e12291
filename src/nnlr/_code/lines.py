"""Python text: strings, numbers, and brackets that are opened where a line is too long."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nnlr._text import shown
from nnlr.errors import ConfigError

WIDTH: Final = 100


@dataclass(frozen=True)
class Brackets:
    """Expressions in brackets."""

    opening: str
    items: "Sequence[str | Brackets]"
    closing: str
    opened: bool = False  # with an item on each line, however short

    def __str__(self) -> str:
        """All in one line."""
        return f"{self.opening}{', '.join(map(str, self.items))}{self.closing}"

    def lines(self, indent: int, after: str = "") -> list[str]:
        """In one line if it fits, else with an item on each line, as formatters write it."""
        start, inside = " " * indent, " " * (indent + 4)
        whole = f"{start}{self}{after}"
        if len(whole) <= WIDTH and not self.opened:
            return [whole]
        lines = [f"{start}{self.opening}"]
        arguments = f"{inside}{', '.join(map(str, self.items))}"
        if self.closing == ")" and self.opening != "(" and len(arguments) <= WIDTH:
            lines.append(arguments)  # those of a call stay together
        else:
            for item in self.items:
                if isinstance(item, str):
                    lines.append(f"{inside}{item},")
                else:
                    lines += item.lines(indent + 4, ",")
        return [*lines, f"{start}{self.closing}{after}"]


def quoted(text: str) -> str:
    """A string in double quotes, or in single ones where that takes fewer backslashes.

    Examples:
        >>> print(quoted("a's"), quoted('"a"'))
        "a's" '"a"'
    """
    mark = _mark(text)
    return f"{mark}{_inside(text, mark)}{mark}"


def with_index(before: str, after: str) -> str:
    """An f-string of two texts with the variable ``i`` between them.

    Examples:
        >>> print(with_index("blocks.", ".*"))
        f"blocks.{i}.*"
    """
    mark = _mark(before + after)
    parts = [_inside(text, mark).replace("{", "{{").replace("}", "}}") for text in (before, after)]
    return f"f{mark}{parts[0]}{{i}}{parts[1]}{mark}"


def _mark(text: str) -> str:
    """The quotation mark that a string needs."""
    return "'" if text.count('"') > text.count("'") else '"'


def _inside(text: str, mark: str) -> str:
    """What stands between the quotation marks."""
    special = {mark: f"\\{mark}", "\\": "\\\\"}
    return "".join(
        special.get(char, char) if char.isprintable() else repr(char)[1:-1] for char in text
    )


def literal(value: object, what: str) -> str:
    """A setting as an expression.

    Raises:
        ConfigError: If it is more than numbers, text, lists and mappings.

    Examples:
        >>> literal((0.9, float("inf")), "betas"), literal({"a": None}, "x")
        ('(0.9, float("inf"))', '{"a": None}')
    """
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f'float("{float(value)}")'
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list | tuple):
        items = [literal(item, what) for item in value]
        comma = "," if len(items) == 1 and isinstance(value, tuple) else ""
        text = ", ".join(items) + comma
        return f"[{text}]" if isinstance(value, list) else f"({text})"
    if isinstance(value, Mapping):
        pairs = [f"{literal(key, what)}: {literal(item, what)}" for key, item in value.items()]
        return f"{{{', '.join(pairs)}}}"
    raise ConfigError(
        f"{what}={shown(value)} cannot be written as code. Leave it out, and set it in the code "
        "that is written.",
        setting=what,
    )


def comment(words: Iterable[str], indent: int = 0) -> list[str]:
    """A comment, wrapped."""
    lines = [start := f"{' ' * indent}#"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH and lines[-1] != start:
            lines.append(start)
        lines[-1] += f" {word}"
    return lines
