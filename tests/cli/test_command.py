"""The nnlr command itself: help, errors, exit status, completion, streams."""

import io
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import nnlr
import nnlr_command as launcher
from nnlr import cli
from nnlr.cli import _app, _complete
from nnlr.config._classes import OPTIMIZERS
from nnlr.report._columns import COLUMNS
from tests.helpers import hide_package, public_names

COMMANDS = ("show", "explain", "diff", "check", "schemes", "config")


def test_the_help_reads_as_agreed(nnlr_command, golden):
    """Plain text in 80 columns, the same everywhere; the command alone shows it too."""
    status, output, _ = nnlr_command("--help")
    assert 0 == status
    golden("cli_help", output.rstrip("\n"))
    assert "Usage: nnlr [OPTIONS] COMMAND" in "".join(nnlr_command()[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_short_help(nnlr_command, name):
    """It fits on a screen of 80 columns."""
    status, output, _ = nnlr_command(name, "-h")
    assert 0 == status
    assert 80 >= max(map(len, output.splitlines()))
    assert 50 > len(output.splitlines())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "config"])
def test_each_help_has_examples_that_are_commands(nnlr_command, name):
    """Every example begins with the command that it explains."""
    examples = nnlr_command(name, "--help")[1].partition("Examples:\n")[2].strip().splitlines()
    assert examples
    assert all(line.strip().startswith((f"nnlr {name}", "--")) for line in examples)


def test_colours_are_never_in_the_help(nnlr_command, monkeypatch):
    """Not even where a workflow forces them."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "\x1b" not in nnlr_command("--help")[1]


def test_the_version_is_the_packages(nnlr_command):
    """It is that of the installed package."""
    assert (0, f"nnlr {nnlr.__version__}\n", "") == nnlr_command("--version")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("shemes",), "Did you mean 'schemes'?"),
        (("show", "x", "--fromat", "json"), "--format"),
        (("show", "x", "--format", "jsno"), "Nearest: 'json'."),
        (("show", "x", "--decay", "sqr"), "Nearest: 'sqrt'."),
        (("show", "x", "--decay", "?"), "One of coupled, independent, sqrt."),
        (("show",), "Missing argument 'MODEL'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors_of_usage(nnlr_command, arguments, hint):
    """They are exit status 2, with the nearest name, and no traceback."""
    status, output, errors = nnlr_command(*arguments)
    assert (2, "") == (status, output)
    assert hint in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("package", "module", "arguments"),
    [("typer", "typer", ["schemes"]), ("PyYAML", "yaml", ["show", "torch.nn:Linear"])],
)
def test_a_missing_extra_says_what_to_install(
    nnlr_command, monkeypatch, package, module, arguments
):
    """No traceback, and exit status 2."""
    for name in [name for name in sys.modules if name.startswith(("nnlr.cli._", "nnlr.config"))]:
        monkeypatch.delitem(sys.modules, name)
        package_of, _, leaf = name.rpartition(".")
        monkeypatch.delattr(sys.modules.get(package_of), leaf, raising=False)
    hide_package(monkeypatch, module)
    status, output, errors = nnlr_command(*arguments)
    assert (2, "") == (status, output)
    assert f"needs {package}" in errors
    assert 'pip install "nnlr[cli]"' in errors


@pytest.mark.parametrize(
    "error",
    [ModuleNotFoundError("No module named 'nowhere'", name="nowhere"), KeyError("oh")],
    ids=["module", "key"],
)
def test_a_bug_shows_its_traceback(capsys, error):
    """With the words that it is a bug, and an exit status of its own."""

    def broken(arguments):
        raise error

    assert 3 == cli.main([], broken)
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert "bug in nnlr" in errors


def test_an_interrupt_is_quiet(capsys):
    """Ctrl-C ends with the status that shells expect, and without a word."""

    def interrupted(arguments):
        raise KeyboardInterrupt

    assert 130 == cli.main([], interrupted)
    assert ("", "") == capsys.readouterr()


def test_a_closed_pipe_is_quiet(monkeypatch):
    """`nnlr show ... | head` ends without a word when head has seen enough."""
    reader, writer = os.pipe()
    os.close(reader)
    errors = io.StringIO()
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", errors)

        def write(arguments):
            print("a line")  # noqa: T201
            return 0

        assert 141 == cli.main([], write)
    assert "" == errors.getvalue()


def test_a_closed_output_is_no_crash(monkeypatch):
    """Python sets it to None; there is nothing to prepare."""
    monkeypatch.setattr(sys, "stdout", None)
    assert 0 == cli.main(["--version"])


def test_a_terminal_that_lacks_a_character(monkeypatch):
    """It shows a question mark, and no traceback."""
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", terminal)

    def write(arguments):
        print(chr(0x2500), flush=True)  # noqa: T201
        return 0

    assert 0 == cli.main([], write)
    assert b"?" == terminal.buffer.getvalue().strip()


def test_the_arguments_are_those_of_the_process(monkeypatch, capsys):
    """Without arguments of a caller."""
    monkeypatch.setattr(sys, "argv", ["nnlr", "--version"])
    assert 0 == cli.main()
    assert capsys.readouterr().out.startswith("nnlr ")


# --- completion and the start ---------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("nnlr s", {"show", "schemes"}),
        ("nnlr show ti", {"timm:"}),
        ("nnlr show mak", {"makers.py"}),
        ("nnlr show sub/", {"sub/a.pt", "sub/deep/"}),
        ("nnlr show nowhere/x", {""}),
        ("nnlr show m -s layer_d", {"layer_decay"}),
        ("nnlr show m --columns role,alg", {"role,algorithm"}),
        ("nnlr show m -f ma", {"markdown"}),
        ("nnlr show m --columns +sh", {"+shape"}),
        ("nnlr check m --optimizer muon=Mu", {"muon=Muon"}),
        ("nnlr schemes lo", {"lora_plus"}),
    ],
)
def test_completion(models, monkeypatch, capsys, words, offers):
    """Commands, files, schemes and words of options, as bash asks for them."""
    (models / "sub" / "deep").mkdir(parents=True)
    (models / "sub" / "a.pt").touch()
    (models / "sub" / "notes.txt").touch()
    (models / "sub" / ".hidden.pt").touch()
    monkeypatch.setenv("_NNLR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit, match="0"):
        cli.main([])
    assert offers == set(capsys.readouterr().out.strip().split("\n"))


def test_completion_knows_every_scheme():
    """The names are written down, as the package with the schemes loads torch."""
    assert {*public_names(nnlr.schemes), "rule", "rules"} == set(_complete.SCHEMES)


def test_completion_knows_every_column_and_optimizer():
    """The names are written down, as what has them loads torch."""
    assert set(COLUMNS) == set(_complete.COLUMNS)
    short = {name for name in OPTIMIZERS.names if "." not in name}
    assert short == set(_complete.OPTIMIZERS)


def test_help_does_not_load_torch():
    """In a process of its own, started as the installed command is."""
    code = (
        "import sys, nnlr_command\n"
        "sys.argv = ['nnlr', 'show', '--help']\n"
        "assert 0 == nnlr_command.main()\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("Usage: nnlr show")


def test_a_command_runs_the_code_that_was_put_off():
    """Once, when a command needs it."""
    runs = []
    package = ModuleType("nnlr")
    package.__spec__ = SimpleNamespace(loader=SimpleNamespace(exec_module=runs.append))
    _app.run_package(package)
    assert [package] == runs
    _app.run_package(nnlr)
    assert [package] == runs


def test_the_launcher_takes_a_package_that_is_loaded(monkeypatch, capsys):
    """As in a notebook or a test."""
    monkeypatch.setattr(sys, "argv", ["nnlr", "--version"])
    assert 0 == launcher.main()
    assert nnlr is sys.modules["nnlr"]
    assert capsys.readouterr().out
