"""What a plan looks like: the table, the story of one row, the difference of two plans."""

from nnlr.report.differ import PlanDiff, diff
from nnlr.report.explainer import explain
from nnlr.report.tables import table

__all__ = ["PlanDiff", "diff", "explain", "table"]
