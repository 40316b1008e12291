"""Optimizer classes in code: what to import, and the call."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch

import nnlr.optim
from nnlr._apply.optimizer import Part
from nnlr._code.lines import Brackets, literal
from nnlr._text import shown
from nnlr.errors import ConfigError


@dataclass(frozen=True)
class Made:
    """How code makes an optimizer of groups."""

    imports: str  # the line that it needs besides those for torch, or nothing
    call: Brackets

    @classmethod
    def of(cls, part: Part, groups: str) -> "Made":
        """The call that builds an optimizer on groups as the plan does.

        Raises:
            ConfigError: If its class cannot be imported, or a setting is not plain.
        """
        factory: Callable[..., Any] = part.factory
        settings: Mapping[str, Any] = part.arguments()
        if isinstance(factory, partial):
            if factory.args:
                _refuse(factory, "its arguments have no names: functools.partial(cls, name=value)")
            settings = {**factory.keywords, **settings}
            factory = factory.func
        imports, name = _path(factory)
        if factory.__module__.startswith("nnlr."):
            settings = {**settings, "fused": True}  # the kernels whose numbers those of nnlr are
        arguments = [f"{key}={literal(value, key)}" for key, value in settings.items()]
        return cls(imports, Brackets(f"{name}(", [groups, *arguments], ")"))


def _path(factory: Callable[..., Any]) -> tuple[str, str]:
    """What to import, and the name of a class then; torch's own in place of nnlr's."""
    name = getattr(factory, "__qualname__", "")
    if getattr(nnlr.optim, name, None) is factory or getattr(torch.optim, name, None) is factory:
        return "", f"torch.optim.{name}"
    module = getattr(factory, "__module__", None) or ""
    parents = (module.rsplit(".", up)[0] for up in range(module.count("."), -1, -1))
    homes = (each for each in parents if getattr(sys.modules.get(each), name, None) is factory)
    home = next(homes, "__main__")
    if home == "__main__":
        _refuse(factory, "it does not stand in a module that can be imported")
    return f"from {home} import {name}", name


def _refuse(factory: object, reason: str) -> NoReturn:
    """Say that a class cannot be written, and why."""
    raise ConfigError(
        f"{shown(factory)} cannot be written as code: {reason}. Without a class, plan.to_code() "
        "writes the groups, on which you build it."
    )
