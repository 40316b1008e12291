"""The logarithmic scale of the movement's chart: its marks, its numbers and its lines."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nnlr.report._movement import MovedLayer

_GAP: Final = 3  # columns between an exact 0 and the others


def ticks(runs: "Sequence[Sequence[MovedLayer]]") -> list[float]:
    """Marks for a logarithmic scale: 1, 2 and 5 times powers of ten, around all but the zeros."""
    values = [row.relative for run in runs for row in run]
    finite = [value for value in values if 0 < value < math.inf] or [0.1]
    powers = range(math.floor(math.log10(min(finite))) - 1, math.ceil(math.log10(max(finite))) + 1)
    marks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    below = max(mark for mark in marks if mark <= min(finite))
    above = min(mark for mark in marks if mark > max(finite))
    return marks[marks.index(below) : marks.index(above) + 1]


def number(relative: float) -> str:
    if relative == 0 or not math.isfinite(relative):
        return f"{relative:g}"
    return f"{relative:.4f}" if 0.001 <= relative < 1000 else f"{relative:.1e}"


def _place(relative: float, marks: Sequence[float], track: int) -> int:
    """Column of a movement: 0 for an exact zero, else by its logarithm."""
    if relative == 0:
        return 0
    share = math.log(min(relative, marks[-1]) / marks[0]) / math.log(marks[-1] / marks[0])
    return _GAP + round(share * (track - _GAP - 1))


def axis(marks: Sequence[float], track: int) -> str:
    """The numbers above the tracks: 0, both ends, and powers of ten where there is room."""
    powers = [mark for mark in marks[1:-1] if f"{mark:e}".startswith("1.0")]
    line = "0".ljust(track)
    for mark in (marks[0], marks[-1], *powers):
        text = f"{mark:g}"
        at = min(_place(mark, marks, track), track - len(text))
        if not line[at - 1 : at + len(text) + 1].strip():
            line = line[:at] + text + line[at + len(text) :]
    return line.rstrip()


def draw_track(pair: "Sequence[MovedLayer]", marks: Sequence[float], track: int) -> str:
    """The movements of one layer on one line, joined so that the difference can be seen."""
    places = [_place(row.relative, marks, track) for row in pair if not math.isnan(row.relative)]
    line = list(" " * _GAP + "·" * (track - _GAP))
    if places:
        low, high = min(places), max(places)
        line[low:high] = "─" * (high - low)
        for place, mark in zip(reversed(places), "●" if len(places) == 1 else "○●", strict=True):
            line[place] = "◉" if line[place] == "○" else mark
    return "".join(line)
