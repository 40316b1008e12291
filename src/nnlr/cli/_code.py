"""``nnlr code``: a plan as plain torch code."""

from collections.abc import Sequence
from pathlib import Path

from nnlr.cli._optimizer import classes_of
from nnlr.cli._output import deliver
from nnlr.cli._scheme import Options
from nnlr.cli._terminal import working


def code(model: str, options: Options, optimizers: Sequence[str] | None, out: Path | None) -> int:
    """Write the groups of a plan, and the optimizer that is named or that the recipe has."""
    subject = options.subject(model)
    plan = options.plan(subject)
    classes = classes_of(optimizers) if optimizers else None
    if classes is None and subject.plan is None:
        classes = options.recipe.algorithms
    with working("writing code"):
        text = plan.to_code(classes, model=subject.model)
    deliver({"python": lambda: text}, ("python", out))
    return 0
