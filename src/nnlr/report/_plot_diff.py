"""The picture of what another plan changes: the old rate and the new one of every layer."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural
from nnlr.report._plot_plan import decay, learning, number_places, resting_word
from nnlr.report._plot_series import Layout, Part, layout_of
from nnlr.report._plot_style import (
    BLUE,
    GREY,
    RED,
    SPINE,
    Legend,
    Note,
    Scale,
    new_figure,
    plain,
    short_name,
    styled,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nnlr.report._diff import PlanDiff

# Inches: a panel across and above each other, a module, the least width of a tower.
_TALL: Final = 1.8
_ROW: Final = 0.19
_NARROW: Final = 1.5
_TOWERS: Final = 6
_STRIP: Final = {"x": 0.55, "y": 0.22}

_DOT: Final[dict[str, Any]] = {"linestyle": "", "zorder": 3, "clip_on": False, "markersize": 5}
_OLD: Final = _DOT | {"marker": "o", "color": GREY, "markerfacecolor": "white"}
_MARKS: Final = {
    "old": _OLD,
    "higher": _DOT | {"marker": "^", "color": RED},
    "lower": _DOT | {"marker": "v", "color": BLUE},
    "added": _DOT | {"marker": "P", "color": "#000000"},
    "removed": _DOT | {"marker": "X", "color": GREY},
}


class _Pair(NamedTuple):
    """A row in both plans; ``None`` where one of them lacks it."""

    old: PlanRow | None
    new: PlanRow | None

    @property
    def row(self) -> PlanRow:
        """The row that says where it stands."""
        row = self.new if self.new is not None and (self.new.depth or not self.old) else self.old
        return row if row is not None else self.new  # type: ignore[return-value]


class _Quantity(NamedTuple):
    """A rate or decay: what it is called, and how it is read."""

    name: str
    read: Callable[[PlanRow], float]

    def of(self, pair: _Pair) -> tuple[float | None, float | None]:
        """The old and the new value."""
        old, new = (None if row is None else self.read(row) for row in pair)
        return old, new

    def differs(self, pair: _Pair) -> bool:
        """Whether there is something to draw."""
        old, new = self.of(pair)
        return old != new


_QUANTITIES: Final = (_Quantity("learning rate", learning), _Quantity("weight decay", decay))


@styled()
def draw_diff(diff: "PlanDiff", width: float) -> "Figure":
    """Draw the rates and decays that differ."""
    pairs = [
        *(_Pair(old, new) for old, new in diff.changed),
        *(_Pair(None, row) for row in diff.added),
        *(_Pair(row, None) for row in diff.removed),
    ]
    shown = [quantity for quantity in _QUANTITIES if any(map(quantity.differs, pairs))]
    counts = [("changed", diff.changed), ("added", diff.added), ("removed", diff.removed)]
    texts = [(word, len(rows)) for word, rows in counts if rows]
    words = [
        f"{count:,} {word}" if at else f"{plural(count, 'parameter')} {word}"
        for at, (word, count) in enumerate(texts)
    ]
    if shown:
        return _Picture(pairs, shown, width).draw(", ".join(words), diff.unchanged)
    figure = new_figure(width, 0.6)
    title(figure, ", ".join(words) or "no difference")
    Note(["No rate and no weight decay differs."] if words else [], width).draw(figure)
    return figure


class _Picture:
    """What is drawn: pairs of rows, at places, in panels of quantities."""

    def __init__(
        self, pairs: Sequence[_Pair], quantities: Sequence[_Quantity], width: float
    ) -> None:
        self.pairs, self.quantities, self.width = pairs, quantities, width
        by_name = {pair.row.name: pair for pair in pairs}
        self.layout: Layout = layout_of(
            [pair.row for pair in pairs],
            lambda row: tuple(quantity.of(by_name[row.name]) for quantity in quantities),
        )
        self.parts = self.layout.largest(min(_TOWERS, max(int(width / _NARROW), 1)))
        self.axis = "x" if self.layout.is_named else "y"

    def draw(self, heading: str, unchanged: int) -> "Figure":
        """The whole figure."""
        kinds = {mark for quantity in self.quantities for *_, mark in self._arrows(quantity)}
        legend = Legend(
            [(word, style) for word, style in _MARKS.items() if word in kinds], self.width - 0.6
        )
        across = len(self.quantities) if self.layout.is_named else len(self.parts)
        down = 1 if self.layout.is_named else len(self.quantities)
        height = max(_ROW * self.parts[0].size, 0.5) if self.layout.is_named else _TALL
        rest = [part.key for part in self.layout.parts if part not in self.parts]
        remarks = [f"Not drawn: {listed(rest)}."] if rest else []
        if unchanged:
            remarks.append(f"{plural(unchanged, 'parameter', 'are')} the same in both.")
        note = Note(remarks, self.width)
        total = 0.75 + legend.height + down * (height + 0.3) + note.height
        figure = new_figure(self.width, total)
        title(figure, heading)
        grid = figure.add_gridspec(
            1 + down, across, height_ratios=[legend.height, *[height] * down]
        )
        legend.draw(figure, grid[0, :])
        for at, quantity in enumerate(self.quantities):
            scale = self._scale(quantity, height)
            for column, part in enumerate(self.parts):
                where = grid[1, at] if self.layout.is_named else grid[1 + at, column]
                axes = figure.add_subplot(where)
                plain(axes, self.axis)
                scale.apply(axes, self._zero(quantity))
                first = at == 0 if self.layout.is_named else column == 0
                self._label(axes, quantity, part, scale, first=first)
                self._draw(axes, quantity, part, scale)
        note.draw(figure)
        return figure

    def _scale(self, quantity: _Quantity, height: float) -> Scale:
        """The scale of a quantity."""
        values = [v for pair in self.pairs for v in quantity.of(pair) if v is not None]
        size = self.width / len(self.quantities) - 1 if self.layout.is_named else height
        return Scale(
            values, self.axis, max(size, 1.0), _STRIP[self.axis], linear=quantity.read is decay
        )

    def _zero(self, quantity: _Quantity) -> str:
        """What a value of 0 means."""
        rows = [row for pair in self.pairs for row in pair if row is not None]
        word = resting_word(rows) if quantity.read is learning else "0"
        return word.replace("/", "\n") if self.layout.is_named else word

    def _label(
        self, axes: "Axes", quantity: _Quantity, part: Part, scale: Scale, *, first: bool
    ) -> None:
        """The words at both axes of a panel."""
        name = quantity.name if scale.linear else f"{quantity.name} (log scale)"
        if self.layout.is_named:
            axes.set_ylim(part.size - 0.4, -0.6)
            names = [short_name(name, int(self.width * 5)) for name in part.names]
            axes.set_yticks(range(part.size), names)
            axes.tick_params(labelleft=first)
            axes.set_xlabel(name.replace(" (", "\n(") if self.width < 5 else name)
            return
        number_places(axes, part, len(self.parts))
        axes.tick_params(labelleft=first)
        axes.set_ylabel(name if first else "")
        if quantity is self.quantities[0] and len(self.parts) > 1 and not part.names:
            axes.set_title(short_name(part.key, int(self.width / len(self.parts) / 0.075)))
        if quantity is self.quantities[-1] and not part.names:
            axes.set_xlabel(self.layout.unit.partition(",")[0])

    def _arrows(
        self, quantity: _Quantity
    ) -> list[tuple[str, int, float | None, float | None, str]]:
        """Part, place, old and new value of every difference, and its mark in the legend."""
        arrows: dict[tuple[str, int, float | None, float | None, str], None] = {}
        for pair in self.pairs:
            if not quantity.differs(pair):
                continue
            old, new = quantity.of(pair)
            place = self.layout.place_of[pair.row.name]
            marks = ["old", "higher" if (new or 0) > (old or 0) else "lower"]
            if old is None or new is None:
                marks = ["added" if old is None else "removed"]
            for mark in marks:
                arrows[place.part, place.at, old, new, mark] = None
        return list(arrows)

    def _draw(self, axes: "Axes", quantity: _Quantity, part: Part, scale: Scale) -> None:
        """The differences of one panel: a line from the old value to the new one."""
        for key, at, old, new, mark in self._arrows(quantity):
            if key != part.key:
                continue
            value = old if mark in {"old", "removed"} else new
            ends = [scale.place(end) for end in (old, new) if end is not None]
            lines = axes.hlines if self.layout.is_named else axes.vlines
            lines(at, min(ends), max(ends), color=SPINE, linewidth=1.2, zorder=2)
            point = (at, scale.place(value or 0.0))
            axes.plot(
                *([end] for end in (point[::-1] if self.layout.is_named else point)), **_MARKS[mark]
            )
