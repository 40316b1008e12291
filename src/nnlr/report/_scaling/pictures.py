"""The pictures of the coordinate check and of the sweep; they need matplotlib."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from nnlr.report._plot_style import (
    BLUE,
    GREY,
    MARKERS,
    RED,
    SMALL,
    Legend,
    new_figure,
    plain,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnlr.report._scaling.coordinate_result import Coordinate, CoordinateCheck
    from nnlr.report._scaling.lr_sweep import LrSweep

# Narrow to wide: lighter to darker, so that the order can be seen without the legend.
LIGHTEST: Final = (0.62, 0.79, 0.92)
DARKEST: Final = (0.03, 0.19, 0.42)

_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_BEST: Final[dict[str, Any]] = {
    "color": RED,
    "linestyle": "--",
    "linewidth": 1.2,
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": "none",
    "markeredgewidth": 1.4,
    "zorder": 3,
}

NAMED: Final = 9  # modules named at their lines
LETTERS: Final = 28  # of their names
SHOWN: Final = 3  # steps that get a panel of their own


@styled()
def draw_coordinates(checks: "Sequence[CoordinateCheck]", path: Path) -> None:
    """Draw checks below each other: sizes at initialisation, then changes, over width."""
    columns = max(len(_shown(check.steps)) for check in checks)
    figure = new_figure(1.6 + 1.5 * columns, 0.3 + 2.1 * len(checks))
    rows: list[list[Axes]] = []
    for check, part in zip(
        checks, figure.subfigures(len(checks), 1, squeeze=False)[:, 0], strict=True
    ):
        faults = check.faults()
        title = f"{check.label}: {'not flat' if faults else 'every module is flat'}"
        part.suptitle(title, x=0.01, ha="left", color=RED if faults else BLUE)
        rows.append(list(part.subplots(1, columns, squeeze=False)[0]))
        for axes in rows[-1]:
            plain(axes)
        for step, axes in zip(_shown(check.steps), rows[-1], strict=False):
            _over_width(axes, check, step, faults)
        rows[-1][0].set_ylabel("mean over coordinates")
    # One scale for all panels, written at the first of each row only.
    panels = [axes for row in rows for axes in row]
    limits = [axes.get_ylim() for axes in panels if axes.lines]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        if not axes.get_ylabel():
            axes.tick_params(labelleft=False)
    for check, row in zip(checks, rows, strict=True):
        steps = _shown(check.steps)
        _name_lines(row[len(steps) - 1], check, steps[-1])
        for spare in row[len(steps) :]:
            spare.set_axis_off()
    figure.savefig(path)


def _shown(steps: Sequence[int]) -> list[int]:
    """Initialisation, the first step, the last and those evenly between."""
    last = steps[-1]
    count = min(last, SHOWN)
    later = {1 + round((last - 1) * k / max(count - 1, 1)) for k in range(count)}
    return [0, *sorted(later)]


def _over_width(axes: "Axes", check: "CoordinateCheck", step: int, faults: Iterable[str]) -> None:
    """One panel: a line for each module, over the range of its seeds."""
    axes.set_xscale("log", base=2)
    _logarithmic(axes)
    axes.set_xticks(check.widths, [str(width) for width in check.widths])
    axes.set_xticks([], minor=True)
    after = f"{step} step{'s' if step > 1 else ''}"
    title = f"change after {after}" if step else "size at initialisation"
    axes.set_title(title, color=GREY)
    axes.set_xlabel("width")
    for index, module in enumerate(check.modules):
        rows = [row for row in check.rows if (row.module, row.step) == (module, step)]
        runs = [[_value(row) for row in rows if row.width == w] for w in check.widths]
        if not all(0 < value < math.inf for run in runs for value in run):
            continue  # nothing that a logarithmic scale could show
        colour = RED if module in faults else BLUE
        low, high = [min(run) for run in runs], [max(run) for run in runs]
        axes.fill_between(check.widths, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            check.widths,
            [fmean(run) for run in runs],
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            color=colour,
            zorder=3 if module in faults else 2,
        )


def _value(row: "Coordinate") -> float:
    return row.change if row.step else row.size


def _name_lines(axes: "Axes", check: "CoordinateCheck", step: int) -> None:
    """The modules' names right of their lines, moved apart where they would meet."""
    faults = check.faults()
    widest = check.widths[-1]
    low, high = map(math.log10, axes.get_ylim())
    ends: dict[str, float] = {}
    for module in check.modules:
        values = [
            _value(row)
            for row in check.rows
            if (row.module, row.step, row.width) == (module, step, widest)
        ]
        if all(0 < value < math.inf for value in values):
            ends[module] = (math.log10(fmean(values)) - low) / (high - low)
    if len(ends) > NAMED:
        steep = sorted(faults, key=lambda module: -abs(faults[module].exponent))
        ends = {module: ends[module] for module in steep if module in ends}
    named = sorted(list(ends)[:NAMED], key=ends.__getitem__)
    heights = _apart([ends[module] for module in named], room=0.09)
    for module, height in zip(named, heights, strict=True):
        colour = RED if module in faults else BLUE
        # The line starts from the middle of the name's left side.
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (0, 0.5)}
        axes.annotate(
            module if len(module) <= LETTERS else f"…{module[-LETTERS:]}",
            (widest, 10 ** (low + ends[module] * (high - low))),
            (1.06, height),
            textcoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color=colour,
            arrowprops=line,
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], room: float) -> list[float]:
    """Ascending heights up to 1 with at least ``room`` between them, near where they were.

    Examples:
        >>> _apart([0.25, 0.25, 1.0, 1.0], 0.25)
        [0.125, 0.375, 0.75, 1.0]
    """
    clusters: list[list[float]] = []
    for height in heights:
        clusters.append([height])
        while len(clusters) > 1:
            below, above = clusters[-2:]
            if fmean(above) - fmean(below) >= room * (len(below) + len(above)) / 2:
                break
            clusters[-2:] = [below + above]
    apart = [
        fmean(cluster) + room * (place - (len(cluster) - 1) / 2)
        for cluster in clusters
        for place in range(len(cluster))
    ]
    tops = [1 - room * above for above in range(len(apart) - 1, -1, -1)]
    return [min(height, top) for height, top in zip(apart, tops, strict=True)]


@styled()
def draw_sweeps(sweeps: "Sequence[LrSweep]", path: Path) -> None:
    """Draw sweeps beside each other: loss over learning rate, a line for each width."""
    entries = [(f"width {w}", _line(sweeps[0], w)) for w in sweeps[0].widths]
    width = 0.9 + 3.0 * len(sweeps)
    legend = Legend([*entries, ("best", _BEST)], width - 0.9)
    figure = new_figure(width, 3.2 + legend.height)
    grid = figure.add_gridspec(2, len(sweeps), height_ratios=[legend.height, 2.5])
    legend.draw(figure, grid[0, :])
    curves = [sweep.losses(width) for sweep in sweeps for width in sweep.widths]
    finite = [v for curve in curves for v in curve.values() if 0 < v < math.inf]
    # The ceiling is above what the smallest rates give, if not above all.
    slowest = [v for curve in curves if 0 < (v := next(iter(curve.values()))) < math.inf]
    highest = max(finite, default=1.0)
    ceiling = 1.3 * min(highest, 3 * max(slowest, default=highest))
    lowest = min(finite, default=ceiling / 10)
    first = None
    for at, sweep in enumerate(sweeps):
        axes = figure.add_subplot(grid[1, at], sharex=first, sharey=first)
        first = first or axes
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(_power)
        _logarithmic(axes)
        axes.set_ylim(lowest / 1.5, ceiling)
        axes.set_xlabel("learning rate (log scale)")
        plain(axes)
        axes.tick_params(labelleft=not at)
        _curves(axes, sweep, ceiling)
        drift = f"best rate moves by {sweep.drift:+.1f} octaves"
        words = f"{drift} from width {sweep.widths[0]} to {sweep.widths[-1]}"
        axes.set_title(sweep.label, fontweight="bold", pad=16)
        axes.annotate(
            words, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=SMALL, color=GREY
        )
    figure.axes[-len(sweeps)].set_ylabel("final loss (log scale)")
    figure.savefig(path)


def _power(value: float, _: object = None) -> str:
    """A power of two, as it is written.

    Examples:
        >>> _power(2**-10)
        '2⁻¹⁰'
    """
    return "2" + str(round(math.log2(value))).translate(_RAISED)


def _line(sweep: "LrSweep", width: int) -> dict[str, Any]:
    """How the line of a width looks: the wider, the darker."""
    share = sweep.widths.index(width) / (len(sweep.widths) - 1)
    colour = tuple(a + (b - a) * share for a, b in zip(LIGHTEST, DARKEST, strict=True))
    return {"color": colour, "marker": "o", "markersize": 3, "zorder": 2}


def _curves(axes: "Axes", sweep: "LrSweep", ceiling: float) -> None:
    """A line for each width; the best points, joined by a line of their own."""
    for width in sweep.widths:
        losses, style = sweep.losses(width), _line(sweep, width)
        shown = [loss if loss < math.inf else math.nan for loss in losses.values()]
        axes.plot(list(losses), shown, **style)
        # What lies above the picture, or diverged, points there.
        above = [lr for lr, loss in losses.items() if loss > ceiling]
        axes.plot(above, [ceiling / 1.08] * len(above), "^", markersize=5, color=style["color"])
    best = {w: lr for w, lr in sweep.best.items() if not math.isnan(lr)}
    axes.plot(list(best.values()), [sweep.losses(w)[lr] for w, lr in best.items()], **_BEST)


def _logarithmic(axes: "Axes") -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
