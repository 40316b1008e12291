"""The optimizer of ``--optimizer``: a class by its name, or one for each algorithm."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer

import nnlr
from nnlr._text import nearest_hint
from nnlr.cli import _python
from nnlr.cli._model import Subject
from nnlr.config import Recipe
from nnlr.config._classes import OPTIMIZERS
from nnlr.errors import NnlrError


def built_optimizer(
    plan: "nnlr.Plan", subject: Subject, texts: Sequence[str] | None, recipe: Recipe | None = None
) -> Optimizer | None:
    """The optimizer that a plan builds of the classes that are named, else of its recipe.

    Returns:
        The optimizer; ``None`` where neither names one.

    Raises:
        NnlrError: If there is no such class, it does not fit the plan, or there is no model.
    """
    if texts and subject.model is None:
        raise NnlrError("--optimizer is for a model; a saved plan holds names and numbers only.")
    classes = classes_of(texts) if texts else None if recipe is None else recipe.algorithms
    if classes is None:
        return None
    optimizer: Optimizer = plan.optimizer(classes)
    return optimizer


def classes_of(texts: Sequence[str]) -> Any:  # noqa: ANN401 - a class, or one for each algorithm
    """The class of optimizers that is named; or one for each algorithm, by ``name=class``.

    Raises:
        NnlrError: If there is no such class, or there are several without names.
    """
    named = dict(text.split("=", 1) for text in texts if "=" in text)
    if not named and len(texts) == 1:
        return _class(texts[0])
    if len(named) < len(texts):
        raise NnlrError(
            "--optimizer is one class, or one for each algorithm: --optimizer muon=Muon "
            "--optimizer adamw=AdamW.",
            value=texts,
        )
    return {algorithm: _class(name) for algorithm, name in named.items()}


def _class(name: str) -> Callable[..., Optimizer]:
    """A class by the name that a recipe has for it, or of another package by its path."""
    module, colon, path = name.partition(":")
    if colon:
        cls = _python.find(module, path, ())
        if not (isinstance(cls, type) and issubclass(cls, Optimizer)):
            raise NnlrError(f"--optimizer {name!r} is no class of torch.optim.Optimizer.")
        return cls
    if name not in OPTIMIZERS.names:
        hint = nearest_hint(name, OPTIMIZERS.names) or "Of another package: package.module:Class."
        raise NnlrError(f"There is no optimizer {name!r}. {hint}", value=name)
    return OPTIMIZERS.names[name]
