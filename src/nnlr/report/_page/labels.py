"""The names of rows that are listed together, folded."""

from collections.abc import Sequence

from nnlr._rows.row import PlanRow
from nnlr.report._fold import Folding


def labels(rows: Sequence[PlanRow]) -> list[str]:
    """Patterns in braces that stand for exactly the names of some rows, and for no other.

    Every row counts as equal to the others, whatever its rates are.
    """
    alike = [None] * len(rows)
    return [line.label for line in Folding(rows, alike, alike).at(1)]
