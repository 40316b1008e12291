"""What the command shows: text with colours where a terminal shows it, notes, progress."""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, ClassVar, Final, TextIO

from nnlr.errors import NnlrWarning

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

# What is coloured on a terminal, and how.
_STYLES: Final = {
    "error": "bold red",
    "warning": "bold yellow",
    "note": "bold cyan",
    "heading": "bold",
    "rule": "dim",
    "kind": "cyan",
    "added": "green",
    "removed": "red",
    "locked": "magenta",
}
_PATTERNS: Final = (
    r"^(?P<error>error|Error:)(?!\w)(?:\s(?P<kind>\[[\w-]+\]))?",
    r"^(?P<warning>warning)\b(?:\s(?P<kind>\[[\w-]+\]))?",
    r"^(?P<note>note)\b(?:\s(?P<kind>\[[\w-]+\]))?",
    r"^(?P<heading>parameter\b.*)$",
    r"(?P<rule>─+)",
    r"^(?P<added>added\b)",
    r"^(?P<removed>removed\b)",
    r"(?P<locked>\b(?:locked|frozen)\b)",
)


# What a terminal obeys, or reorders text by.
_CONTROLS: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)


def out(text: str) -> None:
    """Write a result to the output."""
    _write(text, sys.stdout)


def say(text: str) -> None:
    """Write what is not the result, such as an error, to the error stream."""
    _write(text, sys.stderr)


def note(text: str) -> None:
    """Say how a result came about, where it is not what one would expect."""
    say(f"note: {text}")


def _write(text: str, stream: TextIO | None) -> None:
    """Write lines as they are; with colours if a person sees them."""
    if stream is None:
        return
    text = _safe(text.rstrip("\n"))
    if not _is_coloured(stream):
        print(text, file=stream)
        return
    console = _console(stream)
    with console.capture() as capture:
        console.print(text, soft_wrap=True, markup=False, emoji=False)
    stream.write(capture.get())


def _safe(text: str) -> str:
    """A text whose control characters are written out, whoever wrote it."""
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)


def _is_coloured(stream: TextIO) -> bool:
    """Whether it is a terminal whose user did not switch colours off (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _console(stream: TextIO) -> "Console":
    """A console of rich that colours the words above."""
    from rich.console import Console
    from rich.highlighter import RegexHighlighter
    from rich.theme import Theme

    class Words(RegexHighlighter):
        highlights: ClassVar = [rf"(?m){pattern}" for pattern in _PATTERNS]

    return Console(file=stream, theme=Theme(_STYLES), highlighter=Words())


def _spinner(text: str) -> "Status":
    """A sign of work with a text, in which brackets are brackets."""
    from rich.text import Text

    return _console(sys.stderr).status(Text(_safe(text)))


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on a terminal what takes its time; what other libraries print goes beside the result."""
    is_seen = sys.stderr is not None and _is_coloured(sys.stderr)
    spinner = _spinner(f"{what} ...") if is_seen else nullcontext()
    with spinner, redirect_stdout(sys.stderr), _quiet():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Show warnings of nnlr as a line each, and those of others only if Python was asked to."""
    if sys.warnoptions:
        yield
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", NnlrWarning)
        yield
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        say(f"warning: {text}")
