"""``nnlr show``, ``explain`` and ``diff``: a plan, one of its rows, and what another changes."""

import json
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple

import nnlr
from nnlr._text import beginnings
from nnlr.cli._optimizer import built_optimizer
from nnlr.cli._output import Target, deliver
from nnlr.cli._scheme import Options
from nnlr.cli._terminal import working
from nnlr.errors import NnlrError
from nnlr.report import rates_over_time

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class View(NamedTuple):
    """What of a plan is shown: every row, trained ones only, which columns, steps, of an epoch."""

    full: bool
    trained: bool
    columns: str | None
    steps: int | None
    epoch_steps: int | None


def show(
    model: str, options: Options, optimizers: Sequence[str] | None, target: Target, view: View
) -> int:
    """Show the plan of a model; with steps the course of its schedule too."""
    subject = options.subject(model)
    plan = options.plan(subject)
    tells_state = "bytes" in (view.columns or "")
    recipe = options.recipe if tells_state and subject.model is not None else None
    with working("building the optimizer"):
        optimizer = built_optimizer(plan, subject, optimizers, recipe)
    if tells_state and optimizer is None:
        raise NnlrError("--columns bytes tells an optimizer's state: name it, --optimizer AdamW.")
    shown: dict[str, Any] = {
        "full": view.full,
        "trained": view.trained,
        "columns": view.columns,
        "optimizer": optimizer,
    }
    views: dict[str, Callable[[], str]] = {
        "table": lambda: _by_options(plan.table(**shown)),
        "json": plan.to_json,
        "csv": plan.to_csv,
        "markdown": lambda: plan.to_markdown(**shown),
        "html": plan.to_html,
    }
    picture: Callable[[], Figure] = plan.plot
    if view.steps is not None:
        course = _schedule_of(options, view.steps, plan), view.steps
        epoch = view.epoch_steps
        views["html"] = lambda: plan.to_html(
            schedule=rates_over_time(plan, *course, epoch_steps=epoch)
        )
        picture = partial(plan.plot_schedule, *course, epoch_steps=epoch)
    elif view.epoch_steps is not None:
        raise NnlrError("--epoch-steps says how long an epoch is in the course of --steps N.")
    deliver(views, target, picture)
    return 0


def _by_options(text: str) -> str:
    """A table that names options of the command where it names those of Python."""
    options = {
        "see table(full=True)": "see --full",
        "see table(columns='+moves')": "see --columns +moves",
        "see plan.findings": "see nnlr check",
    }
    for python, option in options.items():
        text = text.replace(python, option)
    return text


def _schedule_of(options: Options, steps: int, plan: "nnlr.Plan") -> Any:  # noqa: ANN401 - what nnlr.schedule takes
    """The schedule of the recipe, of so many steps where it leaves that to the run.

    Raises:
        NnlrError: If there is none, and nothing moves.
    """
    schedule = None if options.config is None else options.recipe.schedule
    if schedule is None and any(row.moves for row in plan):
        return None
    if schedule is None:
        raise NnlrError(
            "--steps shows the course of a schedule, and there is none, nor a scheme that moves: a "
            "recipe that --config names can have one, schedule: {class: CosineAnnealingLR, T_max: "
            "1000}."
        )
    if isinstance(schedule, Mapping):
        return {key: course and _of_length(course, steps) for key, course in schedule.items()}
    return _of_length(schedule, steps)


def _of_length(factory: Callable[..., Any], steps: int) -> Callable[..., Any]:
    """A scheduler that is told the steps of the run, if it needs them and its recipe says none."""
    total = signature(factory).parameters.get("total_steps")
    is_open = total is not None and total.default is total.empty
    return partial(factory, total_steps=steps) if is_open else factory


def explain(model: str, names: Sequence[str], options: Options, target: Target) -> int:
    """Explain the rows of a plan that names or patterns mean."""
    subject = options.subject(model)
    plan = options.plan(subject)
    rows = dict.fromkeys(name for pattern in names for name in _named(plan, pattern))

    def facts() -> str:
        """The rows as JSON, each with the factors of its trace."""
        saved = plan.to_dict()
        by_name = {row["name"]: row for row in saved["rows"]}
        steps = saved["steps"]
        told = [
            by_name[name] | {"trace": [steps[i] for i in by_name[name]["trace"]]} for name in rows
        ]
        return json.dumps(told, indent=1)

    views = {"table": lambda: "\n\n".join(map(plan.explain, rows)), "json": facts}
    deliver(views, target)
    return 0


def _named(plan: "nnlr.Plan", pattern: str) -> list[str]:
    """The rows that a name or a pattern means.

    Raises:
        NnlrError: If there are none.
    """
    if not set(pattern) & set("*?["):
        return [plan[pattern].name]
    names = [row.name for row in plan if fnmatchcase(row.name, pattern)]
    if not names:
        begin = beginnings(row.name for row in plan)
        raise NnlrError(
            f"{pattern!r} matches no parameter of {plan.label}. Names begin with: {begin}.",
            value=pattern,
        )
    return names


def diff(sides: Sequence[str], options: Options, target: Target, *, exit_code: bool) -> int:
    """Show what the second of two plans changes; of one model, or of two saved plans."""
    if len(sides) not in {2, 3}:
        raise NnlrError(
            "diff takes a model and two sides, nnlr diff MODEL A B, or two saved plans, "
            f"nnlr diff A.json B.json; got {len(sides)}.",
            value=sides,
        )
    *model, old, new = sides
    if options.arguments and not model:
        raise NnlrError("--arg is for a model: nnlr diff MODEL A B.", value=options.arguments)
    subject = options.subject(model[0]) if model else None
    before, after = (options.side(text, subject) for text in (old, new))
    difference = before.diff(after)
    views = {
        "table": lambda: str(difference),
        "json": lambda: json.dumps(difference.to_dict(), indent=1),
        "markdown": difference.to_markdown,
        "html": difference.to_html,
    }
    deliver(views, target, difference.plot)
    return int(exit_code and bool(difference))
