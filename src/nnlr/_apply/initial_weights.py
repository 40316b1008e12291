"""Refuse a model whose initial weights the plan scales and nobody has scaled."""

from collections.abc import Sequence

from torch import nn

from nnlr._model import marks
from nnlr._model.names import Source, unwrap
from nnlr._rows.row import PlanRow
from nnlr._text import plural, shown
from nnlr.errors import NnlrError


def refuse_unscaled(rows: Sequence[PlanRow], model: Source, init: str | None) -> None:
    """Refuse a model whose initial weights should have been scaled and are not."""
    if init is not None and not (isinstance(init, str) and init == "done"):
        raise NnlrError(f"init must be None or 'done', got {shown(init)}.", value=init)
    scaled = [row.name for row in rows if row.init_mult != 1]
    if not scaled or init == "done":
        return
    if isinstance(model, nn.Module) and marks.init_applied(unwrap(model)):
        return
    raise NnlrError(
        f"The plan scales the initial weights of {plural(len(scaled), 'parameter')}, and that "
        "has not been done: call nnlr.apply_init(model, plan) once, or pass init='done' if the "
        "weights are as they should be.",
        names=scaled,
    )
