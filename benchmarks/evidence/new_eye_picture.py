"""Make the picture of docs/evidence.md and the README: accuracy against rate, from ten seeds.

    python benchmarks/evidence/new_eye_picture.py [FILE.png]

It is drawn from new_eye.csv, in seconds. Needs matplotlib and Pillow.
"""

import io
import sys
from pathlib import Path

import new_eye
from _paired import interval, read, tables
from matplotlib.ticker import FuncFormatter
from PIL import Image

from nnlr.report._plot_style import BLUE, RED, new_figure, number_text, plain, styled

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "new_eye.png"
GREEN = "#009E73"
LOOK = {
    new_eye.UNIFORM: (RED, "o"),
    new_eye.LAYERED: (BLUE, "s"),
    new_eye.ALONE: (GREEN, "D"),
}


@styled()
def draw(path):
    """A panel for each optimizer, a line and a band for each arm."""
    cells = read(new_eye.CELLS)
    figure = new_figure(7.6, 3.0)
    panels = figure.subplots(1, 2, sharey=True)
    results = tables(cells, new_eye.RATES, new_eye.ARMS)
    for axes, (optimizer, arms) in zip(panels, results.items(), strict=True):
        plain(axes)
        rates = new_eye.RATES[optimizer]
        axes.set_xscale("log")
        for arm, table in arms.items():
            colour, mark = LOOK[arm]
            means, halves = zip(*map(interval, table), strict=True)
            low, high = zip(
                *((m - h, m + h) for m, h in zip(means, halves, strict=True)), strict=True
            )
            axes.fill_between(rates, low, high, color=colour, alpha=0.13, linewidth=0)
            axes.plot(rates, means, color=colour, marker=mark, label=arm)
        axes.set_title(new_eye.NAMES[optimizer], fontsize=9, fontweight="bold")
        axes.set_xlabel("learning rate of the new layer (log scale)")
        axes.set_xticks(rates, list(map(number_text, rates)))
        axes.set_xticks([], minor=True)
    panels[0].set_ylim(30, 100)
    panels[0].set_ylabel("unseen images read, %")
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    words = {
        new_eye.UNIFORM: "one rate for all layers",
        new_eye.LAYERED: "layer-wise: old layers at 0.1",
        new_eye.ALONE: "new layer only: old layers locked",
    }
    handles, labels = panels[1].get_legend_handles_labels()
    panels[1].legend(handles, [words[label] for label in labels], loc="lower left", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=220)
    Image.open(buffer).convert("RGB").quantize(192).save(path, optimize=True)  # a third of the size


if __name__ == "__main__":
    draw(sys.argv[1] if len(sys.argv) > 1 else PICTURE)
