"""Numbers and rich tables as plain text."""

import random
from collections.abc import Iterable, Mapping
from io import StringIO
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from nnlr.report._label import broken

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH: Final = 80


def rate(value: float) -> str:
    """A rate or multiplier with four significant digits.

    Examples:
        >>> rate(7.508468627929688e-05), rate(1.0), rate(0.1)
        ('7.508e-05', '1', '0.1')
    """
    return f"{value:.4g}"


def amount(number: int) -> str:
    """A number of elements: exact below 10,000, else with a unit.

    Examples:
        >>> amount(9408), amount(109_482_240), amount(12_345)
        ('9,408', '109.5M', '12.3k')
    """
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            scale = 10**3 if unit == "k" else size
            return f"{number / scale:.1f}{unit}"
    return f"{number:,}"


def spread(values: Iterable[float]) -> str:
    """One number, or the smallest and the largest.

    Examples:
        >>> spread([0.1, 0.1]), spread([0.3, 0.1])
        ('0.1', '0.1..0.3')
    """
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    return rate(low) if low == high else f"{low:.2g}..{high:.2g}"


def options_text(options: Mapping[str, Any]) -> str:
    """Group options as they would be written in a call.

    Examples:
        >>> options_text({"betas": (0.9, 0.95), "amsgrad": True})
        'amsgrad=True, betas=(0.9, 0.95)'
    """
    return ", ".join(f"{key}={value!r}" for key, value in sorted(options.items()))


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes; Chinese letters take two.

    Examples:
        >>> columns_of("layer"), columns_of("層")
        (5, 2)
    """
    if text.isascii():
        return len(text)
    count: int = load_rich().cells.cell_len(text)
    return count


def wrapped(text: str, indent: str = "  ", width: int = WIDTH) -> list[str]:
    """A text in lines of at most ``width`` columns, broken between words where they allow it.

    Examples:
        >>> wrapped("a " * 41)[1]
        '  a'
    """
    lines = [""]
    for word in text.split():
        if lines[-1].strip() and columns_of(lines[-1]) + 1 + columns_of(word) > width:
            lines.append(indent)
        first, *rest = broken(word, width - columns_of(indent), columns_of)
        lines[-1] += f" {first}" if lines[-1].strip() else first
        lines += [f"{indent}{part.strip()}" for part in rest]
    return lines


def load_rich() -> ModuleType:
    """The package rich, loaded when it is needed.

    It draws from Python's random numbers as it loads, and those are the user's.
    """
    state = random.getstate()
    try:
        import rich.box
        import rich.cells
        import rich.console
        import rich.live
        import rich.table
        import rich.text
    finally:
        random.setstate(state)
    return rich


def render(content: "RenderableType") -> str:
    """Draw with rich, without colours, in :data:`WIDTH` columns."""
    out = StringIO()
    console = load_rich().console.Console(
        file=out, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(content)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def preformatted(text: str) -> str:
    """The text as HTML that keeps its lines, for notebooks."""
    from html import escape

    return f"<pre>{escape(text)}</pre>"
