"""The command line: ``nnlr show``, ``explain``, ``diff``, ``check``, ``code``, ``recipes``, ...

It needs typer and PyYAML, an extra: ``pip install "nnlr[cli]"``. Data flow: arguments ->
model -> plan -> text. The exit status is 0, or 1 if something was found or differs, 2 for
input that cannot be used, 3 for a bug in nnlr.
"""

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence

# Beyond 0, 1 and 2.
_BUG = 3
_INTERRUPTED = 130  # as shells write it: 128 and the number of the signal
_PIPE_CLOSED = 141


def main(
    arguments: Sequence[str] | None = None, run: Callable[[Sequence[str]], int] | None = None
) -> int:
    """Run the ``nnlr`` command.

    Args:
        arguments: What follows ``nnlr`` on the command line; ``None`` for that of the process.
        run: What runs them; for tests.

    Returns:
        The exit status.

    Examples:
        >>> main(["--version"])
        nnlr 0...
        0
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows '?' for it, rather than a traceback.
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="replace")
    try:
        status = (run or _runner())(sys.argv[1:] if arguments is None else arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ModuleNotFoundError as error:
        package = {"typer": "typer", "yaml": "PyYAML"}.get(error.name or "")
        if package is None:
            return _bug(error)
        _say(
            f"The command line needs {package}, which is not installed.\n"
            '  Fix: pip install "nnlr[cli]"'
        )
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough. Python would complain again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last resort
        return _bug(error)
    return status


def _runner() -> Callable[[Sequence[str]], int]:
    """What runs arguments; typer is an extra, and loaded on use."""
    from nnlr.cli._app import run

    return run


def _bug(error: Exception) -> int:
    """Show the traceback of an error that nobody foresaw."""
    _say("".join(traceback.format_exception(error)).rstrip())
    _say("\nThis is a bug in nnlr. Please report it, with the command and the lines above.")
    return _BUG


def _say(text: str) -> None:
    """Write to the error stream."""
    print(text, file=sys.stderr)  # noqa: T201 - the command's own output
