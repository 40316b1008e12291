"""``nnlr config``: check a configuration, write one, and the JSON Schema of all."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from nnlr import config
from nnlr.cli._output import deliver
from nnlr.cli._scheme import Options
from nnlr.cli._terminal import out as show


def check(file: Path, imports: Sequence[str] | None) -> int:
    """Say what a configuration comes to."""
    recipe = Options(config=file, imports=imports).recipe()
    show(f"{file} is valid: {recipe.scheme!r}")
    return 0


def schema(out: Path | None) -> int:
    """Write the JSON Schema of configurations."""
    deliver({"json": lambda: json.dumps(config.schema(), indent=2)}, (None, out))
    return 0


def dump(options: Options, out: Path | None) -> int:
    """Write options as a configuration: YAML, or JSON by the ending of the file."""
    data = config.dump(options.recipe())
    views = {
        "yaml": lambda: yaml.safe_dump(data, sort_keys=False),
        "json": lambda: json.dumps(data, indent=2),
    }
    deliver(views, (None, out))
    return 0
