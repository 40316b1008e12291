"""The picture of the movement."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nnlr.demo.movement import Layer, ticks
from nnlr.demo.options import missing_extra

# Okabe and Ito's blue and vermilion, safe for every kind of colour vision; shapes differ too.
BLUE: Final = "#0072B2"
RED: Final = "#D55E00"


def check() -> None:
    """See that matplotlib is there.

    Raises:
        NnlrError: If it is not.
    """
    try:
        import matplotlib as _  # noqa: F401  only to see that it is there
    except ImportError as error:
        raise missing_extra("matplotlib", "The picture of --out", "Or leave out --out.") from error


def draw(layers: Sequence[Layer], labels: tuple[str, str], title: str, path: Path) -> None:
    """Draw the relative movement of each layer in both runs, and save it.

    Args:
        layers: The layers, first to last; they are drawn from top to bottom.
        labels: What to call the run at the declared rates, and that at one rate.
        title: What stands above.
        path: Where to save the picture; its suffix gives the format.
    """
    # A figure without pyplot: no window, no global state.
    from matplotlib.figure import Figure

    marks = ticks(layers)
    zero = marks[0] / 2  # an exact 0 is drawn on a strip of its own, left of the scale
    rows = range(len(layers))
    declared = [layer.declared or zero for layer in layers]
    uniform = [layer.uniform or zero for layer in layers]

    figure = Figure(figsize=(8, 0.4 * len(layers) + 1.6), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(zero / 1.4, marks[-1])
    axes.set_xticks([zero, *marks], ["0", *(f"{mark:g}" for mark in marks)])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("|Δw| / |w|, relative movement (log scale, exact 0 apart)")
    axes.set_yticks(rows, [_label(layer) for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.axvspan(zero / 1.4, zero * 1.4, color="#EEEEEE", linewidth=0)
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "left", "right"]].set_visible(False)

    axes.hlines(rows, declared, uniform, color="#AAAAAA", linewidth=1.5, zorder=2)
    # An open square around a full circle: both can be seen where they meet.
    axes.plot(
        uniform,
        rows,
        "s",
        markersize=11,
        markerfacecolor="white",
        markeredgecolor=RED,
        markeredgewidth=2,
        clip_on=False,
        zorder=3,
        label=labels[1],
    )
    axes.plot(
        declared,
        rows,
        "o",
        markersize=7,
        color=BLUE,
        clip_on=False,
        zorder=4,
        label=labels[0],
    )
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1],
        names[::-1],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        frameon=False,
    )
    figure.savefig(path)


def _label(layer: Layer) -> str:
    if layer.locked:
        return f"{layer.name} (locked)"
    return layer.name if layer.rates == "1" else f"{layer.name} (lr × {layer.rates})"
