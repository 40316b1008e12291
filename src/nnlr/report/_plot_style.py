"""The look of all pictures: sizes, colours and marks, for any eye and in grey.

Pictures are figures of matplotlib without pyplot: no window, no backend, no global state.
"""

import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any, Final

from nnlr._arguments import number
from nnlr._text import printable, shown
from nnlr.errors import NnlrError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

# Okabe and Ito's colours, safe for every kind of colour vision; marks tell them apart in grey.
BLUE: Final = "#0072B2"
RED: Final = "#D55E00"
COLOURS: Final = (BLUE, RED, "#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS: Final = "osD^vP*X"

INK: Final = "#222222"
GREY: Final = "#6F6F6F"
SPINE: Final = "#AAAAAA"
FAINT: Final = "#E4E4E4"
STRIP: Final = "#F0F0F0"
RESTING: Final = "#DDDDDD"

MAP: Final = "cividis"  # of rates in a map
RAMP: Final = "viridis"  # of lines in an order
_RAMP_END: Final = 0.78  # what comes after it is too light on white

SMALL: Final = 7  # points; nothing is smaller
TEXT: Final = 8
TITLE: Final = 9

WIDTH: Final = 7.0  # inches: a page; a column of two is 3.4
_WIDTHS: Final = (2.5, 30.0)
_LETTERS: Final = 32  # of a module's name

# Inches of a legend: a letter, what stands left of the words, a line.
_LETTER: Final = 0.054
_HANDLE: Final = 0.48
_LINE: Final = 0.165

_HEADING: Final = 0.088  # a letter of a heading

# Inches from one number of a scale to the next: beside each other, below each other.
_MARK: Final = {"x": 0.42, "y": 0.27}

_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": SPINE,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": TEXT,
    "figure.titlesize": TITLE,
    "figure.titleweight": "bold",
    "font.size": TEXT,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "text.color": INK,
    "text.parse_math": False,  # a name with a dollar is no formula
}


@contextmanager
def styled() -> Iterator[None]:
    """The style of pictures, whatever the user's is; afterwards the user's again."""
    try:
        import matplotlib.figure
        import matplotlib.style
    except ImportError as error:
        raise NnlrError(
            "A picture needs matplotlib, which is not installed.\n"
            "  Fix: pip install 'nnlr[plot]'. Or print the table instead.",
            package="matplotlib",
        ) from error
    with matplotlib.rc_context():
        matplotlib.style.use("default")
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> "Figure":
    """A white figure, in inches, that a notebook shows without pyplot too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined] # what IPython calls
    return figure


def _png(figure: "Figure") -> bytes:
    """The picture as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def as_width(width: object) -> float:
    """The width of a picture in inches, or refuse it."""
    return number(width, "width", minimum=_WIDTHS[0], maximum=_WIDTHS[1])


def as_path(path: object) -> Path:
    """Where to save a picture, or refuse it before it is drawn."""
    if not isinstance(path, str | PathLike):
        raise NnlrError(
            f"path must be that of a picture, such as 'rates.png', got {shown(path)}.", value=path
        )
    with styled():
        formats = new_figure(1, 1).canvas.get_supported_filetypes()
    if (suffix := Path(path).suffix.removeprefix(".").lower()) and suffix not in formats:
        raise NnlrError(
            f"path: matplotlib writes no pictures in the format {suffix!r}; it writes "
            f"{', '.join(sorted(formats))}.",
            value=path,
        )
    return Path(path)


def plain(axes: "Axes", grid: str = "y") -> None:
    """Axes with no more than a grid; ticks are made late, so they are told here how to look."""
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=SMALL, labelcolor=INK, pad=3)
    if grid:
        axes.grid(axis=grid, which="major", color=FAINT, linewidth=0.8, linestyle="-")  # type: ignore[arg-type]
        axes.spines["left" if grid == "y" else "bottom"].set_visible(False)


def title(figure: "Figure", words: str) -> None:
    """A heading, left above everything, in as many lines as it takes."""
    lines = fill(printable(words), int(figure.get_figwidth() / _HEADING))
    figure.suptitle(lines, x=0.01, ha="left")


class Note:
    """Remarks below everything."""

    def __init__(self, remarks: Sequence[str], width: float) -> None:
        self._lines = [line for remark in remarks for line in wrap(remark, int(width / _LETTER))]
        self.height = 0.13 * len(self._lines)  # inches

    def draw(self, figure: "Figure") -> None:
        """Write them."""
        if self._lines:
            words = "\n".join(self._lines)
            figure.supxlabel(words, x=0.01, ha="left", fontsize=SMALL, color=GREY)


class Legend:
    """What lines stand for, in a row of its own above their panel."""

    def __init__(self, entries: Sequence[tuple[str, dict[str, Any]]], width: float) -> None:
        room = max(int((width - _HANDLE) / _LETTER), 12)
        self._entries = [(fill(label, room), style) for label, style in entries if label]
        widest = max((_widest(label) for label, _ in self._entries), default=1)
        self._columns = max(int(width / (_HANDLE + widest * _LETTER)), 1)
        lines = [label.count("\n") + 1 for label, _ in self._entries]
        rows = math.ceil(len(lines) / self._columns)
        total = sum(lines) if self._columns == 1 else rows * max(lines, default=0)
        self.height = _LINE * total  # inches; 0 if there is nothing to tell

    def draw(self, figure: "Figure", where: "SubplotSpec") -> None:
        """Draw it in a place of the grid."""
        from matplotlib.lines import Line2D

        if not self._entries:
            return
        axes = figure.add_subplot(where)
        axes.set_axis_off()
        box = axes.legend(
            [Line2D([], [], **style) for _, style in self._entries],
            [label for label, _ in self._entries],
            loc="lower left",
            ncols=self._columns,
            borderaxespad=0,
            borderpad=0,
            columnspacing=1.2,
            handlelength=1.8,
        )
        box.set_in_layout(False)  # its place is its own


def _widest(text: str) -> int:
    """Letters of the longest line."""
    return max(map(len, text.split("\n")))


def ramp(count: int) -> list[Any]:
    """Colours of so many things in an order, dark to light."""
    import matplotlib

    shades = matplotlib.colormaps[RAMP]
    return [shades(_RAMP_END * at / max(count - 1, 1)) for at in range(count)]


def short_name(name: str, most: int = _LETTERS) -> str:
    """The end of a long name, which tells it apart.

    Examples:
        >>> short_name("head"), short_name("model.language_model.encoder.layers.11")
        ('head', '…anguage_model.encoder.layers.11')
    """
    name = printable(name)
    most = min(most, _LETTERS)
    return name if len(name) <= most else f"…{name[1 - most :]}"


def number_text(value: float, _: object = None) -> str:
    """A rate as short as it can be.

    Examples:
        >>> number_text(0.02), number_text(0.0001), number_text(2.5e-05), number_text(3.0)
        ('0.02', '1e-4', '2.5e-5', '3')
    """
    if value == 0 or 0.001 <= abs(value) < 10_000:
        return f"{value:.4g}"
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def marks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from a low to a high one, for a logarithmic scale.

    Examples:
        >>> marks(0.001, 0.1), marks(0.0007, 0.004)
        ([0.001, 0.003, 0.01, 0.03, 0.1], [0.001, 0.002])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)

    def within(digits: Sequence[int], every: int = 1) -> list[float]:
        values = [float(f"{d}e{power}") for power in powers[::every] for d in digits]
        return [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]

    choices: list[Callable[[], list[float]]] = [
        *(partial(within, digits) for digits in (range(1, 10), (1, 2, 5), (1, 3), (1,))),
        *(partial(within, (1,), every) for every in range(2, len(powers) + 1)),
    ]
    return next(values for choice in choices if len(values := choice()) <= most)


class Scale:
    """Where rates are drawn: logarithmically, with exact zeros on a strip of their own.

    Args:
        values: All that is drawn.
        axis: ``"x"`` or ``"y"``.
        size: Inches of the panel along it.
        strip: Inches of the strip of zeros.
        linear: Draw values that are near each other on a linear scale, where 0 belongs.
        top: A value that the scale reaches too.
    """

    def __init__(
        self,
        values: Sequence[float],
        axis: str,
        size: float,
        strip: float = 0.0,
        *,
        linear: bool = False,
        top: float = 0.0,
    ) -> None:
        self.axis = axis
        positive = [value for value in (*values, top) if 0 < value < math.inf]
        self.has_zero = any(value == 0 for value in values)
        self._most = min(max(int(size / _MARK[axis]), 2), 6)
        low, high = min(positive, default=1.0), max(positive, default=1.0)
        self.linear = linear and high < 20 * low
        self.empty = not positive
        self.low, self.high = -0.06 * 1.15 * high, 1.15 * high
        if self.linear:
            return
        widened = max(1.6 / math.sqrt(high / low), 1.0) * 1.25  # three times apart, at least
        self.low, self.high = low / widened, high * widened
        # The strip has its share of the panel.
        edge = (self.high / self.low) ** (strip / max(size - strip, strip))
        self._edge = min(edge, self.low / sys.float_info.min)  # below it there is nothing
        self.zero = self.low / self._edge**0.55

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        return value if value > 0 or self.linear else self.zero

    @property
    def marks(self) -> list[float]:
        """The numbers of a logarithmic scale."""
        return [] if self.empty else marks(self.low, self.high, self._most)

    def number(self, axes: "Axes") -> None:
        """Number an upright axis that matplotlib has scaled, such as a bar of colours."""
        if self.linear:
            axes.yaxis.set_major_locator(_nice(self._most - 1))
            axes.yaxis.set_major_formatter(number_text)
        else:
            axes.yaxis.set_ticks(self.marks, list(map(number_text, self.marks)))
            axes.yaxis.set_ticks([], minor=True)

    def apply(self, axes: "Axes", word: str) -> None:
        """Set up the axis; the strip of zeros is called by a word."""
        axis = self.axis
        scaled = axes.yaxis if axis == "y" else axes.xaxis
        limits = axes.set_ylim if axis == "y" else axes.set_xlim
        if self.linear:
            limits(self.low, self.high)
            scaled.set_major_locator(_nice(self._most - 1))
            scaled.set_major_formatter(number_text)
            return
        (axes.set_yscale if axis == "y" else axes.set_xscale)("log")
        places = self.marks
        texts = [number_text(mark) for mark in places]
        bottom = self.low
        if self.has_zero:
            bottom = self.low / self._edge
            band = axes.axhspan if axis == "y" else axes.axvspan
            band(bottom, self.low / self._edge**0.1, color=STRIP, linewidth=0)
            places, texts = [self.zero, *places], [word, *texts]
        limits(bottom, self.high)
        scaled.set_ticks(places, texts)
        scaled.set_ticks([], minor=True)


def _nice(most: int) -> Any:  # noqa: ANN401 - a locator of matplotlib
    """Few round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10])


def layer_ticks(axes: "Axes", axis: str, most: int = 8) -> None:
    """Whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    scaled = axes.yaxis if axis == "y" else axes.xaxis
    scaled.set_major_locator(
        MaxNLocator(nbins=most, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
