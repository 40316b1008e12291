"""The pictures of docs/evidence.md on transfer, adapters and freezing, from the cells here.

    python benchmarks/evidence/pictures.py [FOLDER]

Needs matplotlib; FOLDER is docs/pictures by default. Nothing is trained.
"""

import io
import sys
from pathlib import Path
from statistics import median

import freeze_out_cost as freezing
import hyperball_transfer as hyperball
import lora_plus_width as lora
import mup_transfer as mup
from _cells import cells
from _paired import interval
from PIL import Image

from nnlr.report._plot_style import COLOURS, MARKERS, new_figure, plain, styled

HERE = Path(__file__).parent


def panels(count, height=2.7):
    """A figure with panels beside each other."""
    figure = new_figure(7.0, height)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for panel in axes:
        plain(panel)
    return figure, axes


def save(figure, path):
    """Save a PNG with few colours, which is a third of the size."""
    buffer = io.BytesIO()
    figure.savefig(buffer)
    Image.open(buffer).convert("RGB").quantize(64).save(path, optimize=True)


def line(axes, places, samples, label, at):
    """Means with their intervals over places on a logarithmic scale, a sample at each."""
    means, halves = zip(*(interval(sample) for sample in samples), strict=True)
    axes.errorbar(
        [place * 1.03**at for place in places],  # so that marks do not hide each other
        means,
        halves,
        label=label,
        color=COLOURS[at],
        marker=MARKERS[at],
        capsize=2,
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, list(map(str, places)))
    axes.set_xticks([], minor=True)


def octaves(axes):
    """Name the axis of drifts, and draw where there is none."""
    axes.axhline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
    axes.set_ylabel("drift of the best rate, octaves")


@styled()
def draw_mup(path):
    """How far the best rate drifts with width, and what keeping the narrow one costs."""
    rows = cells(mup)
    figure, (left, right) = panels(2)
    for at, arm in enumerate(mup.ARMS):
        of_arm = {width: mup.carried(rows, arm, width, mup.SEEDS) for width in mup.WIDTHS}
        drifts, costs = zip(*((drift, cost) for _, drift, cost in of_arm.values()), strict=True)
        line(left, mup.WIDTHS, drifts, arm, at)
        line(right, mup.WIDTHS, costs, arm, at)
    octaves(left)
    right.set_ylabel("loss at width 64's best rate / lowest")
    for panel in (left, right):
        panel.set_xlabel("width")
    left.legend()
    left.set_title("the best rate moves with width")
    right.set_title("what keeping the narrow one costs")
    save(figure, path)


@styled()
def draw_lora(path):
    """Steps over the rate at the widest model, and steps at the best rate over width."""
    rows = cells(lora)
    figure, (left, right) = panels(2)
    widest = lora.WIDTHS[-1]
    for at, ratio in enumerate(lora.RATIOS):
        samples = []
        for octave in lora.OCTAVES:
            steps = lora.steps_of(rows, width=widest, ratio=ratio, octave=octave)
            samples.append([steps[seed] for seed in lora.TUNING])
        means = [sum(sample) / len(sample) for sample in samples]
        shown = [(o, m) for o, m in zip(lora.OCTAVES, means, strict=True) if m < lora.LIMIT]
        left.plot(*zip(*shown, strict=True), color=COLOURS[at], marker=MARKERS[at], markersize=3)
        finals = []
        for width in lora.WIDTHS:
            octave = lora.best(rows, width, ratio, lora.TUNING)
            steps = lora.steps_of(rows, width=width, ratio=ratio, octave=octave)
            finals.append([steps[seed] for seed in lora.FRESH])
        line(right, lora.WIDTHS, finals, f"B × {ratio}", at)
    left.set_xlabel("log2 of the rate of A")
    left.set_ylabel("steps to 1 % of the loss")
    left.set_ylim(0, 300)
    left.set_title(f"width {widest}: a faster B is ahead at low rates only")
    right.set_ylim(0, 150)
    right.set_xlabel("width")
    right.set_title("each ratio at its best rate: behind")
    right.legend(loc="lower right")
    save(figure, path)


@styled()
def draw_hyperball(path):
    """How far the best rate drifts with width and with depth."""
    rows = cells(hyperball)
    figure, axes = panels(2)
    for panel, word, sizes, places in (
        (axes[0], "width, at 2 blocks", hyperball.WIDE, hyperball.WIDTHS),
        (axes[1], "blocks, at width 64", hyperball.DEEP, hyperball.DEPTHS),
    ):
        for at, arm in enumerate(hyperball.OCTAVES):
            of_sizes = [
                hyperball.carried(rows, arm, size, sizes[0], hyperball.SEEDS) for size in sizes
            ]
            drifts = [[drift for _, drift, _, _ in of_size] for of_size in of_sizes]
            line(panel, places, drifts, arm, at)
        panel.set_xlabel(word)
        octaves(panel)
        panel.axhspan(-1, 1, color="#F0F0F0", linewidth=0, zorder=-1)
        panel.set_ylim(-6, 1.5)
    axes[0].set_title("grey: within a factor of 2")
    axes[0].legend(loc="lower left")
    save(figure, path)


@styled()
def draw_freeze_out(path):
    """What is saved and what it costs, a mark for each arm."""
    figure, (axes,) = panels(1)
    axes.axhline(0, color="#AAAAAA", linewidth=0.8, zorder=0)
    for at, (arm, _, saved, difference) in enumerate(freezing.final(cells(freezing))):
        mean, half = interval(difference)
        place = median(saved)
        reach = [[place - min(saved)], [max(saved) - place]]
        look = {"color": COLOURS[at], "marker": MARKERS[at], "capsize": 2, "linestyle": "none"}
        axes.errorbar([place], [mean], [half], reach, label=arm, **look)
    axes.set_xlabel("time saved, % (whiskers: all seeds)")
    axes.set_ylabel("difference in accuracy, points")
    axes.legend(loc="lower left")
    save(figure, path)


def main():
    """Draw those whose cells are there."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[1] / "docs" / "pictures"
    draw_mup(folder / "evidence_mup.png")
    draw_lora(folder / "evidence_lora_plus.png")
    draw_hyperball(folder / "evidence_hyperball.png")
    draw_freeze_out(folder / "evidence_freeze_out.png")


if __name__ == "__main__":
    main()
