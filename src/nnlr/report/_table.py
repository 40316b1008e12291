"""The plan as a table: of 80 columns for a terminal, or as Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from torch.optim import Optimizer

from nnlr._findings import Finding
from nnlr._rows.groups import Group
from nnlr._rows.layers import layers_of_rows
from nnlr._rows.rates import Bases
from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural, printable
from nnlr.report._algorithms import algorithm_lines
from nnlr.report._columns import Cells, Choice
from nnlr.report._fit import fitted
from nnlr.report._fold import Folding, Line
from nnlr.report._grid import grid, room_beside
from nnlr.report._markdown import block, code, markdown_grid
from nnlr.report._moves import ATTACH, mark, moving_lines, ways
from nnlr.report._text import amount, columns_of, options_text, wrapped

# Lines of a folded table, headings and footer included.
LIMIT: Final = 60

# Findings and ties that a folded table tells in full.
_TOLD: Final = 3

# Columns for names that are enough, and that are too few.
_ROOMY: Final = 32
_NARROW: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a table is drawn from: a plan, and what is wanted of it."""

    rows: Sequence[PlanRow]
    groups: Sequence[Group]
    bases: Bases
    label: str
    findings: Sequence[Finding]
    full: bool
    trained: bool
    choice: Choice
    optimizer: Optimizer | None

    @property
    def shown(self) -> list[PlanRow]:
        """The rows that get into the table."""
        return [row for row in self.rows if row.trainable or not self.trained]

    @property
    def counts(self) -> str:
        """How much there is."""
        size = amount(sum(row.numel for row in self.rows))
        return (
            f"{plural(len(self.rows), 'parameter')} ({size}), {plural(len(self.groups), 'group')}"
        )


def table(facts: Facts) -> str:
    """Draw the table; see :meth:`nnlr.Plan.table`."""
    cells = Cells(facts.shown, facts.optimizer)
    head = [f"{printable(facts.label)}: {facts.counts}", *_head(facts)]
    head = [piece for line in head for piece in wrapped(line)]
    foot = [piece for line in _foot(facts, cells) for piece in wrapped(line)]

    def body(lines: Sequence[Line], gap: int | None = None) -> list[str]:
        names = [line.label for line in lines]
        columns = cells.columns(lines, facts.choice)
        longest = max(map(columns_of, names), default=0)
        for title, least in (("numel", _ROOMY), ("tensors", _NARROW)):
            if facts.choice == Choice() and room_beside(columns) < min(longest, least):
                columns.pop(title, None)  # names that are not broken tell more
        return grid("parameter", names, columns, gap)

    room = LIMIT - len(head) - len(foot)
    if not facts.shown:
        drawn = []
    elif facts.full:
        drawn = body([Line(printable(row.name), (row,)) for row in facts.shown])
    else:
        drawn = _fitting(facts.shown, room, body)
    return "\n".join([*head, *drawn, *foot])


def markdown(facts: Facts) -> str:
    """Write the table as Markdown; see :meth:`nnlr.Plan.to_markdown`."""
    cells = Cells(facts.shown, facts.optimizer)

    def body(lines: Sequence[Line], gap: int | None = None) -> list[str]:
        columns = {"parameter": [code(line.label) for line in lines]}
        columns |= cells.columns(lines, facts.choice)
        if notes := columns.pop("", None):
            columns["notes"] = notes
        drawn = markdown_grid(columns, left=("parameter", "notes"))
        return drawn if gap is None else [*drawn[: gap + 2], "| ... |", *drawn[gap + 2 :]]

    lines = [f"**{code(facts.label)}**: {facts.counts}", "", *block(_head(facts)), ""]
    if facts.shown and facts.full:
        lines += body([Line(printable(row.name), (row,)) for row in facts.shown])
    elif facts.shown:
        lines += _fitting(facts.shown, LIMIT, body)
    return "\n".join([*lines, "", *block(_foot(facts, cells)), ""])


# Draws lines, with dots before one of them.
Body = Callable[[Sequence[Line], int | None], list[str]]


def _fitting(rows: Sequence[PlanRow], room: int, body: Body) -> list[str]:
    """The body of lines that are folded as far as there is need."""
    folding = Folding(rows, [_key(row) for row in rows], [_loose(row) for row in rows])
    lines, fits = fitted(folding, room, lambda lines: len(body(lines, None)))
    return body(lines, None) if fits else _cropped(lines, room, body)


def _cropped(lines: Sequence[Line], room: int, body: Body) -> list[str]:
    """The first and the last lines, as many as there is room for, and a word on the rest."""
    shown = room
    while True:
        first, last = shown - shown // 2, len(lines) - shown // 2
        drawn = body([*lines[:first], *lines[last:]], first)
        if (over := len(drawn) - (room - 1)) <= 0:
            rest = plural(len(lines) - shown, "more line")
            return [*drawn, f"... and {rest}: see table(full=True)"]
        shown -= max(1, over // 4)  # a line is rarely higher than that


def _key(row: PlanRow) -> object:
    """What a line tells of its rows: rates and settings as far as they act."""
    if not row.trainable:
        return row.state
    rates = (row.lr, row.weight_decay, row.lr_mult, row.wd_mult)
    options = options_text(row.options) if row.options else ""
    return (row.algorithm, options, *rates, row.eps_mult, row.init_mult, *ways(row))


def _loose(row: PlanRow) -> object:
    """What a line tells of its rows beside how large their rates are."""
    if not row.trainable:
        return row.state
    options = options_text(row.options) if row.options else ""
    return row.algorithm, options, row.weight_decay == 0, mark(row)


def _head(facts: Facts) -> list[str]:
    """Base rates, algorithms, and the reading of depth."""
    mode = "" if facts.bases.decay == "coupled" else f", decay {facts.bases.decay}"
    lines = algorithm_lines(facts.rows, facts.bases, mode, facts.optimizer)
    depth = layers_of_rows(facts.rows).summary
    return [*lines, depth] if depth else lines


def _foot(facts: Facts, cells: Cells) -> list[str]:
    """How much is trained; options, ties and findings."""
    states: dict[str, list[PlanRow]] = {"trained": [], "locked": [], "frozen": []}
    for row in facts.rows:
        states[row.state].append(row)
    counts = {
        state: f"{len(members):,} {state} ({amount(sum(row.numel for row in members))})"
        for state, members in states.items()
        if members
    }
    if facts.trained and (others := [counts[state] for state in counts if state != "trained"]):
        lines = [f"{counts.get('trained', 'none trained')}; not shown: {', '.join(others)}"]
    else:
        lines = [", ".join(counts.values())] if counts else []
    lines += [f"[{number}] {text}" for text, number in cells.footnotes.items()]
    if moving := moving_lines(facts.rows):
        lines += [*moving, ATTACH]
    tied = [f"{row.name} = {' = '.join(row.aliases)}" for row in facts.shown if row.aliases]
    if tied:
        lines.append(f"tied: {listed(tied, len(tied) if facts.full else _TOLD)}")
    told = facts.findings if facts.full else facts.findings[:_TOLD]
    lines += map(str, told)
    if rest := len(facts.findings) - len(told):
        lines.append(f"... and {plural(rest, 'more finding')}: see plan.findings")
    return lines
