"""The plan as a table of 80 columns."""

from collections.abc import Sequence
from typing import Final

from nnlr.checks import Finding
from nnlr.errors import listed
from nnlr.groups import Group
from nnlr.report.fold import Line, fold, unfolded
from nnlr.report.text import amount, plural, rate, render
from nnlr.rows import Bases, PlanRow

LIMIT: Final = 60


def table(
    rows: Sequence[PlanRow],
    groups: Sequence[Group],
    bases: Bases,
    label: str,
    findings: Sequence[Finding],
    full: bool,  # noqa: FBT001  the one switch there is
) -> str:
    """Draw the table; see :meth:`nnlr.Plan.table`."""
    head = _head(rows, groups, bases, label)
    foot = _foot(rows, findings, full=full)
    if not rows:
        return "\n".join([*head, *foot])
    fixed = len(head) + len(foot) + 3  # column names, the rules above and below the rows
    lines = unfolded(rows) if full else fold(rows, LIMIT - fixed)
    hidden = 0 if full else max(0, len(lines) - (LIMIT - fixed))
    if hidden:
        hidden += 1
        foot = [f"... and {plural(hidden, 'more line')}; table(full=True) has all.", *foot]
        lines = lines[: len(lines) - hidden]
    return "\n".join([*head, _body(lines), *foot])


def _head(
    rows: Sequence[PlanRow], groups: Sequence[Group], bases: Bases, label: str
) -> list[str]:
    total = sum(row.numel for row in rows)
    mode = "" if bases.decay == "coupled" else f", decay {bases.decay}"
    return [
        f"{label}: {plural(len(rows), 'parameter')} ({amount(total)}), "
        f"{plural(len(groups), 'group')}",
        f"base lr {rate(bases.lr)}, base weight decay {rate(bases.weight_decay)}{mode}",
    ]


def _body(lines: Sequence[Line]) -> str:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    tensors = any(len(line.rows) > 1 for line in lines)
    notes = [_note(line.rows) for line in lines]
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    grid.add_column("parameter", overflow="fold", ratio=1)
    if tensors:
        grid.add_column("tensors", justify="right", no_wrap=True)
    grid.add_column("numel", justify="right", no_wrap=True)
    for column in ("lr_mult", "lr", "wd_mult", "decay"):
        grid.add_column(column, justify="right", no_wrap=True)
    if any(notes):
        grid.add_column("", overflow="fold", max_width=16)
    for line, note in zip(lines, notes, strict=True):
        row = line.rows[0]
        cells = [line.label]
        if tensors:
            cells.append(f"{len(line.rows):,}" if len(line.rows) > 1 else "")
        cells.append(amount(line.numel))
        if row.frozen:
            cells += ["-", "-", "-", "-"]
        else:
            cells += [rate(row.lr_mult), rate(row.lr), rate(row.wd_mult), rate(row.weight_decay)]
        if any(notes):
            cells.append(note)
        grid.add_row(*map(Text, cells))
    return render(grid)


def _note(rows: Sequence[PlanRow]) -> str:
    row = rows[0]
    state = "locked" if row.locked else "frozen" if row.frozen else ""
    options = ", ".join(f"{key}={_plain(value)}" for key, value in sorted(row.options.items()))
    tied = "tied" if len(rows) == 1 and row.aliases else ""
    return ", ".join(filter(None, (state, options, tied)))


def _plain(value: object) -> str:
    return rate(value) if isinstance(value, float) else str(value)


def _foot(rows: Sequence[PlanRow], findings: Sequence[Finding], *, full: bool) -> list[str]:
    states = {
        "trained": [row for row in rows if row.trainable],
        "locked": [row for row in rows if row.locked],
        "frozen": [row for row in rows if row.frozen],
    }
    counts = [
        f"{len(members):,} {state} ({amount(sum(row.numel for row in members))})"
        for state, members in states.items()
        if members
    ]
    lines = [", ".join(counts)] if counts else []
    tied = [f"{row.name} = {' = '.join(row.aliases)}" for row in rows if row.aliases]
    if tied:
        lines.append(f"tied: {listed(tied, len(tied) if full else 2)}")
    return [*_wrapped(lines), *_wrapped(list(map(str, findings)))]


def _wrapped(paragraphs: Sequence[str]) -> list[str]:
    from textwrap import wrap

    return [
        line
        for paragraph in paragraphs
        for line in wrap(paragraph, 80, subsequent_indent="  ", break_on_hyphens=False)
    ]
