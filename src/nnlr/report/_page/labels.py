"""The names of rows that are listed together, folded."""

from collections.abc import Sequence

from nnlr._rows.row import PlanRow
from nnlr.report._fold import Folding, Line


def labels(rows: Sequence[PlanRow]) -> list[str]:
    """Patterns in braces that stand for exactly the names of some rows, and for no other.

    Every row counts as equal to the others, whatever its rates are.
    """
    return [
        label
        for line in _lines(rows, 2)
        # What a star stands for may be more than these rows: numbers alone are folded there.
        for label in (
            [inner.label for inner in _lines(line.rows, 1)] if "*" in line.label else [line.label]
        )
    ]


def _lines(rows: Sequence[PlanRow], level: int) -> list[Line]:
    """Rows folded to a level."""
    alike = [None] * len(rows)
    return Folding(rows, alike, alike).at(level)
