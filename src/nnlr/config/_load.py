"""Recipes from files and from plain data."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final

from nnlr._text import shown
from nnlr.config._at import At, root
from nnlr.config._classes import OPTIMIZERS, SCHEDULERS, Kind, class_of
from nnlr.config._plain import plain
from nnlr.config._read import read
from nnlr.config._recipe import Recipe
from nnlr.config._scheme import decoded, relocated, scheme_of
from nnlr.errors import NnlrError

# Where an editor looks for the schema of a file.
SCHEMA_KEY: Final = "$schema"

KEYS: Final = tuple(field.name for field in fields(Recipe))

RATE: Final = (float, Mapping[str, float])


def load(
    source: str | os.PathLike[str] | Mapping[str, Any], *, allow: Iterable[str] = ()
) -> Recipe:
    """The recipe in a file, or in plain data.

    Args:
        source: The path of a ``.yaml``, ``.yml`` or ``.json`` file, or a mapping as read from
            one. Its keys are the fields of :class:`Recipe`; ``lr`` and ``weight_decay`` are
            required. The page ``docs/configuration.md`` has all forms.
        allow: Names of code that the file may name, ``"package.module:name"``; ``*`` stands for
            anything that the package itself defines. What they name is imported, and called.

    Raises:
        ConfigError: If the file cannot be read or is no recipe; with the file, the path of the
            key, and the nearest valid one.
        YamlMissingError: If it is YAML and PyYAML is not installed; a ModuleNotFoundError too.

    Examples:
        >>> recipe = load({
        ...     "lr": 1e-3,
        ...     "weight_decay": 0.05,
        ...     "scheme": [{"layer_decay": 0.75}, "no_weight_decay"],
        ...     "algorithms": {"class": "AdamW", "betas": [0.9, 0.95]},
        ...     "schedule": {"class": "CosineAnnealingLR", "T_max": 100},
        ... })
        >>> recipe.scheme
        layer_decay(0.75) * no_weight_decay()
    """
    at = root("", allow, source)
    data = read(source, at) if isinstance(source, str | os.PathLike) else plain(source, at)
    if not isinstance(data, dict):
        at.refuse(
            f"a recipe is a mapping with {', '.join(KEYS)}, got {shown(data)}. A scheme alone is "
            "read by nnlr.config.scheme."
        )
    for key in data:
        if key not in (*KEYS, SCHEMA_KEY):
            at.refuse_key(key, "a recipe has no", KEYS)
    for key in ("lr", "weight_decay"):
        if data.get(key) is None:
            at.refuse(f"a recipe needs {key!r}, the base rate that all multipliers refer to.")
    values = {key: _part(key, data[key], at / key) for key in KEYS if data.get(key) is not None}
    try:
        return Recipe(**values)
    except NnlrError as error:
        what = getattr(error, "what", "")
        raise relocated(error, at / what if what in KEYS else at) from error


def _part(key: str, data: Any, at: At) -> Any:  # noqa: ANN401 - of any shape
    """A field of a recipe from plain data."""
    match key:
        case "scheme":
            return scheme_of(data, at)
        case "algorithms":
            return _classes(data, OPTIMIZERS, at)
        case "schedule":
            return _classes(data, SCHEDULERS, at)
        case _:
            return decoded(data, RATE if key in {"lr", "weight_decay"} else (str,), at)


def _classes(data: Any, kind: Kind, at: At) -> Any:  # noqa: ANN401 - of any shape
    """One class with its settings, or several by name."""
    if not isinstance(data, dict) or "class" in data:
        return class_of(data, kind, at)
    strays = [key for key, value in data.items() if not isinstance(value, str | dict | None)]
    for key in strays or get_close_matches("class", map(str, data), 1):
        at.refuse_key(key, "without 'class' there is no", ("class",))
    return {
        key: None if value is None else class_of(value, kind, at / key)
        for key, value in data.items()
    }
