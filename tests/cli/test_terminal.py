"""What a person at a terminal sees, and a program in a pipe does not."""

import io
import sys
import warnings
from types import SimpleNamespace

import pytest

from nnlr.cli import _terminal
from nnlr.errors import NnlrWarning


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Both streams are terminals; pytest replaces those of the process."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    streams = SimpleNamespace(stdout=Terminal(), stderr=Terminal(), warnoptions=[])
    monkeypatch.setattr(_terminal, "sys", streams)
    return streams


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("error [schedule-drift]: x", "error"),
        ("Error: x", "Error:"),
        ("warning: x", "warning"),
        ("note: x", "note"),
        ("parameter  lr", "parameter  lr" + " x" * 60 + " [bold]markup[/bold] :smile:"),
        ("removed 2 parameters", "removed"),
        ("head  0  locked", "locked"),
    ],
)
def test_words_are_coloured_on_a_terminal(terminal, text, word):
    """The text is the same without the codes, and never broken into other lines."""
    _terminal.out(f"{text}{' x' * 60} [bold]markup[/bold] :smile:")
    output = terminal.stdout.getvalue()
    assert f"m{word}\x1b[0m" in output
    assert "[bold]markup[/bold] :smile:" in output
    assert 1 == output.count("\n")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_switched_off(terminal, monkeypatch, name, value):
    """By https://no-color.org, or by a terminal that has none."""
    monkeypatch.setenv(name, value)
    _terminal.out("error: x")
    assert "error: x\n" == terminal.stdout.getvalue()


def test_no_colours_in_a_pipe(capsys):
    """Nor a spinner."""
    with _terminal.working("building"):
        pass
    _terminal.out("error: x\n")
    assert ("error: x\n", "") == capsys.readouterr()


def test_work_is_shown_on_a_terminal(terminal):
    """On the error stream, so that the output can be redirected."""
    with _terminal.working("building timm:resnet18"):
        pass
    assert "building timm:resnet18 ..." in terminal.stderr.getvalue()
    assert "" == terminal.stdout.getvalue()


def test_names_cannot_command_a_terminal(terminal, capsys):
    """What others wrote, such as an error, is shown: no codes, no marks of a library's."""
    with _terminal.working("reading [/x]\x1b[2J"):
        pass
    assert r"reading [/x]\x1b[2J ..." in terminal.stderr.getvalue()
    _terminal.out("head\x1b]0;title\x07\r\u202eab\n\tnext")
    assert "head\\x1b]0;title\\x07\\r\\u202eab\n" in terminal.stdout.getvalue()


def test_warnings_of_others_are_left_out(capsys):
    """Those of nnlr are a line each; what is printed goes to the error stream."""
    with _terminal.working("building"):
        warnings.warn("of a library", FutureWarning, stacklevel=1)
        for _ in range(2):
            warnings.warn("of nnlr", NnlrWarning, stacklevel=1)
        print("loading weights")  # noqa: T201
    assert ("", "loading weights\nwarning: of nnlr\n") == capsys.readouterr()


def test_warnings_that_python_was_asked_for(monkeypatch):
    """`python -W` and PYTHONWARNINGS decide."""
    monkeypatch.setattr(sys, "warnoptions", ["always"])
    with pytest.warns(FutureWarning, match="of a library"), _terminal.working("building"):
        warnings.warn("of a library", FutureWarning, stacklevel=1)


def test_closed_streams(monkeypatch):
    """Nothing is written, and nothing breaks."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with _terminal.working("building"):
        _terminal.out("x")
        _terminal.say("y")
