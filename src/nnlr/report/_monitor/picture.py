"""The picture of the monitor's readings; it needs matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from nnlr.report._monitor.reading import LayerReading, Reading
from nnlr.report._plot_style import (
    SMALL,
    WIDTH,
    new_figure,
    plain,
    ramp,
    short_name,
    styled,
)
from nnlr.report._plot_style import title as heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED: Final = 14  # layers in the legend
_LETTERS: Final = 26  # of their names


@styled()
def draw(history: Sequence[Reading], title: str) -> "Figure":
    """Draw rate, ratio and gradient over the steps, a line for each layer that is trained."""
    trained = {layer.name for r in history for layer in r.layers if layer.state == "trained"}
    # In the order of the model, in which each reading has them.
    every = dict.fromkeys(layer.name for r in reversed(history) for layer in r.layers)
    names = [name for name in every if name in trained]
    figure = new_figure(WIDTH, 5.4)
    heading(figure, f"What each layer does: {title}")
    panels = figure.subplots(3, 1, sharex=True)
    labels = ("learning rate", "|Δw| / |w| of one step", "|gradient|")
    for axes, label in zip(panels, labels, strict=True):
        axes.set_title(label)
        axes.set_yscale("log")
        plain(axes)
    for name, colour in zip(names, ramp(len(names)), strict=True):
        readings = {r.step: _of(r, name) for r in history}
        for axes, values in zip(panels, zip(*readings.values(), strict=True), strict=True):
            _curve(axes, list(readings), values, colour, name)
    panels[-1].set_xlabel("step of the optimizer")
    panels[-1].margins(x=0.02)
    _name(figure, panels[0], len(names))
    return figure


def _of(reading: Reading, name: str) -> tuple[float, float, float]:
    """Rate, ratio and gradient of a layer; NaN, which is not drawn, where there is none."""
    nan = float("nan")
    layer: LayerReading | None = next((one for one in reading.layers if one.name == name), None)
    if layer is None or layer.state != "trained":
        return nan, nan, nan
    values = (layer.lr, layer.ratio, layer.gradient)
    return tuple(value or nan for value in values)  # type: ignore[return-value] # a log scale has no 0


def _curve(
    axes: "Axes", steps: Sequence[int], values: Sequence[float], colour: object, name: str
) -> None:
    """One line, with points where there are few."""
    marker = "o" if len(steps) <= 20 else ""
    axes.plot(steps, values, color=colour, marker=marker, markersize=3, label=name)


def _name(figure: "Figure", axes: "Axes", layers: int) -> None:
    """The legend: the first and the last layers, where there are many."""
    handles, names = axes.get_legend_handles_labels()
    if layers > _NAMED:
        at = sorted({round(k * (layers - 1) / (_NAMED - 1)) for k in range(_NAMED)})
        handles, names = [handles[k] for k in at], [names[k] for k in at]
    short = [short_name(name, _LETTERS) for name in names]
    figure.legend(handles, short, loc="outside right upper", fontsize=SMALL)
