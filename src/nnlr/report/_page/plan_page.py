"""The page of a plan."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from nnlr._findings import Finding, Findings
from nnlr._rows.groups import Group
from nnlr._rows.layers import layers_of_rows
from nnlr._rows.rates import Bases
from nnlr._rows.row import PlanRow
from nnlr.report._course import RatesOverTime
from nnlr.report._moves import moves_by, moving_lines
from nnlr.report._page.course import courses
from nnlr.report._page.labels import labels
from nnlr.report._page.overview import PITCH, panels
from nnlr.report._page.records import records
from nnlr.report._page.render import render, render_view
from nnlr.report._page.scale import scales_of
from nnlr.report._text import options_text

# Rows that are written as a plain table too, for browsers that run no script.
_PLAIN: Final = 3000

# Names, folded, that are listed of a group.
_NAMED: Final = 6

_STATES: Final = ("trained", "locked", "frozen")


def plan_page(
    rows: Sequence[PlanRow],
    groups: Sequence[Group],
    bases: Bases,
    label: str,
    *,
    findings: Iterable[Finding],
    schedule: RatesOverTime | None,
) -> str:
    """Draw the page; see :meth:`nnlr.Plan.to_html`."""
    data = records(rows, bases)
    facts = {
        **_summary(rows, groups, bases, label, findings),
        "rows": rows if len(rows) <= _PLAIN else (),
        "mode": bases.decay,
        "moving": moving_lines(rows),
        "moves_by": moves_by,
        "depth": layers_of_rows(rows).summary.removeprefix("depth: "),
        "schedule": schedule,
        "courses": courses(schedule, groups) if schedule else [],
        "names": {row.name for row in rows},
        "described": _described(rows, groups),
        "filters": _filters(rows),
    }
    return render("plan.html", facts, data, scripts=("rows.js", "view.js", "plan.js"))


def notebook_view(
    rows: Sequence[PlanRow],
    groups: Sequence[Group],
    bases: Bases,
    label: str,
    *,
    findings: Iterable[Finding],
    table: str,
) -> str:
    """Draw what a notebook shows: the charts and the table, as an element with its own style."""
    summary = _summary(rows, groups, bases, label, findings)
    return render_view("notebook.html", {**summary, "table": table}, "notebook.css")


def _summary(
    rows: Sequence[PlanRow],
    groups: Sequence[Group],
    bases: Bases,
    label: str,
    findings: Iterable[Finding],
) -> dict[str, Any]:
    """What the page and the notebook's view both show."""
    scales = scales_of(rows)
    return {
        "label": label,
        "tally": tally(rows),
        "states": states(rows),
        "algorithms": _algorithms(rows, bases),
        "findings": Findings(findings),
        "panels": panels(rows, *scales),
        "pitch": PITCH,
        "groups": groups,
        "lr": scales.lr,
        "decay": scales.decay,
    }


def tally(rows: Sequence[PlanRow]) -> dict[str, int]:
    """How many tensors some rows are, and of how many elements."""
    return {"tensors": len(rows), "elements": sum(row.numel for row in rows)}


def states(rows: Iterable[PlanRow]) -> dict[str, dict[str, int]]:
    """The states that occur, each with its tally."""
    by_state: dict[str, list[PlanRow]] = {state: [] for state in _STATES}
    for row in rows:
        by_state[row.state].append(row)
    return {state: tally(members) for state, members in by_state.items() if members}


def _algorithms(rows: Iterable[PlanRow], bases: Bases) -> list[dict[str, Any]]:
    """The base rates and the tally of each algorithm; of the only one, which has no name."""
    by_name: dict[str | None, list[PlanRow]] = {name: [] for name in bases.algorithms}
    for row in rows:
        if row.trainable:
            by_name.setdefault(row.algorithm, []).append(row)
    return [
        {"name": name, "base": bases.of(name), **tally(members)}
        for name, members in (by_name or {None: []}).items()
    ]


def _described(rows: Sequence[PlanRow], groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Each group with its options as text and the beginning of its names, folded."""
    members: dict[str | None, list[PlanRow]] = {}
    for row in rows:
        members.setdefault(row.group, []).append(row)
    described = []
    for group in groups:
        names = labels(members[group.name])
        more = len(names) - _NAMED
        described.append(
            {
                "group": group,
                "options": options_text(group.options),
                "names": names[:_NAMED],
                "more": max(more, 0),
            }
        )
    return described


def _filters(rows: Sequence[PlanRow]) -> dict[str, list[str]]:
    """What the table can be filtered by: columns with more than one value."""
    columns: dict[str, Iterable[str | None]] = {
        "state": (row.state for row in rows),
        "role": (row.role for row in rows),
        "algorithm": (row.algorithm for row in rows),
        "tower": (row.tower for row in rows),
        "group": (row.group for row in rows),
    }
    values = {name: sorted({v for v in column if v}) for name, column in columns.items()}
    depths = sorted({row.depth[0] for row in rows if row.depth is not None})
    values["layer"] = [str(depth) for depth in depths]
    return {name: words for name, words in values.items() if len(words) > 1}
