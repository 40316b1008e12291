"""What several test files need."""

import inspect
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


def public_names(module: ModuleType) -> list[str]:
    """The names that a module exports: without an underscore; of nnlr also its public modules."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (not inspect.ismodule(value) or (module is nnlr and name in MODULES))
    )
