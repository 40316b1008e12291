"""The command line: ``nnlr demo``."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import nnlr
from nnlr.demo.options import RECIPES, Method, Options
from nnlr.errors import NnlrError

# Plain help: the same text in every terminal, and a traceback only where there is a bug.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_DEFAULT = Options()
_BASES = "Base lr and weight decay: " + ", ".join(
    f"{method} {recipe.lr:g} and {recipe.weight_decay:g}" for method, recipe in RECIPES.items()
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nnlr {nnlr.__version__}")
        raise typer.Exit


@app.callback()
def nnlr_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Layer-wise learning rates and weight decays for PyTorch."""


@app.command()
def demo(
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with MNIST's four IDX files, plain or .gz, to train on instead of "
            "scikit-learn's 1,797 digits.",
        ),
    ] = _DEFAULT.data,
    optimizer: Annotated[
        Method,
        typer.Option(
            metavar="|".join(Method),
            help="How to train: torch.optim.SGD or AdamW, or Torch7's way with a vector of "
            f"rates, which comes to the same as sgd. {_BASES}.",
        ),
    ] = _DEFAULT.optimizer,
    epochs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Passes over the training images.")
    ] = _DEFAULT.epochs,
    batch_size: Annotated[
        int,
        typer.Option(metavar="N", min=2, help="Images in each step; what is left over is spread."),
    ] = _DEFAULT.batch_size,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=2**32 - 1,
            help="Of the split, the initial weights and the batches.",
        ),
    ] = _DEFAULT.seed,
    device: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where to train: cpu, cuda, cuda:1, mps, ..."),
    ] = _DEFAULT.device,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to write movement.json and movement.png to."),
    ] = _DEFAULT.out,
) -> None:
    """Train a small network twice, and show how far each layer moved.

    Once at the rates declared on its layers (the first convolution locked, the second slow),
    once at one rate for all, from the same initial weights and on the same batches. On
    scikit-learn's digits this takes less than a minute on two cores; MNIST is 40 times as
    large.
    """
    options = Options(
        data=data,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        device=device,
        out=out,
    )
    with _errors_in_red():
        # torch and the rest load here, so that --help and a mistyped option are quick.
        from rich.console import Console

        from nnlr.demo.compare import demo as run

        run(options, Console(highlight=False))


@contextmanager
def _errors_in_red() -> Iterator[None]:
    """Turn nnlr's own errors into a message and exit status 1."""
    try:
        yield
    except NnlrError as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from None


def main() -> None:
    """Entry point of the ``nnlr`` command."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows '?' for it, rather than a traceback.
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="replace")
    app(prog_name="nnlr")
