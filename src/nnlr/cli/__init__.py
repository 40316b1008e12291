"""The command line: ``nnlr schemes`` lists the published recipes.

It needs typer, an extra: ``pip install "nnlr[cli]"``.
"""

import io
import re
import sys
from collections.abc import Callable, Iterator
from inspect import Parameter, Signature, getdoc, isfunction, signature
from textwrap import fill
from typing import Annotated

import nnlr

_WIDTH = 80


def recipes() -> Iterator[str]:
    """Every published scheme: its call with the defaults, and the first line on it."""
    for name, scheme in sorted(vars(nnlr.schemes).items()):
        if isfunction(scheme):
            # Types take more room than they help.
            plain = [
                parameter.replace(annotation=Parameter.empty)
                for parameter in signature(scheme).parameters.values()
            ]
            call = name + str(Signature(plain))
            call = re.sub(r"<function (\w+) at 0x\w+>", r"\1", call)
            line = (getdoc(scheme) or "").partition("\n")[0].replace("``", "")
            yield fill(call, _WIDTH, subsequent_indent=" " * (len(name) + 1))
            yield fill(line, _WIDTH, initial_indent="    ", subsequent_indent="    ")


def run() -> None:
    """Read the arguments and run the command that they name.

    Raises:
        ModuleNotFoundError: If typer is not installed.
    """
    import typer

    # Plain help: the same text in every terminal, and a traceback only where there is a bug.
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"nnlr {nnlr.__version__}")
            raise typer.Exit

    @app.callback()
    def nnlr_command(
        version: Annotated[
            bool,
            typer.Option(
                "--version",
                callback=show_version,
                is_eager=True,
                help="Show the version and exit.",
            ),
        ] = False,
    ) -> None:
        """Layer-wise learning rates and weight decays for PyTorch."""

    @app.command()
    def schemes() -> None:
        """List every published scheme with its defaults."""
        typer.echo("\n".join(recipes()))

    app(prog_name="nnlr")


def main(command: Callable[[], None] = run) -> None:
    """Entry point of the ``nnlr`` command."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows '?' for it, rather than a traceback.
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="replace")
    try:
        command()
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        print(  # noqa: T201 - the command's own output
            'The command line needs typer, which is not installed.\n  Fix: pip install "nnlr[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
