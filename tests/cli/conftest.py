"""The command, run in this process."""

import sys

import pytest

from nnlr import cli

MODELS = """
import torch
from torch import nn

def make_model(depth=2, width=4):
    print("made")
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])

def on_cpu():
    layer = nn.Linear(2, 2)
    float(layer.weight.sum())
    return layer

def broken():
    raise ValueError("no weights\\nat all")

def leaves():
    raise SystemExit(3)

def pair():
    return nn.Linear(2, 2), None

def needs(inputs, outputs=2):
    return nn.Linear(inputs, outputs)

def passes_on(**settings):
    return Net(**settings)

def local(**settings):
    class Local(nn.Module):
        def __init__(self, classes=2):
            super().__init__()
    return Local(**settings)

class Net(nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.fc = nn.Linear(2, classes)

made = nn.Linear(3, 3)
number = 3
empty = nn.Identity
"""


@pytest.fixture
def nnlr_command(monkeypatch, capsys):
    """Run the command: its exit status, output and errors."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the command sets both for its process
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")

    def run(*arguments):
        return cli.main([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder with a file that makes models, in which the command runs."""
    (tmp_path / "makers.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "makers", raising=False)
    yield tmp_path
    sys.modules.pop("makers", None)
