"""Optimizer classes in code: what to import, and the call."""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from typing import Any, NoReturn

import torch

from nnlr._apply.optimizer import Part
from nnlr._code.lines import Brackets, literal
from nnlr._text import shown
from nnlr.errors import ConfigError
from nnlr.optim._one_pass import OnePass


class Imports:
    """The names in the code, and what is imported under them."""

    def __init__(self) -> None:
        """Know the names that all code has."""
        functions = "param_groups", "make_optimizer", "make_optimizers", "scale_initial_weights"
        self._lines = dict.fromkeys(("re", "translate", "torch", "nn", *functions), "")

    def call(self, part: Part, groups: str) -> Brackets:
        """The call that builds an optimizer on groups as the plan does.

        Raises:
            ConfigError: If the class refuses them or cannot be imported, or a setting is not plain.
        """
        factory: Callable[..., Any] = part.factory
        settings: Mapping[str, Any] = part.arguments()
        if isinstance(factory, partial):
            if factory.args:
                _refuse(factory, "its arguments have no names: functools.partial(cls, name=value)")
            settings = {**factory.keywords, **settings}
            factory = factory.func
        optimizer = part.build()
        if factory.__module__.startswith("nnlr.") and isinstance(optimizer, OnePass):
            if not optimizer.fast_path_report().slow:
                settings = {**settings, "fused": True}  # the kernels that it uses
            factory = optimizer._torch_class
        arguments = [f"{key}={literal(value, key)}" for key, value in settings.items()]
        return Brackets(f"{self._name(factory)}(", [groups, *arguments], ")")

    def lines(self) -> list[str]:
        """The lines that import classes of other packages than torch."""
        lines = [
            line if line.endswith(f" {name}") else f"{line} as {name}"
            for name, line in self._lines.items()
            if line
        ]
        return sorted([*lines, "from torch import nn"], key=str.lower)

    def _name(self, factory: Callable[..., Any]) -> str:
        """What a class is called in the code, once it is imported."""
        path = getattr(factory, "__qualname__", "")
        if getattr(torch.optim, path, None) is factory:
            return f"torch.optim.{path}"
        home = next(_homes(factory, path), None)
        if home is None:
            _refuse(factory, "it does not stand in a module that can be imported")
        first, *inner = path.split(".")
        line = f"from {home} import {first}"
        name = first
        while self._lines.setdefault(name, line) != line:
            name += "_"
        return ".".join([name, *inner])


def _homes(factory: Callable[..., Any], path: str) -> Iterator[str]:
    """The modules that have a class under its path, the package before what is in it."""
    module = getattr(factory, "__module__", None) or ""
    for up in range(module.count("."), -1, -1):
        home = module.rsplit(".", up)[0]
        steps = path.split(".")
        one: Any = reduce(lambda at, name: getattr(at, name, None), steps, sys.modules.get(home))
        if one is factory and home.partition(".")[0] not in {"__main__", "nnlr"}:
            yield home


def _refuse(factory: object, reason: str) -> NoReturn:
    """Say that a class cannot be written, and why."""
    raise ConfigError(
        f"{shown(factory)} cannot be written as code: {reason}. Without a class, plan.to_code() "
        "writes the groups, on which you build it."
    )
