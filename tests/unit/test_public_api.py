"""What the package exports, and what importing it loads."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnlr

SOURCES = Path(nnlr.__file__).parent
FORBIDDEN = "rich typer yaml numpy matplotlib sklearn transformers lightning accelerate peft timm"


def run(code: str) -> str:
    """Run code in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_surface_is_frozen(golden):
    """A public name comes or goes on purpose: the list is a file to be looked at."""
    golden("public_names", "\n".join(sorted(nnlr.__all__)))


@pytest.mark.parametrize("name", nnlr.__all__)
def test_every_name_can_be_had(name):
    """Each exported name loads, and is what its module calls so."""
    value = getattr(nnlr, name)
    assert inspect.ismodule(value) or value.__name__ == name


@pytest.mark.parametrize("name", nnlr.__all__)
def test_every_name_is_documented(name):
    """Each has a docstring, and each function one with an example that runs."""
    value = getattr(nnlr, name)
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        assert ">>>" in inspect.getdoc(value), f"{name} has no example"


def test_dir_and_star_agree_with_all():
    """`dir(nnlr)` shows the public names, and asking for others is an AttributeError."""
    assert set(nnlr.__all__) <= set(dir(nnlr))
    with pytest.raises(
        AttributeError, match="module 'nnlr' has no attribute 'layer_decya'"
    ):
        _ = nnlr.layer_decya
    with pytest.raises(
        AttributeError, match=r"'nnlr\.schemes' has no attribute 'rool'"
    ):
        _ = nnlr.schemes.rool
    assert nnlr.schemes.__all__ == dir(nnlr.schemes)


@pytest.mark.parametrize("first", nnlr.__all__)
def test_no_name_is_shadowed_by_a_module(first):
    """A submodule of the same name must not take a function's place once it is loaded."""
    assert first not in {
        path.stem for path in SOURCES.glob("*.py")
    } or inspect.ismodule(getattr(nnlr, first))


@pytest.mark.no_cover
def test_import_loads_torch_only():
    """`import nnlr` loads no other library, not even its hard dependencies."""
    code = "import sys, torch; before = set(sys.modules); import nnlr; "
    code += "print(' '.join({m.partition('.')[0] for m in set(sys.modules) - before}))"
    assert run(code) == "nnlr"


@pytest.mark.no_cover
def test_planning_loads_torch_only():
    """Resolving and building an optimizer need no other library; printing needs rich."""
    code = f"""
import sys, torch, nnlr
before = set(sys.modules)
model = torch.nn.Linear(1, 1)
plan = nnlr.resolve(model, nnlr.rule("*"), lr=1, weight_decay=0)
plan.optimizer(torch.optim.SGD); plan.vectors(); plan.to_json()
loaded = {{m.partition(".")[0] for m in set(sys.modules) - before}}
print(sorted(loaded & set({FORBIDDEN.split()!r}) - {{"numpy"}}))
str(plan)
print("rich" in sys.modules)
"""
    assert run(code).split("\n") == ["[]", "True"]


def test_no_file_is_long():
    """A module that does not fit in the head is two modules."""
    lengths = {
        str(path.relative_to(SOURCES)): len(
            path.read_text(encoding="utf-8").splitlines()
        )
        for path in SOURCES.rglob("*.py")
    }
    assert {} == {name: length for name, length in lengths.items() if length > 420}


def test_version_is_a_version():
    """The version is what the wheel gets."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", nnlr.__version__)
