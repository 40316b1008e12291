"""Every script of examples/ has a test, and runs from the shell as its first lines say."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import EXAMPLES, example, hide_package

SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
OWN_TEST = {"fsdp2_torchrun"}  # torchrun starts it; its own test does
NEEDS_NOTHING = {"pretrain_gpt"}  # besides nnlr and torch


def test_each_has_a_test():
    """A file here is called like the script or folder that it tests."""
    folders = {path.parent.name for path in EXAMPLES.glob("*/*.py")}
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert {*SCRIPTS, *folders} == tests - {"all"}


NEEDS = {
    "classify_text": "matplotlib",
    "finetune_vit": "timm",
    "lora_plus": "peft",
    "finetune_transformers": "transformers",
    "lightning_unfreezing": "lightning",
    "mup_coordinate_check": "matplotlib",
    "mup_lr_transfer": "sklearn",
}


@pytest.mark.parametrize("name", sorted({*SCRIPTS} - OWN_TEST - NEEDS_NOTHING))
def test_each_says_what_to_install_before_anything_else(name, monkeypatch):
    """In an environment that has nnlr alone."""
    hide_package(monkeypatch, NEEDS[name])
    with pytest.raises(SystemExit, match=r"Fix: pip install \w+"):
        example(name)


def test_the_one_for_torchrun_says_so(capsys, monkeypatch):
    """Started alone it would look for its world in vain."""
    monkeypatch.setattr(sys, "argv", ["fsdp2_torchrun.py", "one"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SystemExit, match="2"):
        example("fsdp2_torchrun").main()
    assert "start it with torchrun" in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.parametrize("name", sorted({*SCRIPTS} - OWN_TEST))
def test_each_runs(name, tmp_path):
    """With its own settings, to the end, and prints what came out."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3
