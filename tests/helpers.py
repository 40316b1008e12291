"""What several test files need."""

import ast
import functools
import inspect
import sys
from collections.abc import Iterable
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor, nn

import nnlr

MODULES = {
    "checkpoint",
    "config",
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


@functools.cache
def syntax(path: Path) -> ast.Module:
    """The syntax tree of a file, parsed once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def example(name: str) -> ModuleType:
    """A script of examples/ as a module; it may import the scripts beside it."""
    path = EXAMPLES / f"{name}.py"
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def hide_package(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Let imports of a package fail, as where it is not installed; also of what is loaded of it.

    Python looks a submodule up by its whole name first, so that hiding the package is not enough.
    """
    loaded = [name for name in sys.modules if name.partition(".")[0] == package]
    for name in {package, *loaded}:
        monkeypatch.setitem(sys.modules, name, None)


def thinned(cases: Iterable[object], step: int) -> list[ParameterSet]:
    """Every so many of some cases in the short run, and all of them in the full one."""
    return [
        pytest.param(case, marks=() if at % step == 0 else pytest.mark.full)
        for at, case in enumerate(cases)
    ]


def public_names(module: ModuleType) -> list[str]:
    """The names that a module exports: without an underscore; of nnlr also its public modules."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (not inspect.ismodule(value) or (module is nnlr and name in MODULES))
    )


def same_weights(model: nn.Module, other: nn.Module) -> bool:
    """Whether the parameters of two models are equal, bit for bit; shards are gathered."""
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(whole(one), whole(two)) for one, two in pairs)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, or the tensor."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def network(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, the same at every call, with a tanh before the last."""
    torch.manual_seed(0)
    layers = [nn.Linear(*pair) for pair in pairwise(widths)]
    return nn.Sequential(*layers[:-1], nn.Tanh(), layers[-1])
