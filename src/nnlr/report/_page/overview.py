"""The overview: layer by layer the rates of the roles, as bars on one logarithmic scale.

Roles that are treated alike in every layer share a chart, so that there are as many charts as
there are treatments. Where no scheme asked for depth, the parts of the model stand for layers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, NamedTuple

from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural, printable
from nnlr.report._moves import moves_by
from nnlr.report._page.scale import Scale
from nnlr.report._text import amount, rate

# Most lines of a chart of parts.
_PARTS: Final = 32

# Percent of a chart's width that the longest bar takes; the rest is for its number.
_WIDEST: Final = 62

# Pixels from line to line.
PITCH: Final = 20


class Bar(NamedTuple):
    """One line of a chart: the rows of its roles in a layer."""

    number: str  # of the layer; "" where there are no layers
    name: str
    top: int  # pixels
    width: float  # percent
    colour: str  # the class of its colour, or pattern
    text: str
    decay: float  # percent
    title: str  # the line in words


@dataclass(frozen=True)
class Chart:
    """The rates of some roles over the lines of a panel."""

    roles: tuple[str, ...]
    count: str
    decays: str  # the weight decays in words
    bars: tuple[Bar, ...]
    varied: bool  # whether the decay is not the same everywhere

    @property
    def height(self) -> int:
        """Pixels."""
        return PITCH * len(self.bars)


@dataclass(frozen=True)
class Panel:
    """The charts of a tower, or of the parts of a model."""

    title: str
    charts: tuple[Chart, ...]
    tower: str | None


class _Line(NamedTuple):
    """A layer, or a part of the model, and its rows."""

    number: str
    name: str
    rows: Sequence[PlanRow]


_Lines = Sequence[_Line]

# Learning rate, weight decay and algorithm of a trained row.
_Treatment = tuple[float, float, str | None]


def panels(rows: Sequence[PlanRow], lr: Scale, decay: Scale) -> list[Panel]:
    """A panel for each tower, and one for what is outside of the layers."""
    towers: dict[str, dict[int, list[PlanRow]]] = {}
    outside = []
    for row in rows:
        if row.depth is None:
            outside.append(row)
        else:
            towers.setdefault(row.tower or "", {}).setdefault(row.depth[0], []).append(row)
    drawn = []
    for tower, layers in towers.items():
        inside = [_Line(str(at), _name(layers[at]), layers[at]) for at in sorted(layers)]
        title = f"Layers of {printable(tower)}" if tower else "Layers"
        drawn.append(_panel(title, inside, lr, decay, tower))
    if outside:
        title = "Outside of the layers" if towers else "Parts"
        parts = [_Line("", name, members) for name, members in _parts(outside).items()]
        drawn.append(_panel(title, parts, lr, decay, None))
    return drawn


def _name(rows: Sequence[PlanRow]) -> str:
    """The module that some rows share, or the first words of their names."""
    paths = [row.name.split(".")[:-1] or [row.name] for row in rows]
    if shared := _shared(paths):
        return printable(".".join(shared[-2:]))
    beginnings = [path[: 1 + (path[1:2] != [] and path[1].isdecimal())] for path in paths]
    return listed(dict.fromkeys(".".join(beginning) for beginning in beginnings), 3)


def _shared(paths: Sequence[Sequence[str]]) -> list[str]:
    """The segments with which all of some paths begin."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False))
    return [column[0] for column in columns]


def _parts(rows: Sequence[PlanRow]) -> Mapping[str, list[PlanRow]]:
    """The rows by the beginnings of their names: as long as there is room for."""
    deepest = max(row.name.count(".") for row in rows)
    parts: dict[str, list[PlanRow]] = {}
    for depth in range(1, max(deepest, 1) + 1):
        longer: dict[str, list[PlanRow]] = {}
        for row in rows:
            modules = row.name.split(".")[:-1] or [row.name]
            longer.setdefault(printable(".".join(modules[:depth])), []).append(row)
        if parts and len(longer) > _PARTS:
            break
        parts = longer
    skipped = len(_shared([part.split(".")[:-1] for part in parts]))
    return {".".join(part.split(".")[skipped:]): members for part, members in parts.items()}


def _panel(title: str, lines: _Lines, lr: Scale, decay: Scale, tower: str | None) -> Panel:
    """The charts of some lines."""
    charts = [_chart(roles, lines, lr, decay) for roles in _alike(lines)]
    return Panel(title, tuple(charts), tower)


def _alike(lines: _Lines) -> Iterator[tuple[str, ...]]:
    """The roles in classes whose trained rows are treated alike wherever they meet.

    The class with the largest role comes first, that of roles that are nowhere trained last.
    """
    cells: dict[str, dict[int, set[_Treatment]]] = {}
    size: Counter[str] = Counter()
    for at, line in enumerate(lines):
        for row in line.rows:
            mine = cells.setdefault(row.role, {})
            if row.trainable:
                mine.setdefault(at, set()).add((row.lr, row.weight_decay, row.algorithm))
            size[row.role] += row.numel
    classes: list[tuple[list[str], dict[int, set[_Treatment]]]] = []
    for role, _ in size.most_common():
        mine = cells[role]
        for members, theirs in classes:
            both = mine.keys() & theirs.keys()
            alike = all(mine[at] == theirs[at] for at in both)
            if alike and _decays(mine) == _decays(theirs):
                members.append(role)
                theirs.update(mine)
                break
        else:
            classes.append(([role], dict(mine)))
    classes.sort(key=lambda each: not each[1])
    return (tuple(members) for members, _ in classes)


def _decays(cells: Mapping[int, set[_Treatment]]) -> set[tuple[bool, str | None]]:
    """Whether there is decay, and by which algorithms."""
    return {(decay > 0, name) for cell in cells.values() for _, decay, name in cell}


def _chart(roles: tuple[str, ...], lines: _Lines, lr: Scale, decay: Scale) -> Chart:
    """The bars of some roles, without the lines that have none of them."""
    mine = [line._replace(rows=[row for row in line.rows if row.role in roles]) for line in lines]
    every = [row for line in mine for row in line.rows]
    decays = sorted({row.weight_decay for row in every if row.trainable})
    size = amount(sum(row.numel for row in every))
    bars = [_bar(at, line, lr, decay) for at, line in enumerate(ln for ln in mine if ln.rows)]
    return Chart(
        roles,
        f"{plural(len(every), 'tensor')}, {size}",
        _range(decays) if decays else "",
        tuple(bars),
        varied=len(decays) > 1,
    )


def _bar(at: int, line: _Line, lr: Scale, decay: Scale) -> Bar:
    """The bar of a line: as long as its highest rate."""
    trained = [row for row in line.rows if row.trainable]
    others = Counter(row.state for row in line.rows if not row.trainable)
    highest = max((row.lr for row in trained), default=0.0)
    words = [_range(sorted({row.lr for row in trained}))] if trained else []
    words += [f"{number} {state}" if trained else state for state, number in others.items()]
    text = ", ".join(words) + (" ~" if any(moves_by(row, "lr") for row in trained) else "")
    where = f"layer {line.number}" if line.number else line.name
    return Bar(
        number=line.number,
        name=line.name,
        top=PITCH * at,
        width=round(_WIDEST * (lr.share(highest) if trained else 1), 2),
        colour=lr.colour(highest) if trained else next(iter(others)),
        text=text,
        decay=round(_WIDEST * decay.share(max((r.weight_decay for r in trained), default=0)), 2),
        title=f"{where}: {text}, {plural(len(line.rows), 'tensor')}",
    )


def _range(values: Sequence[float]) -> str:
    """The least and the greatest of ascending values."""
    texts = dict.fromkeys(map(rate, (values[0], values[-1])))
    return " \u2013 ".join(texts)
