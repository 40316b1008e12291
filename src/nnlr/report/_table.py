"""The plan as a table of 80 columns."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Final

from torch.optim import Optimizer

from nnlr._findings import Finding
from nnlr._rows.groups import Group
from nnlr._rows.layers import depth_text, layers_of_rows
from nnlr._rows.rates import Bases
from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural, printable
from nnlr.report._algorithms import algorithm_lines
from nnlr.report._fold import Line, folds
from nnlr.report._markdown import block, code, grid
from nnlr.report._text import WIDTH, amount, at_dots, load_rich, options_text, rate, render

# Lines of a folded table, headings and footer included.
LIMIT: Final = 60

# Fewest columns that a parameter's name gets, whatever else there is to say.
_NARROWEST: Final = 24

# Most columns for the name of an algorithm.
_WIDEST: Final = 12

# Findings and ties that a folded table tells in full.
_TOLD: Final = 3

# Text of a group's options -> the number it is shown under.
Footnotes = Mapping[str, int]


def table(
    rows: Sequence[PlanRow],
    groups: Sequence[Group],
    bases: Bases,
    label: str,
    findings: Sequence[Finding],
    *,
    full: bool,
    optimizer: Optimizer | None,
) -> str:
    """Draw the table; see :meth:`nnlr.Plan.table`."""
    counts = f"{plural(len(rows), 'parameter')} ({amount(sum(row.numel for row in rows))})"
    mode = "" if bases.decay == "coupled" else f", decay {bases.decay}"
    head = [
        f"{label}: {counts}, {plural(len(groups), 'group')}",
        *algorithm_lines(rows, bases, mode, optimizer),
    ]
    if not rows:
        return "\n".join(head)
    if depth := layers_of_rows(rows).summary:
        head += wrap(depth, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    texts = dict.fromkeys(options_text(row.options) for row in rows if row.options)
    footnotes = {text: number for number, text in enumerate(texts, start=1)}
    foot = _foot(rows, findings, footnotes, full=full)
    if full:
        return "\n".join(
            [*head, *_body([Line(printable(row.name), (row,)) for row in rows], footnotes), *foot]
        )
    room = LIMIT - len(head) - len(foot)
    lines: list[Line] = []
    for lines in folds(rows):
        if len(lines) <= room and len(body := _body(lines, footnotes)) <= room:
            return "\n".join([*head, *body, *foot])
    return "\n".join([*head, *_cropped(lines, footnotes, room), *foot])


def markdown(
    rows: Sequence[PlanRow],
    groups: Sequence[Group],
    bases: Bases,
    label: str,
    findings: Sequence[Finding],
    *,
    full: bool,
    optimizer: Optimizer | None,
) -> str:
    """The table as Markdown; see :meth:`nnlr.Plan.to_markdown`."""
    counts = f"{plural(len(rows), 'parameter')} ({amount(sum(row.numel for row in rows))})"
    mode = "" if bases.decay == "coupled" else f", decay {bases.decay}"
    lines = [f"**{code(label)}**: {counts}, {plural(len(groups), 'group')}", ""]
    lines += ["; ".join(algorithm_lines(rows, bases, mode, optimizer)), ""]
    texts = dict.fromkeys(options_text(row.options) for row in rows if row.options)
    footnotes = {text: number for number, text in enumerate(texts, start=1)}
    folded = [Line(row.name, (row,)) for row in rows]
    if not full:
        for folded in folds(rows):
            if len(folded) <= LIMIT:
                break
    columns = _columns(folded, footnotes)
    notes = {"note": columns.pop("")} if "" in columns else {}
    names = {"parameter": [code(line.label) for line in folded]}
    if rows:
        lines += grid({**names, **columns, **notes}, left=("parameter", "note"))
    return "\n".join([*lines, "", *block(_foot(rows, findings, footnotes, full=full)), ""])


def _cropped(lines: list[Line], footnotes: Footnotes, room: int) -> list[str]:
    """The first and the last lines, as many as there is room for, and a word on the rest."""
    shown = room
    while True:
        first, last = shown - shown // 2, len(lines) - shown // 2
        body = _body([*lines[:first], *lines[last:]], footnotes, gap=first)
        if (over := len(body) - (room - 1)) <= 0:
            rest = plural(len(lines) - shown, "more line")
            return [*body, f"... and {rest}: see table(full=True)"]
        shown -= max(1, over // 4)  # a line is rarely higher than that


def _body(lines: Sequence[Line], footnotes: Footnotes, gap: int | None = None) -> list[str]:
    """The table itself, with dots before the line at ``gap``."""
    rich = load_rich()
    columns = _columns(lines, footnotes)
    taken = sum(max(map(len, (title, *cells))) + 2 for title, cells in columns.items())
    notes = columns.get("", [])  # these can be broken between words
    words = max((len(word) for note in notes for word in note.split()), default=0)
    spare = max(map(len, notes), default=0) - words
    room = max(WIDTH - taken, min(_NARROWEST, WIDTH - taken + spare))
    box = rich.box.SIMPLE_HEAD
    grid = rich.table.Table(box=box, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    least = max(1, min(_NARROWEST, WIDTH - taken))
    grid.add_column("parameter", no_wrap=True, min_width=least)
    for title in columns:
        wrapped = title == ""
        grid.add_column(title, justify="left" if wrapped else "right", no_wrap=not wrapped)
    for index, (line, *cells) in enumerate(zip(lines, *columns.values(), strict=True)):
        if index == gap:
            grid.add_row("...")
        name = "\n".join(at_dots(line.label, room))
        grid.add_row(*map(rich.text.Text, [name, *cells]))
    return render(grid).splitlines()


def _columns(lines: Sequence[Line], footnotes: Footnotes) -> dict[str, list[str]]:
    """Titles and cells of every column but the names; those with nothing to say are out."""
    first = [line.rows[0] for line in lines]
    columns = {
        "layer": [depth_text(line.rows) for line in lines],
        "algorithm": [_short(printable(row.algorithm or "")) for row in first],
        "tensors": [f"{len(line.rows):,}" if len(line.rows) > 1 else "" for line in lines],
        "numel": [amount(line.numel) for line in lines],
    }
    for title in ("lr_mult", "lr", "wd_mult", "decay"):
        name = "weight_decay" if title == "decay" else title
        columns[title] = ["-" if row.frozen else rate(getattr(row, name)) for row in first]
    columns[""] = [_note(line, footnotes) for line in lines]
    if {row.wd_mult for row in first} <= {0.0, 1.0}:
        del columns["wd_mult"]
    return {title: cells for title, cells in columns.items() if any(cells)}


def _short(name: str) -> str:
    """The name of an algorithm; its line above the table has the whole of a long one."""
    return name if len(name) <= _WIDEST else f"{name[: _WIDEST - 3]}..."


def _note(line: Line, footnotes: Footnotes) -> str:
    """What the numbers do not say: state, roles under a cut name, options, ties."""
    row = line.rows[0]
    notes = [row.state if not row.trainable else ""]
    if line.cut:
        roles = list(dict.fromkeys(member.role for member in line.rows))
        notes.append(", ".join(roles) if len(roles) <= 2 else "mixed")
    if row.options:
        notes.append(f"[{footnotes[options_text(row.options)]}]")
    if len(line.rows) == 1 and row.aliases:
        notes.append("tied")
    return ", ".join(filter(None, notes))


def _foot(
    rows: Sequence[PlanRow], findings: Sequence[Finding], footnotes: Footnotes, *, full: bool
) -> list[str]:
    states: dict[str, list[PlanRow]] = {"trained": [], "locked": [], "frozen": []}
    for row in rows:
        states[row.state].append(row)
    counts = [
        f"{len(members):,} {state} ({amount(sum(row.numel for row in members))})"
        for state, members in states.items()
        if members
    ]
    lines = [", ".join(counts)]
    lines += [f"[{number}] {text}" for text, number in footnotes.items()]
    tied = [f"{row.name} = {' = '.join(row.aliases)}" for row in rows if row.aliases]
    if tied:
        lines.append(f"tied: {listed(tied, len(tied) if full else _TOLD)}")
    told = findings if full else findings[:_TOLD]
    lines += map(str, told)
    if rest := len(findings) - len(told):
        lines.append(f"... and {plural(rest, 'more finding')}: see plan.findings")
    return [
        piece
        for paragraph in lines
        for piece in wrap(paragraph, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    ]
