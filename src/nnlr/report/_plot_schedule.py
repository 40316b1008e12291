"""The picture of a schedule on a plan: the rates over time, as lines and as a map."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural
from nnlr.errors import ConfigError
from nnlr.report._course import RatesOverTime
from nnlr.report._plot_plan import resting_word
from nnlr.report._plot_series import Layout, Part, Place, Series, layout_of, series_of
from nnlr.report._plot_style import (
    MAP,
    RESTING,
    SMALL,
    Legend,
    Note,
    Scale,
    layer_ticks,
    new_figure,
    plain,
    ramp,
    short_name,
    styled,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

    from nnlr.report._views import PlanViews

_BESIDE: Final = 5.5  # inches from which lines and map stand beside each other

# Inches of the lines; of a map, of its rows, and between maps.
_LINES: Final = 2.1
_DECAYS: Final = 1.2
_MAP: Final = (0.35, 2.1)
_MAPS_LEAST: Final = 1.0
_ROW: Final = 0.15
_BETWEEN: Final = 0.25

_NAMED: Final = 6  # lines with a name; of more than these some between have none
_MAPS: Final = 8  # maps below each other
_FLOOR: Final = 30  # how far below its peak the slowest group is followed


@dataclass(frozen=True)
class _Block:
    """The rows of one map: a series in a part.

    Attributes:
        first: The first place in the part.
        rates: The course at each place; ``()`` where nothing learns, ``None`` where nothing is.
    """

    series: Series
    part: Part
    first: int
    rates: tuple[tuple[float, ...] | None, ...]


def draw_schedule(plan: "PlanViews", course: RatesOverTime, steps: int, width: float) -> "Figure":
    """Draw the rates of a plan's groups over time."""
    _refuse_others(plan, course)
    with styled():
        return _Picture(plan, course, width).draw(steps)


def _refuse_others(plan: "PlanViews", course: RatesOverTime) -> None:
    """Refuse a schedule of groups that are not the plan's."""
    missing = [group.name for group in plan.groups if group.name not in course.lr]
    if missing:
        raise ConfigError(
            f"The scheduler's optimizer has the groups {listed(map(repr, course.groups))}, and not "
            f"{listed(map(repr, missing))} of this plan. Pass a scheduler of an optimizer that "
            "plan.optimizer built, or the scheduler class with its settings.",
            groups=missing,
        )


class _Picture:
    """What is drawn, and how much room it takes."""

    def __init__(self, plan: "PlanViews", course: RatesOverTime, width: float) -> None:
        self.plan, self.course, self.width = plan, course, width
        rows = plan.rows
        self.layout = layout_of(rows, self._rates)
        self.series = series_of(rows, self.layout, self._rates)
        self.every = _blocks(self.series, self.layout)
        largest = sorted(self.every, key=lambda block: -block.series.numel)[:_MAPS]
        self.blocks = [block for block in self.every if block in largest]
        self.beside = width >= _BESIDE
        room = width / 2 - 0.6 if self.beside else width - 0.6
        self.lines = _Lines(course.lr, course.positions, room, "learning rate", _LINES)
        self.decays = _Lines(course.weight_decay, course.positions, room, "weight decay", _DECAYS)
        self.legend = Legend(self._entries(), room)

    def _rates(self, row: PlanRow) -> Hashable:
        """The rates of a row over time; ``None`` where it does not learn."""
        return self.course.lr[row.group] if row.trainable and row.group else None

    def draw(self, steps: int) -> "Figure":
        """The whole figure."""
        panels = [self.legend.height, *self.lines.heights, *self.decays.heights]
        maps = [_height(block) for block in self.blocks]
        above = sum(panels) + 0.35 * len(self.decays.heights)
        below = max(sum(maps), _MAPS_LEAST) + _BETWEEN * (len(maps) - 1)
        height = above + below + 0.5
        if self.beside:
            height = max(above, below)
            panels[1] += height - above
        remarks = Note(self._remarks(), self.width)
        figure = new_figure(self.width, height + 0.75 + remarks.height)
        title(figure, f"{self.plan.label}: {self.course.label} over {plural(steps, 'step')}")
        grid = figure.add_gridspec(1, 2)
        if not self.beside:
            grid = figure.add_gridspec(2, 1, height_ratios=[above, below])
        self._draw_lines(figure, grid[0], panels)
        self._draw_maps(figure, grid[1], maps)
        remarks.draw(figure)
        return figure

    def _remarks(self) -> list[str]:
        """What the picture does not tell by itself."""
        lines = list(self.course.notes)
        if self.course.metric:
            lines.append("It follows a metric: here one that never improves.")
        if self.course.incomplete:
            end = self.course.positions[-1]
            lines.append(f"It ends after step {end}: {self.course.incomplete}."[:200])
        if resting := sum(not row.trainable for row in self.plan.rows):
            grey = any(rates == () for block in self.blocks for rates in block.rates)
            state = resting_word(self.plan.rows)
            lines.append(f"{plural(resting, 'parameter', 'are')} {state}{' (grey)' * grey}.")
        if rest := [block for block in self.every if block not in self.blocks]:
            lines.append(f"Not in the map: {listed(dict.fromkeys(map(self._name, rest)))}.")
        return lines

    def _name(self, block: _Block) -> str:
        """The part and the series of a block, where there are several."""
        label = block.series.label
        names = [short_name(block.part.key), label if len(label) <= 32 else f"{label[:31]}…"]
        return ", ".join(filter(None, names))

    @property
    def _unit(self) -> str:
        """The word for a place: layer or module."""
        return self.layout.unit.partition(",")[0]

    def _entries(self) -> list[tuple[str, dict[str, Any]]]:
        """Names of some lines, the fastest first."""
        where: dict[Hashable, list[str]] = {}
        for block in self.every:
            name = self._name(block)
            for rates in dict.fromkeys(block.rates):
                if rates:
                    places = _places(block, rates, self._unit)
                    where.setdefault(rates, []).append(f"{name}: {places}" if name else places)
        count = len(self.lines.curves)
        if count == 1:
            return []
        last = min(count, _NAMED) - 1
        chosen = [round((count - 1) * at / last) for at in range(last, -1, -1)]
        curves = [self.lines.curves[at] for at in chosen]
        return [
            (listed(where[curve], 2), {"color": self.lines.colours[curve]})
            for curve in curves
            if curve in where
        ]

    def _draw_lines(self, figure: "Figure", where: "SubplotSpec", heights: Sequence[float]) -> None:
        """The rates, and decays that are scheduled, over steps."""
        ratios = [max(height, 0.01) for height in heights]
        grid = where.subgridspec(len(heights), 1, height_ratios=ratios)
        self.legend.draw(figure, grid[0])
        for at, lines in enumerate((self.lines, self.decays)[: len(heights) - 1], start=1):
            lines.draw(figure.add_subplot(grid[at]))
        figure.axes[-1].set_xlabel("step")

    def _draw_maps(self, figure: "Figure", where: "SubplotSpec", heights: Sequence[float]) -> None:
        """A map for each block, below each other, under one scale of colours."""
        from matplotlib.colors import LogNorm, Normalize

        grid = where.subgridspec(len(heights), 1, height_ratios=heights)
        scale = self.lines.scale
        norm = Normalize(0, scale.high) if scale.linear else LogNorm(scale.low, scale.high)
        panels = [figure.add_subplot(grid[at]) for at in range(len(heights))]
        images = [
            self._draw_map(axes, block, norm)
            for axes, block in zip(panels, self.blocks, strict=True)
        ]
        for axes in panels[:-1]:
            axes.tick_params(labelbottom=False)
        panels[-1].set_xlabel("step")
        bar = figure.colorbar(images[0], ax=panels, aspect=30, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(which="both", length=0, labelsize=SMALL)
        scale.number(bar.ax)
        bar.set_label(self.lines.label)

    def _draw_map(self, axes: "Axes", block: _Block, norm: Any) -> Any:  # noqa: ANN401
        """One block: a row for each place, the input at the bottom of numbers."""
        positions = self.course.positions
        nothing = (math.nan,) * len(positions)
        floor = 0.0 if self.lines.scale.linear else self.lines.scale.low
        values = [
            tuple(max(rate, floor) for rate in rates) if rates else nothing for rates in block.rates
        ]
        half = (positions[-1] - positions[0]) / max(len(positions) - 1, 1) / 2 or 0.5
        low, high = block.first - 0.5, block.first + len(values) - 0.5
        named = bool(block.part.names)
        plain(axes, "")
        image = axes.imshow(
            values,
            aspect="auto",
            origin="upper" if named else "lower",
            interpolation="nearest",
            extent=(
                positions[0] - half,
                positions[-1] + half,
                *((high, low) if named else (low, high)),
            ),
            cmap=MAP,
            norm=norm,
        )
        for at, rates in enumerate(block.rates, start=block.first):
            if rates == ():
                axes.axhspan(at - 0.5, at + 0.5, color=RESTING, linewidth=0)
        axes.spines[:].set_visible(False)
        axes.set_title(self._name(block))
        layer_ticks(axes, "x", 4)
        if named:
            names = [short_name(name, int(self.width * 4)) for name in block.part.names]
            places = range(block.first, block.first + len(values))
            axes.set_yticks(places, [names[place] for place in places])
        else:
            layer_ticks(axes, "y", min(max(len(values) // 2, 3), 7))
            axes.set_ylabel(self._unit)
        return image


class _Lines:
    """The different courses of a quantity, the slowest first."""

    def __init__(
        self,
        courses: Mapping[str, tuple[float, ...]],
        positions: Sequence[int],
        width: float,
        name: str,
        height: float,
    ) -> None:
        self.positions = positions
        self.curves = sorted(dict.fromkeys(courses.values()), key=lambda curve: (max(curve), curve))
        self.colours = dict(zip(self.curves, ramp(len(self.curves)), strict=True))
        self.heights = [height] if self.curves else []
        peaks = [max(curve) for curve in self.curves if max(curve) > 0] or [1.0]
        values = [value for curve in self.curves for value in curve if value > 0] or [1.0]
        low = max(min(values), min(peaks) / _FLOOR)
        linear = max(peaks) < 4 * min(peaks)
        self.scale = Scale(
            [0.0] if linear else [low], "y", height, 0, linear=linear, top=max(peaks)
        )
        self.label = name if self.scale.linear else f"{name} (log scale)"

    def draw(self, axes: "Axes") -> None:
        """Draw them over the positions."""
        plain(axes)
        self.scale.apply(axes, "")
        layer_ticks(axes, "x", 5)
        axes.set_ylabel(self.label)
        axes.margins(x=0.02)
        if len(self.positions) == 1:
            axes.set_xlim(self.positions[0] - 0.5, self.positions[0] + 0.5)
        style = {"marker": "o"} if len(self.positions) == 1 else {"drawstyle": "steps-post"}
        for curve in self.curves:
            shown = [value if value > 0 or self.scale.linear else math.nan for value in curve]
            axes.plot(self.positions, shown, color=self.colours[curve], **style)  # type: ignore[arg-type]


def _blocks(series: Sequence[Series], layout: Layout) -> list[_Block]:
    """The maps: each series in each part in which it learns."""
    blocks = []
    for part in layout.parts:
        for each in series:
            values = [each.values.get(Place(part.key, at)) for at in range(part.size)]
            present = [at for at, value in enumerate(values) if value]
            if any(_fastest(values[at] or ()) for at in present):
                rates = tuple(
                    None if value is None else _fastest(value)
                    for value in values[present[0] : present[-1] + 1]
                )
                blocks.append(_Block(each, part, present[0], rates))
    return blocks


def _fastest(values: Sequence[Hashable]) -> tuple[float, ...]:
    """The highest of several courses; an empty one if nothing learns."""
    courses: list[Any] = [value for value in values if value is not None]
    return max(courses, key=max, default=())


def _height(block: _Block) -> float:
    """Inches of a map."""
    return min(max(_ROW * len(block.rates), _MAP[0]), _MAP[1])


def _places(block: _Block, rates: tuple[float, ...], unit: str) -> str:
    """Where a course is: names of modules, or numbers."""
    at = [place for place, value in enumerate(block.rates, start=block.first) if value == rates]
    if block.part.names:
        return listed([short_name(block.part.names[place]) for place in at], 2)
    runs = [list(run) for _, run in groupby(enumerate(at), key=lambda pair: pair[1] - pair[0])]
    texts = [
        f"{run[0][1]}" if len(run) == 1 else f"{run[0][1]}\N{EN DASH}{run[-1][1]}" for run in runs
    ]
    return f"{unit if len(at) == 1 else f'{unit}s'} {listed(texts, 3)}"
