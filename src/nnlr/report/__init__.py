"""What a plan looks like, and what it does to a model that is trained with it.

The table, the story of one row and the difference of two plans are what :class:`nnlr.Plan`
prints. :func:`coordinate_check` and :func:`lr_sweep` measure whether a parametrization
carries over from width to width.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnlr.report.coordinates import coordinate_check
    from nnlr.report.differ import PlanDiff, diff
    from nnlr.report.explainer import explain
    from nnlr.report.flatness import CoordinateCheck
    from nnlr.report.sweep import LrSweep, lr_sweep
    from nnlr.report.tables import table

# Name -> the module of this package it lives in; loaded when first asked for. No module
# may be called like a name: once loaded it would take the name's place.
_HOME = {
    "CoordinateCheck": "flatness",
    "LrSweep": "sweep",
    "PlanDiff": "differ",
    "coordinate_check": "coordinates",
    "diff": "differ",
    "explain": "explainer",
    "lr_sweep": "sweep",
    "table": "tables",
}

__all__ = [
    "CoordinateCheck",
    "LrSweep",
    "PlanDiff",
    "coordinate_check",
    "diff",
    "explain",
    "lr_sweep",
    "table",
]


def __getattr__(name: str) -> object:
    """Load a name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'nnlr.report' has no attribute {name!r}")
    value: object = getattr(import_module(f"nnlr.report.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The names."""
    return list(__all__)
