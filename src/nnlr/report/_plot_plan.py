"""The picture of a plan: the rate of every layer, and the decay where that differs."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural
from nnlr.errors import NnlrError
from nnlr.report._moves import moving_steps
from nnlr.report._plot_series import OUTSIDE, Layout, Part, Place, Series, layout_of, series_of
from nnlr.report._plot_style import (
    COLOURS,
    MARKERS,
    Legend,
    Note,
    Scale,
    layer_ticks,
    new_figure,
    plain,
    short_name,
    styled,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nnlr.report._views import PlanViews

# Towers that are drawn, and the least width of one, in inches.
_TOWERS: Final = 12
_NARROW: Final = 1.5

# Inches of a panel of rates, one of decays, the strip of zeros, a module, and above a panel.
_TALL: Final = 1.9
_FLAT: Final = 1.1
_STRIP: Final = 0.22
_ROW: Final = 0.17
_GAP: Final = 0.04

_POINT: Final = 3.0  # marks of fewer points are full
DOTS: Final = {"linestyle": ""}


def learning(row: PlanRow) -> float:
    """The rate that a row really learns at."""
    return row.lr if row.trainable else 0.0


def decay(row: PlanRow) -> float:
    """The weight decay of a row."""
    return row.weight_decay


def resting_word(rows: Sequence[PlanRow]) -> str:
    """What a rate of 0 means here, in one word or two."""
    return "/".join(s for s in ("locked", "frozen") if any(row.state == s for row in rows))


class Measure:
    """A quantity in a picture: its rows, lines and scale."""

    def __init__(self, rows: Sequence[PlanRow], layout: Layout, *, is_rate: bool) -> None:
        self.rows = rows
        self.is_rate = is_rate
        self.value = learning if is_rate else decay
        self.series = series_of(rows, layout, self.value)
        self.values = [self.value(row) for row in rows]
        self.zero = resting_word(rows) if is_rate else "0"

    @property
    def height(self) -> float:
        """Inches of a panel in which values are above each other."""
        return _TALL if self.is_rate and any(self.values) else _FLAT

    def fit(self, axis: str, size: float, strip: float) -> None:
        """Choose the scale for a panel of so many inches."""
        self.scale = Scale(self.values, axis, size, strip, linear=not self.is_rate)

    def legend(self, width: float, size: float) -> Legend:
        """What its lines stand for."""
        return Legend(
            [(series.label, self.style(at, size)) for at, series in enumerate(self.series)], width
        )

    def style(self, index: int, size: float) -> dict[str, Any]:
        """Colour and mark of a series; the first has full marks, which are seen in open ones."""
        style = {
            "color": COLOURS[index],
            "marker": MARKERS[index],
            "markersize": size,
            "zorder": 3 + 0.1 * index,
            "clip_on": False,
        }
        if index and size > _POINT:
            style |= {"markerfacecolor": "none", "markeredgewidth": 1.2, "markersize": size + 1.5}
        return style

    @property
    def label(self) -> str:
        """The label of its axis."""
        name = "learning rate" if self.is_rate else "weight decay"
        return name if self.scale.linear or self.scale.empty else f"{name} (log scale)"


def draw_plan(plan: "PlanViews", width: float) -> "Figure":
    """Draw the rates of a plan over its layers, or modules."""
    if not plan.rows:
        raise NnlrError(f"The plan for {plan.label} has no parameters: there is nothing to draw.")
    with styled():
        layout = layout_of(plan.rows, lambda row: (learning(row), decay(row)))
        measures = [Measure(plan.rows, layout, is_rate=True)]
        trained = [row for row in plan.rows if row.trainable]
        if len({decay(row) for row in trained}) > 1:
            measures.append(Measure(trained, layout, is_rate=False))
        figure = (_by_name if layout.is_named else _by_number)(layout, measures, width)
        resting = sum(not row.trainable for row in plan.rows)
        share = "all" if resting == len(plan.rows) else f"{resting:,} of them"
        state = f", {share} {resting_word(plan.rows)}" if resting else ""
        moving = sum(bool(moving_steps(row)) for row in plan.rows)
        moves = f", {'all' if moving == len(plan.rows) else f'{moving:,}'} move" if moving else ""
        title(
            figure,
            f"{plan.label}: {plural(len(plan.rows), 'parameter')}{state}{moves}, "
            f"{plural(len(plan.groups), 'group')}",
        )
        return figure


def _by_number(layout: Layout, measures: Sequence[Measure], width: float) -> "Figure":
    """A panel for each tower; the layers from left to right."""
    parts = layout.largest(_TOWERS)
    columns = _columns(parts, width)
    lines = math.ceil(len(parts) / columns)
    size = _mark_size(max(part.size for part in parts) * columns, width)
    heights = []
    for measure in measures:
        measure.fit("y", measure.height, _STRIP)
        heights += [max(measure.legend(width - 0.6, size).height, _GAP), measure.height]
    # Legends stand above the first line only.
    heights += [_GAP if at % 2 == 0 else height for at, height in enumerate(heights)] * (lines - 1)
    rest = [part.key for part in layout.parts if part not in parts]
    remarks = Note([f"Not drawn: {listed(rest)}."] if rest else [], width)
    height = sum(heights) + 0.28 * lines * len(measures) + 0.45 + remarks.height
    figure = new_figure(width, height)
    sizes = [min(max(part.size, 3), 16) for part in parts] if lines == 1 else [1] * columns
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights, width_ratios=sizes)
    for at, measure in enumerate(measures):
        measure.legend(width - 0.6, size).draw(figure, grid[2 * at, :])
    for at, part in enumerate(parts):
        line, column = divmod(at, columns)
        for below, measure in enumerate(measures):
            axes = figure.add_subplot(grid[2 * (line * len(measures) + below) + 1, column])
            plain(axes)
            measure.scale.apply(axes, measure.zero)
            number_places(axes, part, columns)
            _draw(axes, measure, part, size, flip=False)
            axes.tick_params(labelleft=not column)
            axes.set_ylabel("" if column else measure.label)
            if below == 0 and len(parts) > 1 and part.key != OUTSIDE:
                axes.set_title(short_name(part.key, int(width / columns / 0.075)))
            is_last = below == len(measures) - 1 and at + columns >= len(parts)
            if is_last and not part.names:
                axes.set_xlabel(layout.unit if columns == 1 else layout.unit.partition(",")[0])
    remarks.draw(figure)
    return figure


def _columns(parts: Sequence[Part], width: float) -> int:
    """The number of panels beside each other; what is outside takes little room."""
    narrow = sum(bool(part.names) for part in parts)
    fitting = max(int(width / _NARROW), 1)
    return len(parts) if len(parts) - narrow <= fitting else fitting


def number_places(axes: "Axes", part: Part, columns: int) -> None:
    """The numbers of the layers, or the one name of what is outside."""
    axes.set_xlim(-0.6, part.size - 0.4)
    if part.names:
        axes.set_xticks([0], part.names)
    else:
        layer_ticks(axes, "x", max(int(8 / columns), 3))


def _by_name(layout: Layout, measures: Sequence[Measure], width: float) -> "Figure":
    """A row for each module, in the order of the model; the rates from left to right."""
    (part,) = layout.parts
    names = [short_name(name, int(width * 5)) for name in part.names]
    # What is left beside the names is divided.
    room = (width - 0.062 * max(map(len, names))) / len(measures)
    for measure in measures:
        measure.fit("x", room - 0.2, 0.55)
    legends = [measure.legend(room, 5.5) for measure in measures]
    above = max(legend.height for legend in legends)
    height = _ROW * max(part.size, 2)
    figure = new_figure(width, 0.95 + above + height)
    grid = figure.add_gridspec(2, len(measures), height_ratios=[max(above, 0.01), height])
    for at, (measure, legend) in enumerate(zip(measures, legends, strict=True)):
        legend.draw(figure, grid[0, at])
        axes = figure.add_subplot(grid[1, at])
        plain(axes, "x")
        measure.scale.apply(axes, measure.zero.replace("/", "\n"))
        axes.set_ylim(part.size - 0.4, -0.6)
        axes.set_yticks(range(part.size), names)
        axes.tick_params(labelleft=at == 0)
        axes.set_xlabel(measure.label if room > 1.7 else measure.label.replace(" (", "\n("))
        _draw(axes, measure, part, 5.5, flip=True)
    return figure


def _mark_size(places: int, width: float) -> float:
    """The size of marks, in points, that leaves room between so many places."""
    return min(max(60 * (width - 0.8) / places / 2, 1.6), 5.5)


def _draw(axes: "Axes", measure: Measure, part: Part, size: float, *, flip: bool) -> None:
    """The series of a measure in one panel: over numbers as lines, over names as dots."""
    for index, series in enumerate(measure.series):
        style = measure.style(index, size)
        points = _points(series, part)
        if not flip:
            for run in _runs(points):
                axes.plot(*zip(*run, strict=True), **style)
        dots = [(at, measure.scale.place(value)) for at, value in points]
        axes.plot(*zip(*[dot[::-1] if flip else dot for dot in dots], strict=True), **style | DOTS)


def _points(series: Series, part: Part) -> list[tuple[int, float]]:
    """Every value of a series in a panel, with its place."""
    places = (Place(part.key, at) for at in range(part.size))
    return [(p.at, float(v)) for p in places for v in series.values.get(p, ())]  # type: ignore[arg-type]


def _runs(points: Sequence[tuple[int, float]]) -> Iterator[list[tuple[int, float]]]:
    """Neighbouring values above 0, if there is one at each place."""
    if len({at for at, _ in points}) < len(points):
        return
    run: list[tuple[int, float]] = []
    for at, value in [*points, (-1, 0.0)]:
        if value > 0:
            run.append((at, value))
        elif run:
            yield run
            run = []
