"""Numbers and rich tables as plain text."""

import random
from collections.abc import Mapping
from io import StringIO
from textwrap import wrap
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

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


def options_text(options: Mapping[str, Any]) -> str:
    """Group options as they would be written in a call.

    Examples:
        >>> options_text({"betas": (0.9, 0.95), "amsgrad": True})
        'amsgrad=True, betas=(0.9, 0.95)'
    """
    return ", ".join(f"{key}={value!r}" for key, value in sorted(options.items()))


def at_dots(name: str, room: int) -> list[str]:
    """The name in pieces of at most ``room`` columns, broken after dots where it has any.

    Examples:
        >>> at_dots("encoder.layers.11.attention", 18)
        ['encoder.layers.11.', '  attention']
    """
    pieces = [piece + "." for piece in name.split(".")]
    pieces[-1] = pieces[-1][:-1]
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + len(piece) > room:
            lines.append("  ")
        lines[-1] += piece
    return [part for line in lines for part in wrap(line, room, drop_whitespace=False)]


def load_rich() -> ModuleType:
    """The package rich, loaded when it is needed.

    It draws from Python's random numbers as it loads, and those are the user's.
    """
    state = random.getstate()
    try:
        import rich.box
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
