"""``nnlr recipes``: the published recipes, all of one, or those that fit a model."""

import json
from collections.abc import Callable, Sequence
from textwrap import fill

import nnlr
from nnlr.cli._model import load
from nnlr.cli._output import Target, deliver
from nnlr.cli._scheme import arguments_of
from nnlr.cli._terminal import working
from nnlr.config import PublishedRecipe, dump, recipe_names
from nnlr.config._published import FIELDS
from nnlr.config._yaml import written
from nnlr.errors import NnlrError


def recipes(
    name: str | None,
    wanted: tuple[str | None, Sequence[str] | None],
    batch: tuple[float | None, str | None],
    target: Target,
) -> int:
    """List the recipes, those that fit a model, or tell all of one.

    Raises:
        NnlrError: If there is no such recipe, or options do not go together.
    """
    model, arguments = wanted
    size, rule = batch
    if name is not None and model is not None:
        raise NnlrError("A name tells one recipe, --for lists those of a model: pass one of them.")
    if name is None and batch != (None, None):
        raise NnlrError("--batch-size is for one recipe: nnlr recipes NAME --batch-size 256.")
    if name is not None:
        recipe = nnlr.recipe(name, batch_size=size, batch_rule=rule)  # type: ignore[arg-type]
        deliver(_views_of(recipe), target)
        return 0
    if model is None:
        several = [nnlr.recipe(each) for each in recipe_names()]
        table = _by_field(several)
    else:
        subject = load(model, arguments_of(arguments))
        if subject.model is None:
            raise NnlrError("--for needs a model; a saved plan has its scheme.", value=model)
        with working("resolving"):
            several = nnlr.find_recipes(subject.model)
        table = "\n".join(f"{_line(each)}\n{_reason(each)}" for each in several)
        table = table or "No published recipe fits this model."
    facts = [{"name": one.name, "title": one.title, "reason": one.reason} for one in several]
    deliver({"table": lambda: table, "json": lambda: json.dumps(facts, indent=1)}, target)
    return 0


def _views_of(recipe: PublishedRecipe) -> dict[str, Callable[[], str]]:
    """One recipe in words, and as a configuration to go on from."""
    head = f"# {recipe.name}: {recipe.title}\n# {recipe.source[0]}\n"
    return {
        "table": lambda: str(recipe),
        "yaml": lambda: head + written(dump(recipe)),
        "json": lambda: json.dumps(dump(recipe), indent=2),
    }


def _by_field(several: Sequence[PublishedRecipe]) -> str:
    """All recipes, field by field."""
    parts = []
    for field in FIELDS:
        lines = [_line(one, "  ") for one in several if one.field == field]
        parts.append("\n".join([f"{field}:", *lines]))
    return "\n\n".join(parts)


def _line(recipe: PublishedRecipe, margin: str = "") -> str:
    """Its name and its title, in 80 columns."""
    line = f"{margin}{recipe.name:32} {recipe.title}"
    return fill(line, 80, subsequent_indent=f"{margin}{'':33}", break_on_hyphens=False)


def _reason(recipe: PublishedRecipe) -> str:
    """Why it is proposed, below its line."""
    return fill(recipe.reason, 80, initial_indent=f"{'':4}", subsequent_indent=f"{'':4}")
