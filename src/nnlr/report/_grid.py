"""Draw a table of 80 columns."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Final

from nnlr.report._label import broken
from nnlr.report._text import WIDTH, columns_of, wrapped

# Fewest columns that a name gets.
_NARROWEST: Final = 24

# Most columns of a note, and where names need the room.
_NOTE: Final = 18
_TIGHT: Final = 10


def room_beside(columns: Mapping[str, Sequence[str]]) -> int:
    """How many columns of the terminal are left for names beside other columns."""
    return WIDTH - sum(_width(head, cells) + 2 for head, cells in columns.items())


def _width(head: str, cells: Sequence[str], *, halved: bool = False) -> int:
    """The width of a column; of notes no more than a long word needs."""
    if not head:
        words = (columns_of(word) for cell in cells for word in cell.split())
        return min(max(map(columns_of, cells)), max(_TIGHT if halved else _NOTE, *words))
    parts = [part for cell in cells for part in (_halves(cell) if halved else (cell,))]
    return max(map(columns_of, (head, *parts)))


def _halves(cell: str) -> list[str]:
    """A number, or the ends of a range."""
    least, dots, most = cell.partition("..")
    return [least + dots, most] if dots else [cell]


def grid(
    title: str, names: Sequence[str], columns: Mapping[str, Sequence[str]], gap: int | None = None
) -> list[str]:
    """Draw names and columns, with dots before the line at ``gap``.

    A name that is too long goes on below; so do a range and other long cells where names need the
    room. The cells of the column without a title are notes, flush left. More columns than there is
    room for make the table wider.
    """
    longest = max(map(columns_of, (title, *names)))
    halved = longest > room_beside(columns)
    wide = [_width(head, cells, halved=halved) for head, cells in columns.items()]
    least = min(longest, _NARROWEST)
    while sum(wide) + 2 * len(wide) > WIDTH - least and max(wide) > _NOTE:
        wide[wide.index(max(wide))] -= 1
    wide.insert(0, min(longest, max(least, WIDTH - sum(wide) - 2 * len(wide))))
    heads = (title, *columns)
    lines = [*_drawn(heads, heads, wide), "─" * (sum(wide) + 2 * len(columns))]
    for index, cells in enumerate(zip(names, *columns.values(), strict=True)):
        if index == gap:
            lines.append("...")
        lines += _drawn(heads, cells, wide)
    return lines


def _drawn(heads: Sequence[str], cells: Sequence[str], wide: Sequence[int]) -> list[str]:
    """The lines of one row."""
    parts = [broken(cells[0], wide[0], columns_of)]
    for head, cell, width in zip(heads[1:], cells[1:], wide[1:], strict=True):
        if not head or (" " in cell and columns_of(cell) > width):
            parts.append(wrapped(cell, "", width))
        else:
            fits = columns_of(cell) <= width or ".." not in cell
            parts.append(broken(cell, width, columns_of) if fits else _halves(cell))
    lines = []
    for name, *pieces in zip_longest(*parts, fillvalue=""):
        padded = [name + " " * (wide[0] - columns_of(name))]
        for head, piece, width in zip(heads[1:], pieces, wide[1:], strict=True):
            space = " " * (width - columns_of(piece))
            padded.append(space + piece if head else piece)
        lines.append("  ".join(padded).rstrip())
    return lines
