"""The picture of how far each layer moved; it needs matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnlr.report._movement_chart import ticks
from nnlr.report._scaling.pictures import BLUE, RED, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nnlr.report._movement import MovedLayer


def draw_movement(
    runs: "Sequence[Sequence[MovedLayer]]", labels: Sequence[str], title: str
) -> "Figure":
    """Draw one or two runs, the layers from top to bottom."""
    layers = runs[0]
    marks = ticks(runs)
    zero = marks[0] / 2  # an exact 0 is drawn on a strip of its own, left of the scale
    heights = range(len(layers))
    figure = new_figure((8, 1.6 + len(layers) * (0.4 if len(layers) <= 20 else 0.25)))
    figure.suptitle(title, fontsize=13, fontweight="bold")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(zero / 1.4, marks[-1])
    if len(marks) > 12:
        marks = [mark for mark in marks if f"{mark:e}".startswith("1.0")]
    axes.set_xticks([zero, *marks], ["0", *(f"{mark:g}" for mark in marks)])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("|Δw| / |w|, relative movement (log scale, exact 0 apart)")
    axes.set_yticks(heights, [_label(layer) for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.axvspan(zero / 1.4, zero * 1.4, color="#EEEEEE", linewidth=0)
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "left", "right"]].set_visible(False)

    highest = axes.get_xlim()[1]
    values = [[min(layer.relative, highest) or zero for layer in run] for run in runs]
    if len(runs) == 2:
        axes.hlines(heights, values[0], values[1], color="#AAAAAA", linewidth=1.5, zorder=2)
    # An open square around a full circle: both can be seen where they meet.
    circle: dict[str, Any] = {"marker": "o", "markersize": 7, "color": BLUE, "zorder": 4}
    square = circle | {"marker": "s", "markersize": 11, "color": RED, "zorder": 3}
    square |= {"markeredgewidth": 2, "markerfacecolor": "white"}
    for points, label, style in zip(values, labels, (circle, square), strict=False):
        axes.plot(points, heights, linestyle="", clip_on=False, label=label, **style)
    for tick, layer in zip(axes.get_yticklabels(), layers, strict=True):
        tick.set_color(RED if layer.moved_locked else "black")
    if len(runs) == 2:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


def _label(layer: "MovedLayer") -> str:
    notes = [layer.rates if layer.rates in {"locked", "frozen"} else f"lr × {layer.rates}"]
    if notes == ["lr × 1"]:
        notes = []
    if layer.moved_locked:
        notes.append("but moved" if layer.state != "mixed" else "locked part moved")
    if layer.distance > 0 == layer.norm:
        notes.append("was all 0")
    return f"{layer.name} ({', '.join(notes)})" if notes else layer.name
