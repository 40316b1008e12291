"""The pictures of the coordinate check and of the sweep; they need matplotlib."""

import math
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

from nnlr._text import shown
from nnlr.errors import NnlrError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nnlr.report._scaling.coordinate_result import Coordinate, CoordinateCheck
    from nnlr.report._scaling.lr_sweep import LrSweep

# Okabe and Ito's blue and vermilion, safe for every kind of colour vision.
BLUE: Final = "#0072B2"
RED: Final = "#D55E00"
GREY: Final = "#6F6F6F"
FAINT: Final = "#E4E4E4"

# Narrow to wide: lighter to darker, so that the order can be seen without the legend.
LIGHTEST: Final = (0.62, 0.79, 0.92)
DARKEST: Final = (0.03, 0.19, 0.42)

MARKERS: Final = "osD^vP*X"
NAMED: Final = 9  # modules named at their lines
LETTERS: Final = 28  # of their names
SHOWN: Final = 3  # steps that get a panel of their own


def draw_coordinates(checks: "Sequence[CoordinateCheck]", path: Path) -> None:
    """Draw checks below each other: sizes at initialisation, then changes, over width."""
    columns = max(len(_shown(check.steps)) for check in checks)
    figure = new_figure((1.6 + 2.5 * columns, 0.4 + 2.9 * len(checks)))
    rows: list[list[Axes]] = []
    for check, part in zip(
        checks, figure.subfigures(len(checks), 1, squeeze=False)[:, 0], strict=True
    ):
        faults = check.faults()
        title = f"{check.label}: {'not flat' if faults else 'every module is flat'}"
        part.suptitle(title, x=0.01, ha="left", fontweight="bold", color=RED if faults else BLUE)
        rows.append(list(part.subplots(1, columns, squeeze=False)[0]))
        for axes in rows[-1]:
            _plain(axes)
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
    axes.set_title(title, fontsize=10, loc="left", color=GREY)
    axes.set_xlabel("width", fontsize=9)
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
            markersize=5,
            linewidth=1.6,
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
    heights = _apart([ends[module] for module in named], room=0.085)
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
            fontsize=9,
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


def draw_sweeps(sweeps: "Sequence[LrSweep]", path: Path) -> None:
    """Draw sweeps beside each other: loss over learning rate, a line for each width."""
    figure = new_figure((1.6 + 4.2 * len(sweeps), 4.6))
    row = figure.subplots(1, len(sweeps), sharex=True, sharey=True, squeeze=False)[0]
    curves = [sweep.losses(width) for sweep in sweeps for width in sweep.widths]
    finite = [v for curve in curves for v in curve.values() if 0 < v < math.inf]
    # The ceiling is above what the smallest rates give, if not above all.
    slowest = [v for curve in curves if 0 < (v := next(iter(curve.values()))) < math.inf]
    highest = max(finite, default=1.0)
    ceiling = 1.3 * min(highest, 3 * max(slowest, default=highest))
    lowest = min(finite, default=ceiling / 10)
    for sweep, axes in zip(sweeps, row, strict=True):
        axes.set_xscale("log", base=2)
        _logarithmic(axes)
        axes.set_ylim(lowest / 1.5, ceiling)
        axes.set_xlabel("learning rate")
        _plain(axes)
        _curves(axes, sweep, ceiling)
        axes.set_title(sweep.label, fontsize=12, fontweight="bold", loc="left", pad=24)
        drift = f"best rate moves by {sweep.drift:+.1f} octaves"
        axes.annotate(
            f"{drift} from width {sweep.widths[0]} to {sweep.widths[-1]}",
            (0, 1),
            (0, 8),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=10,
            color=GREY,
        )
    row[0].set_ylabel("final loss")
    # Curves are low in the middle.
    row[0].legend(title="width", frameon=False, loc="upper center", alignment="left")
    figure.savefig(path)


def _curves(axes: "Axes", sweep: "LrSweep", ceiling: float) -> None:
    """A line for each width; the best points, joined by a line of their own."""
    best = sweep.best
    for index, width in enumerate(sweep.widths):
        losses = sweep.losses(width)
        share = index / (len(sweep.widths) - 1)
        colour = tuple(a + (b - a) * share for a, b in zip(LIGHTEST, DARKEST, strict=True))
        axes.plot(
            list(losses),
            [loss if loss < math.inf else math.nan for loss in losses.values()],
            marker="o",
            markersize=3.5,
            linewidth=1.8,
            color=colour,
            label=str(width),
            zorder=2,
        )
        # What lies above the picture, or diverged, points there.
        above = [lr for lr, loss in losses.items() if loss > ceiling]
        axes.plot(above, [ceiling / 1.08] * len(above), "^", markersize=6, color=colour)
    best_lrs = {w: lr for w, lr in best.items() if not math.isnan(lr)}
    axes.plot(
        list(best_lrs.values()),
        [sweep.losses(width)[lr] for width, lr in best_lrs.items()],
        linestyle="--",
        linewidth=1.4,
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgewidth=1.8,
        color=RED,
        label="best",
        zorder=3,
    )


def new_figure(size: tuple[float, float]) -> "Figure":
    """A figure without pyplot: no window, no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NnlrError(
            "A picture needs matplotlib, which is not installed.\n"
            "  Fix: pip install 'nnlr[plot]'. Or print the table instead.",
            package="matplotlib",
        ) from error
    return Figure(figsize=size, dpi=150, layout="constrained")


def as_path(path: object) -> Path:
    """Where to save a picture, or refuse it before it is drawn."""
    if not isinstance(path, str | PathLike):
        raise NnlrError(
            f"path must be that of a picture, such as 'rates.png', got {shown(path)}.", value=path
        )
    formats = new_figure((1, 1)).canvas.get_supported_filetypes()
    if (suffix := Path(path).suffix.removeprefix(".").lower()) and suffix not in formats:
        raise NnlrError(
            f"path: matplotlib writes no pictures in the format {suffix!r}; it writes "
            f"{', '.join(sorted(formats))}.",
            value=path,
        )
    return Path(path)


def _logarithmic(axes: "Axes") -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")


def _plain(axes: "Axes") -> None:
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both", labelsize=9)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color("#AAAAAA")
