"""``nnlr check``: what makes layer-wise rates go wrong, of a model and its plan."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch.optim import Optimizer

import nnlr
from nnlr._findings import Findings
from nnlr.cli._optimizer import built_optimizer
from nnlr.cli._output import Target, deliver
from nnlr.cli._python import described
from nnlr.cli._scheme import Options
from nnlr.cli._terminal import note, working
from nnlr.config import Recipe
from nnlr.errors import NnlrError
from nnlr.report._markdown import block, code


def check(
    model: str,
    options: Options,
    optimizers: Sequence[str] | None,
    target: Target,
    *,
    strict: bool,
) -> int:
    """Check a plan, the optimizer and the schedule of its recipe; 1 if something is wrong."""
    subject = options.subject(model)
    if subject.model is None:
        raise NnlrError(
            "check needs a model: a saved plan holds names and numbers only. See it by nnlr show.",
            value=model,
        )
    plan = options.plan(subject)
    recipe = options.recipe
    with working("checking"):
        optimizer = built_optimizer(plan, subject, optimizers, recipe)
        scheduler = None
        if optimizer is not None and recipe.schedule is not None:
            scheduler = _scheduler(recipe, optimizer)
        findings = nnlr.check(plan, optimizer, scheduler)
    views = {
        "table": lambda: str(findings),
        "json": lambda: json.dumps([asdict(finding) for finding in findings], indent=1),
        "markdown": lambda: _markdown(findings, plan.label),
        "html": lambda: plan.to_html(findings=findings),
    }
    deliver(views, target)
    return int(bool(findings.at_least("warning" if strict else "error")))


def _scheduler(recipe: Recipe, optimizer: Optimizer) -> Any:  # noqa: ANN401 - of several classes
    """The recipe's schedule; ``None`` if it lacks a setting, which only the run may know."""
    try:
        return recipe.scheduler(optimizer)
    except (TypeError, ValueError) as error:
        note(f"the schedule is not checked, as it cannot be made: {described(error)}")
        return None


def _markdown(findings: Findings, label: str) -> str:
    """The findings for a pull request's comment."""
    counts = repr(findings).removeprefix("Findings(").removesuffix(")")
    head = f"**{counts}** in {code(label)}"
    return "\n".join([head, "", *block(str(findings).splitlines())]) if findings else head
