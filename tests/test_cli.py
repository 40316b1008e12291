"""The nnlr command: help, options, errors and exit status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import nnlr
from nnlr import cli
from nnlr.demo import compare
from nnlr.demo.options import Method, Options

SOURCES = Path(nnlr.__file__).parents[1]


def run(*arguments):
    """Run a command in this process; its result."""
    return CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "80"}, prog_name="nnlr")


def nnlr_process(*arguments, **environment):
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from nnlr.cli import main; main()", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCES), **environment},
        capture_output=True,
        check=False,
    )


@pytest.fixture
def seen(monkeypatch):
    """The options that reach the demo, which is not run."""
    options = []
    monkeypatch.setattr(compare, "demo", lambda given, console: options.append(given))
    return options


def tiny_mnist(folder):
    """Twelve images of noise for training, four for testing, in MNIST's format."""
    generator = torch.Generator().manual_seed(0)
    for prefix, count in (("train", 12), ("t10k", 4)):
        images = torch.randint(0, 256, (count, 28, 28), generator=generator)
        for kind, axes, values in (
            ("images", 3, images),
            ("labels", 1, torch.arange(count) % 10),
        ):
            lengths = b"".join(size.to_bytes(4, "big") for size in values.shape)
            content = bytes([0, 0, 8, axes]) + lengths + bytes(values.flatten().tolist())
            (folder / f"{prefix}-{kind}-idx{axes}-ubyte").write_bytes(content)
    return folder


class TestHelp:
    @pytest.mark.parametrize(
        ("name", "arguments"),
        [("cli_help", ["--help"]), ("cli_demo_help", ["demo", "--help"])],
    )
    def test_it_reads_as_agreed(self, golden, name, arguments):
        """Plain text in 80 columns, the same everywhere."""
        result = run(*arguments)
        assert result.exit_code == 0
        assert max(map(len, result.output.splitlines())) <= 80
        golden(name, result.output.rstrip("\n"))

    def test_colours_are_never_in_it(self, monkeypatch):
        """Not even where a workflow forces them."""
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        assert "\x1b" not in run("demo", "--help").output

    def test_it_loads_no_package_of_the_demo(self):
        """So that it is there at once."""
        code = (
            "import sys, nnlr.cli\nsys.exit(' '.join({'sklearn', 'matplotlib'} & set(sys.modules)))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
            capture_output=True,
            check=False,
        )
        assert result.stderr.strip() == b""

    def test_the_command_alone_shows_it(self):
        """Rather than an error."""
        result = run()
        assert "Usage: nnlr [OPTIONS] COMMAND" in result.output


def test_the_version_is_the_packages(monkeypatch, capsys):
    """Through the entry point that the package installs."""
    monkeypatch.setattr(sys, "argv", ["nnlr", "--version"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert f"nnlr {nnlr.__version__}\n" == capsys.readouterr().out


def test_a_closed_output_is_no_crash(monkeypatch):
    """Python sets it to None; there is nothing to prepare, and nobody to tell."""
    monkeypatch.setattr(sys, "argv", ["nnlr", "--version"])
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit, match="0"):
        cli.main()


class TestDemo:
    def test_without_options_it_takes_the_defaults(self, seen):
        """Those of Options, which the help shows too."""
        assert run("demo").exit_code == 0
        assert [Options()] == seen

    def test_every_option_arrives(self, seen, tmp_path):
        """As itself."""
        given = "--optimizer torch7 --epochs 3 --batch-size 16 --seed 7 --device cuda:1"
        places = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
        assert run("demo", *given.split(), *places).exit_code == 0
        expected = Options(
            data=tmp_path,
            optimizer=Method.torch7,
            epochs=3,
            batch_size=16,
            seed=7,
            device="cuda:1",
            out=tmp_path / "out",
        )
        assert [expected] == seen

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--optimizer", "lbfgs"],
            ["--epochs", "0"],
            ["--epochs", "many"],
            ["--batch-size", "1"],
            ["--seed", "-1"],
            ["--seed", str(2**32)],
            ["--sed", "1"],
            ["surplus"],
        ],
        ids=" ".join,
    )
    def test_a_bad_option_is_named_and_ends_with_status_2(self, seen, arguments):
        """Before anything runs."""
        result = run("demo", *arguments)
        assert result.exit_code == 2
        assert arguments[0] in result.stderr
        assert seen == []

    def test_an_error_is_red_and_ends_with_status_1(self, tmp_path):
        """On the error stream, in full, without a traceback."""
        arguments = ["demo", "--data", str(tmp_path / "nowhere")]
        result = CliRunner().invoke(cli.app, arguments, color=True)
        assert result.exit_code == 1
        assert result.stderr.startswith("\x1b[31mError: ")
        assert "nowhere: does not exist; expected a folder with MNIST's" in result.stderr
        assert "Traceback" not in result.output
        assert "\x1b" not in run(*arguments).output

    def test_a_bug_keeps_its_traceback(self, monkeypatch):
        """Only nnlr's own errors are turned into a message."""
        monkeypatch.setattr(compare, "demo", lambda given, console: given.no_such_option)
        assert isinstance(run("demo").exception, AttributeError)

    @pytest.mark.no_cover
    def test_it_runs_where_the_output_has_no_such_characters(self, tmp_path):
        """A stream of plain ASCII gets question marks, not a crash."""
        folder = tiny_mnist(tmp_path)
        arguments = [
            "demo",
            "--data",
            str(folder),
            "--epochs",
            "1",
            "--batch-size",
            "4",
        ]
        result = nnlr_process(*arguments, PYTHONIOENCODING="ascii", OMP_NUM_THREADS="1")
        assert b"" == result.stderr
        assert result.returncode == 0
        assert b"conv1 is locked and moved by exactly 0" in result.stdout
        assert result.stdout.isascii()
