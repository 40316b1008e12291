"""The course of a schedule as lines, a chart for each algorithm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from nnlr._rows.groups import Group
from nnlr._text import listed
from nnlr.report._course import RatesOverTime
from nnlr.report._page.scale import Scale
from nnlr.report._text import rate

# Points of a line, at most.
_POINTS: Final = 240

# Lines that a legend names.
_NAMED: Final = 6


class Line(NamedTuple):
    """Groups whose rates are the same at every step."""

    name: str
    colour: str  # the number of its step of colour
    points: str  # of a polyline in a box of 1000 by 100
    title: str


@dataclass(frozen=True)
class Course:
    """The lines of one algorithm."""

    algorithm: str | None
    top: float  # the rate at the upper edge; the lower is 0
    lines: tuple[Line, ...]  # the highest last, so that it is drawn on top

    @property
    def named(self) -> list[Line]:
        """The lines of the legend: from the highest to the lowest, evenly spread."""
        last = len(self.lines) - 1
        count = min(last, _NAMED - 1)
        places = dict.fromkeys(round(last - last * at / max(count, 1)) for at in range(count + 1))
        return [self.lines[at] for at in places]


def courses(rates: RatesOverTime, groups: Sequence[Group]) -> list[Course]:
    """The charts of a schedule."""
    algorithm_of = {group.name: group.algorithm for group in groups}
    together: dict[str | None, dict[tuple[float, ...], list[str]]] = {}
    for name, values in rates.lr.items():
        lines = together.setdefault(algorithm_of.get(name), {})
        lines.setdefault(values, []).append(name)
    return [_course(algorithm, lines, rates) for algorithm, lines in together.items()]


def _course(
    algorithm: str | None, names_of: dict[tuple[float, ...], list[str]], rates: RatesOverTime
) -> Course:
    """The chart of one algorithm."""
    top = max(map(max, names_of)) or 1.0
    scale = Scale.of(map(max, names_of))
    ascending = sorted(names_of, key=max)
    lines = [_line(listed(names_of[values], 2), values, rates, top, scale) for values in ascending]
    return Course(algorithm, top, tuple(lines))


def _line(
    name: str, values: Sequence[float], rates: RatesOverTime, top: float, scale: Scale
) -> Line:
    """The line of some groups."""
    last = len(values) - 1
    count = min(last, _POINTS - 1)
    chosen = [round(last * at / max(count, 1)) for at in range(count + 1)]
    first, length = rates.positions[0], max(rates.positions[-1] - rates.positions[0], 1)
    points = [
        f"{1000 * (rates.positions[at] - first) / length:.1f},{100 - 99 * values[at] / top:.2f}"
        for at in chosen
    ]
    highest = max(values)
    when = rates.positions[values.index(highest)]
    title = f"{name}: {rate(values[0])} to {rate(values[-1])}, highest {rate(highest)} at {when}"
    return Line(name, scale.colour(highest)[1:], " ".join(points), title)
