"""The rows of a plan as CSV, for a spreadsheet or a data frame."""

import csv
import json
from collections.abc import Iterable
from io import StringIO
from typing import Final

from nnlr._rows.row import PlanRow
from nnlr._rows.to_dict import plain
from nnlr._text import printable
from nnlr.report._moves import moving_steps

_COLUMNS: Final = (
    *("name", "tower", "layer", "role", "shape", "numel", "state", "algorithm", "group"),
    *("lr", "weight_decay", "lr_mult", "wd_mult", "eps_mult", "init_mult", "options", "aliases"),
    "moves",
)

# What a spreadsheet takes for the beginning of a formula.
_FORMULA: Final = tuple("=+-@\t\r")


def csv_text(rows: Iterable[PlanRow]) -> str:
    """A heading, and a line for each row."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(map(_cells, rows))
    return out.getvalue()


def _cells(row: PlanRow) -> list[object]:
    facts = row._asdict() | {
        "tower": row.tower if row.depth is not None else None,
        "layer": None if row.depth is None else row.depth[0],
        "shape": "x".join(map(str, row.shape)),
        "state": row.state,
        "options": json.dumps(plain(row.options)) if row.options else "",
        "aliases": " ".join(row.aliases),
        "moves": "; ".join(
            f"{moves.unit}: {moves.setting} {moves.how}" for _, moves in moving_steps(row)
        ),
    }
    return [_safe(value) if isinstance(value, str) else value for value in map(facts.get, _COLUMNS)]


def _safe(text: str) -> str:
    """A text that no spreadsheet runs as a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
