"""The nnlr command: help, the list of schemes, errors and exit status."""

import io
import sys

import pytest

import nnlr
from nnlr import cli
from tests.helpers import hide_package, public_names


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process: its exit status, output and errors."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nnlr", *arguments])
        with pytest.raises(SystemExit, match=r"\d") as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    return run


def test_the_help_reads_as_agreed(run, golden):
    """Plain text in 80 columns, the same everywhere; the command alone shows it too."""
    status, output, _ = run("--help")
    assert 0 == status
    golden("cli_help", output.rstrip("\n"))
    assert "Usage: nnlr [OPTIONS] COMMAND" in "".join(run()[1:])


def test_colours_are_never_in_it(run, monkeypatch):
    """Not even where a workflow forces them."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "\x1b" not in run("--help")[1]


def test_it_lists_every_scheme(run, golden):
    """With its defaults and its first line, in 80 columns."""
    status, output, _ = run("schemes")
    assert 0 == status
    assert 80 >= max(map(len, output.splitlines()))
    for name in public_names(nnlr.schemes):
        assert f"\n{name}(" in f"\n{output}"
    golden("cli_schemes", output.rstrip("\n"))


def test_the_version_is_the_packages(run):
    """Through the entry point that the package installs."""
    assert (0, f"nnlr {nnlr.__version__}\n", "") == run("--version")


def test_a_typo_names_the_nearest_command(run):
    """As an error of the command line, with exit status 2."""
    status, _, errors = run("shemes")
    assert 2 == status
    assert "Did you mean 'schemes'?" in errors


def test_without_typer_it_says_what_to_install(run, monkeypatch):
    """No traceback, and exit status 2."""
    hide_package(monkeypatch, "typer")
    status, output, errors = run("schemes")
    assert (2, "") == (status, output)
    assert 'pip install "nnlr[cli]"' in errors


def test_another_missing_module_is_a_traceback():
    """It is a fault of the installation, not a missing extra."""

    def broken():
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        cli.main(broken)


def test_a_closed_output_is_no_crash(monkeypatch):
    """Python sets it to None; there is nothing to prepare."""
    monkeypatch.setattr(sys, "argv", ["nnlr", "--version"])
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit, match="0"):
        cli.main()


def test_a_terminal_that_lacks_a_character(monkeypatch):
    """It shows a question mark, and no traceback."""
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    cli.main(lambda: print(chr(0x2500), flush=True))  # noqa: T201
    assert b"?" == terminal.buffer.getvalue().strip()
