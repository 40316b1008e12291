"""What several test files need."""

import inspect
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import nnlr

MODULES = {
    "checkpoint",
    "depth",
    "errors",
    "integrations",
    "optim",
    "report",
    "schemes",
    "testing",
}
MODULES |= {"torch7"}

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    """A script of examples/ as a module."""
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public_names(module: ModuleType) -> list[str]:
    """The names that a module exports: without an underscore; of nnlr also its public modules."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (not inspect.ismodule(value) or (module is nnlr and name in MODULES))
    )
