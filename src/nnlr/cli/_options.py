"""What several commands take: the options and arguments with their help and completion."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from nnlr._text import nearest_hint
from nnlr.cli import _complete


def one_of(*words: str) -> dict[str, Any]:
    """What an option needs that takes one of some words: a check, and completion."""

    def check(value: str | None) -> str | None:
        """Refuse another word, and name the nearest."""
        if value is None or value in words:
            return value
        hint = nearest_hint(value, words) or f"One of {', '.join(words)}."
        raise typer.BadParameter(f"{value!r} is unknown. {hint}")

    def complete(incomplete: str) -> list[str]:
        """The words that begin like this."""
        return [word for word in words if word.startswith(incomplete)]

    return {"callback": check, "autocompletion": complete}


# What several commands take.
Model = Annotated[
    str, Argument(metavar="MODEL", autocompletion=_complete.models, help="See below.")
]
Schemes = Annotated[
    list[str] | None,
    Option(
        "--scheme",
        "-s",
        metavar="NAME[=VALUE]",
        autocompletion=_complete.schemes,
        help="A scheme, such as layer_decay=0.75. Several multiply.",
    ),
]
Config = Annotated[
    Path | None,
    Option(
        "--config",
        "-c",
        metavar="FILE",
        help="YAML or JSON: a scheme, or a whole recipe; or recipe:NAME, a published one.",
    ),
]
Rate = Annotated[
    list[str] | None,
    Option("--lr", metavar="RATE", help="Base learning rate, or muon=0.02. [default: 1e-3]"),
]
WeightDecay = Annotated[
    list[str] | None,
    Option("--weight-decay", metavar="RATE", help="Base weight decay, likewise. [default: 0.05]"),
]
Mode = Annotated[
    str | None,
    Option(
        "--decay",
        metavar="MODE",
        help="coupled, independent or sqrt. [default: coupled]",
        **one_of("coupled", "independent", "sqrt"),
    ),
]
Arguments = Annotated[
    list[str] | None,
    Option("--arg", "-a", metavar="NAME=VALUE", help="An argument of what makes the model."),
]
Imports = Annotated[
    list[str] | None,
    Option("--allow-imports", metavar="NAME", help="What --config may import: package.module."),
]
Formats = Annotated[
    str | None,
    Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="table, json, csv, markdown or html. [default: by the ending of --out, or table]",
        **one_of("table", "json", "csv", "markdown", "html"),
    ),
]
RecipeFormats = Annotated[
    str | None,
    Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="table, json, or of one recipe yaml. [default: by the ending of --out, or table]",
        **one_of("table", "json", "yaml"),
    ),
]
Out = Annotated[Path | None, Option("--out", "-o", metavar="FILE", help="Write there.")]
OutOrPicture = Annotated[
    Path | None,
    Option("--out", "-o", metavar="FILE", help="Write there; a .png or .svg is a picture."),
]
Optimizers = Annotated[
    list[str] | None,
    Option(
        "--optimizer",
        metavar="CLASS",
        help="Of torch.optim, nnlr.optim.AdamW, or package.module:Class; or muon=Muon.",
        autocompletion=_complete.optimizers,
    ),
]
