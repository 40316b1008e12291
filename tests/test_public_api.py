"""What the package exports, and what importing it loads."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnlr
from tests.helpers import public_names

PUBLIC = public_names(nnlr)
SOURCES = Path(nnlr.__file__).parent
FORBIDDEN = "rich typer yaml numpy matplotlib sklearn transformers lightning accelerate peft timm"


def test_the_surface_is_frozen(golden):
    """A public name comes or goes on purpose: the list is a file to be looked at."""
    golden("public_names", "\n".join(sorted(PUBLIC)))


def test_every_name_can_be_had():
    """Each exported name loads, and is what its module calls so."""
    for name in PUBLIC:
        value = getattr(nnlr, name)
        assert inspect.ismodule(value) or value.__name__ == name, name


def test_every_name_is_documented():
    """Each has a docstring, and each function one with an example that runs."""
    for name in PUBLIC:
        value = getattr(nnlr, name)
        assert inspect.getdoc(value), f"{name} has no docstring"
        if inspect.isfunction(value):
            assert ">>>" in inspect.getdoc(value), f"{name} has no example"


def test_other_names_are_an_error():
    """Asking for a name that is not public is an AttributeError."""
    with pytest.raises(AttributeError, match="module 'nnlr' has no attribute 'layer_decya'"):
        _ = nnlr.layer_decya
    with pytest.raises(AttributeError, match=r"'nnlr\.schemes' has no attribute 'rool'"):
        _ = nnlr.schemes.rool


@pytest.mark.no_cover
def test_torch_alone_is_loaded():
    """By the import, by plans and optimizers, by measuring and printing.

    Nothing of torch that takes its time either: no compiler.
    """
    code = f"""
import sys, torch
before = set(sys.modules)
import nnlr, nnlr.optim, nnlr.report
loaded = {{m.partition(".")[0] for m in set(sys.modules) - before}}
print(*sorted(loaded - sys.stdlib_module_names), "torch._dynamo" in sys.modules)
before = set(sys.modules)
check = nnlr.report.coordinate_check(
    lambda w: (m := torch.nn.Linear(1, w), torch.optim.SGD(m.parameters(), lr=0.1)),
    [1, 2], lambda model: model(torch.ones(1, 1)).sum())
check.faults()
model = torch.nn.Linear(1, 1)
plan = nnlr.resolve(model, nnlr.rule("*"), lr=1, weight_decay=0)
plan.optimizer(torch.optim.SGD); plan.vectors(); plan.to_json()
loaded = {{m.partition(".")[0] for m in set(sys.modules) - before}}
print(sorted(loaded & set({FORBIDDEN.split()!r}) - {{"numpy"}}))
str(plan)
print("rich" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["nnlr False", "[]", "False", ""]


def test_version_is_a_version():
    """The version is what the wheel gets."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", nnlr.__version__)
