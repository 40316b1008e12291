"""``nnlr config``: check a configuration, write one, and the JSON Schema of all."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnlr import config
from nnlr.cli._optimizer import classes_of
from nnlr.cli._output import deliver
from nnlr.cli._scheme import Options, configuration
from nnlr.cli._terminal import out as show
from nnlr.config._load import KEYS
from nnlr.config._yaml import written


def check(file: Path, imports: Sequence[str] | None) -> int:
    """Say what a configuration comes to."""
    recipe = Options(config=file, imports=imports).recipe
    data = configuration(file)
    keys = [key for key in KEYS if key in data]
    if keys == ["scheme"]:
        show(f"{file} is a valid scheme: {recipe.scheme!r}")
    else:
        fields = {key: data[key] for key in keys} | {"scheme": recipe.scheme}
        lines = [f"  {key}: {value}" for key, value in fields.items()]
        show("\n".join([f"{file} is a valid recipe:", *lines]))
    return 0


def schema(out: Path | None) -> int:
    """Write the JSON Schema of configurations."""
    deliver({"json": lambda: json.dumps(config.schema(), indent=2)}, (None, out))
    return 0


def dump(options: Options, optimizers: Sequence[str] | None, out: Path | None) -> int:
    """Write options as a configuration: YAML, or JSON by the ending of the file."""
    recipe = options.recipe
    if optimizers:
        recipe = replace(recipe, algorithms=classes_of(optimizers))
    data = config.dump(recipe)
    views = {
        "yaml": lambda: written(data),
        "json": lambda: json.dumps(data, indent=2),
    }
    deliver(views, (None, out))
    return 0
