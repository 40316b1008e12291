"""The layout of the package: what a file may be called, and where it may stand."""

import ast
import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType

import pytest

import nnlr
from tests.helpers import public_names, syntax

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "nnlr"
FILES = sorted(SOURCES.rglob("*.py"))
MODULES = [module.name for module in walk_packages(nnlr.__path__, "nnlr.")]

# What users may import; every other module has an underscore somewhere in its path.
PUBLIC = {
    *(
        "nnlr.checkpoint",
        "nnlr.cli",
        "nnlr.config",
        "nnlr.depth",
        "nnlr.errors",
        "nnlr.integrations",
    ),
    *("nnlr.optim", "nnlr.report", "nnlr.schemes", "nnlr.testing", "nnlr.torch7"),
    *("nnlr.integrations.accelerate", "nnlr.integrations.lightning"),
    *("nnlr.integrations.timm", "nnlr.integrations.transformers"),
}


def docstring(path: Path) -> str:
    """The docstring of a file."""
    return ast.get_docstring(syntax(path)) or ""


def imported(path: Path) -> set[str]:
    """The modules of nnlr that a file imports, or imports names from."""
    modules = set()
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def is_folder(name: str) -> bool:
    """Whether a module is a folder with an ``__init__.py``."""
    return SOURCES.joinpath(*name.split(".")[1:]).is_dir()


def test_no_underscore_means_public():
    """A module without an underscore in its path is one that the documentation names."""
    assert {name for name in MODULES if "._" not in name} == PUBLIC


@pytest.mark.parametrize("name", public_names(nnlr.schemes))
def test_a_schemes_file_is_called_like_it(name):
    """`nnlr.layer_decay` stands in `schemes/_layer_decay.py`, or deeper under its plain name."""
    path = Path(inspect.getfile(getattr(nnlr.schemes, name)))
    assert path.stem in {name, f"_{name}"}
    assert path.is_relative_to(SOURCES / "schemes")


def test_no_module_takes_the_place_of_a_public_name():
    """Importing a module sets it on its package: it may not be called like a function there."""
    for module in [nnlr, *(import_module(name) for name in PUBLIC if is_folder(name))]:
        taken = [
            name
            for name, value in vars(module).items()
            if inspect.ismodule(value)
            and value.__name__.startswith("nnlr.")
            and f"nnlr.{name}" not in PUBLIC
            and f"nnlr.integrations.{name}" not in PUBLIC
            and not name.startswith("_")
            and type(value) is ModuleType  # not a stand-in for a module of 0.1
        ]
        assert [] == taken, module.__name__


@pytest.mark.no_cover
def test_no_module_is_an_orphan():
    """Each private module is imported by another one."""
    everything = set().union(*map(imported, FILES))
    private = [name for name in MODULES if "._" in name and not is_folder(name)]
    assert [] == [name for name in private if name not in everything]


@pytest.mark.no_cover
def test_a_file_says_what_it_is_for():
    """The first line of its docstring is one sentence; that of a folder tells the data flow."""
    for path in FILES:
        text = docstring(path)
        assert text.partition("\n")[0].endswith((".", ":")), path
        if path.name == "__init__.py" and path.parent.name.startswith("_"):
            assert "Data flow:" in text, path


def test_no_file_is_long():
    """A module that does not fit in the head is two modules."""
    lengths = {
        str(path.relative_to(SOURCES)): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES
    }
    assert {} == {name: length for name, length in lengths.items() if length > 420}


def test_there_are_few_contracts():
    """Rules on imports that nobody remembers hold nothing together."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert 15 >= len(settings["tool"]["importlinter"]["contracts"])


def test_the_page_on_architecture_is_true():
    """Every folder and file of the top level is in its table, and every file it names exists."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    top = {path.name + ("" if path.suffix else "/") for path in SOURCES.iterdir()}
    top -= {"__init__.py", "__pycache__/", "py.typed", "_old_paths.py"}
    assert set() == {name for name in top if f"`{name}`" not in page}
    files = {str(path.relative_to(SOURCES)) for path in FILES}
    checkpoints = {f"checkpoint/{path.name}" for path in (SOURCES / "checkpoint").iterdir()}
    for name in re.findall(r"`([\w/]+\.py)`", page):
        exists = name in files or f"_apply/{name}" in files or f"checkpoint/{name}" in checkpoints
        assert exists or "my_" in name or name.startswith(("tests/", "nnlr/")), name
