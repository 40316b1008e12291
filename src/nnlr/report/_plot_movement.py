"""The picture of how far each layer moved; it needs matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from nnlr.report._movement_chart import ticks
from nnlr.report._plot_style import (
    BLUE,
    INK,
    RED,
    SPINE,
    STRIP,
    Legend,
    new_figure,
    number_text,
    plain,
    styled,
    title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nnlr.report._movement import MovedLayer

_ROW: Final = (0.22, 0.16)  # inches of a layer; where there are many
_MANY: Final = 20
_MARKS: Final = 7  # numbers on the scale

# An open square around a full circle: both can be seen where they meet.
_FULL: Final[dict[str, Any]] = {
    "marker": "o",
    "markersize": 5,
    "color": BLUE,
    "zorder": 4,
    "linestyle": "",
}
_OPEN: Final[dict[str, Any]] = _FULL | {
    "marker": "s",
    "markersize": 8,
    "color": RED,
    "zorder": 3,
    "markeredgewidth": 1.4,
    "markerfacecolor": "white",
}


def draw_movement(
    runs: "Sequence[Sequence[MovedLayer]]", labels: Sequence[str], heading: str, width: float
) -> "Figure":
    """Draw one or two runs, the layers from top to bottom."""
    with styled():
        layers = runs[0]
        entries = list(zip(labels, (_FULL, _OPEN), strict=False)) if len(runs) == 2 else []
        legend = Legend(entries, width)
        height = len(layers) * _ROW[len(layers) > _MANY]
        figure = new_figure(width, 0.95 + legend.height + height)
        title(figure, heading)
        grid = figure.add_gridspec(2, 1, height_ratios=[max(legend.height, 0.01), height])
        legend.draw(figure, grid[0])
        axes = figure.add_subplot(grid[1])
        plain(axes, "x")
        marks = ticks(runs)
        zero = marks[0] / 2  # an exact 0 is drawn on a strip of its own, left of the scale
        heights = range(len(layers))
        axes.set_xscale("log")
        axes.set_xlim(zero / 1.4, marks[-1])
        if len(marks) > _MARKS:
            powers = [mark for mark in marks if f"{mark:e}".startswith("1.0")]
            marks = powers[:: len(powers) // _MARKS + 1]
        axes.set_xticks([zero, *marks], ["0", *map(number_text, marks)])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("|Δw| / |w| (log scale)")
        axes.set_yticks(heights, [_label(layer) for layer in layers])
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.axvspan(zero / 1.4, zero * 1.4, color=STRIP, linewidth=0)

        highest = axes.get_xlim()[1]
        values = [[min(layer.relative, highest) or zero for layer in run] for run in runs]
        if len(runs) == 2:
            axes.hlines(heights, values[0], values[1], color=SPINE, linewidth=1.2, zorder=2)
        for points, style in zip(values, (_FULL, _OPEN), strict=False):
            axes.plot(points, heights, clip_on=False, **style)
        for tick, layer in zip(axes.get_yticklabels(), layers, strict=True):
            tick.set_color(RED if layer.moved_locked else INK)
        return figure


def _label(layer: "MovedLayer") -> str:
    """The name of a layer, with what is special about it."""
    notes = [layer.rates if layer.rates in {"locked", "frozen"} else f"lr × {layer.rates}"]
    if notes == ["lr × 1"]:
        notes = []
    if layer.moved_locked:
        notes.append("but moved" if layer.state != "mixed" else "locked part moved")
    if layer.distance > 0 == layer.norm:
        notes.append("was all 0")
    return f"{layer.name} ({', '.join(notes)})" if notes else layer.name
