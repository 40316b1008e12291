"""Choose how far to fold, so that what is drawn has room."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from nnlr.report._fold import Folding, Line

# Lines that are plenty where folding hides nothing.
_PLENTY: Final = 36

# How many kinds of folded lines are tried to be opened.
_TRIES: Final = 12


def fitted(
    folding: Folding, room: int, height: Callable[[Sequence[Line]], int]
) -> tuple[list[Line], bool]:
    """The least folded lines that are not higher than ``room``, and whether there are any.

    Lines without a star hide nothing: of them fewer will do.
    """

    def fits(lines: Sequence[Line], most: int) -> bool:
        return len(lines) <= most and height(lines) <= most

    def level_of(most: int, last: int) -> int:
        def enough(level: int) -> bool:
            return folding.is_within(most, level) and fits(folding.at(level), most)

        return bisect_left(range(last), x=True, key=enough)

    lines = folding.at(level_of(min(room, _PLENTY), folding.exact))
    if fits(lines, room) and all(line.kind is None for line in lines):
        return lines, True
    level = level_of(room, folding.last)
    lines = folding.at(level)
    if level > folding.exact or not fits(lines, room):
        return lines, fits(lines, room)
    # What is left of the room goes to the largest parts that have been folded into one line.
    opened: set[object] = set()
    tried: set[object] = set()
    while len(tried) < _TRIES:
        largest = sorted(lines, key=lambda line: -len(line.rows))
        kinds = [line.kind for line in largest if line.kind is not None and line.kind not in tried]
        if not kinds:
            break
        tried.add(kinds[0])
        if fits(more := folding.at(level, {*opened, kinds[0]}), room):
            lines = more
            opened.add(kinds[0])
    return lines, True
