"""Optimizer and scheduler classes by name, with their settings.

"AdamW"                                        torch's; "nnlr.optim.AdamW" is nnlr's own
{"class": "AdamW", "betas": [0.9, 0.95]}
{"class": "SequentialLR", "schedulers": [{"class": "LinearLR"}, ...], "milestones": [10]}
{"class": "WarmupDecay", "warmup": 0.05}       nnlr's own, whose lengths are shares of the run
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch
from torch.optim import Optimizer, lr_scheduler

import nnlr.optim
from nnlr._schedule.warmup_decay import WarmupDecay
from nnlr._text import shown
from nnlr.config._at import At, is_reference
from nnlr.config._calls import Callee
from nnlr.config._scheme import decoded
from nnlr.config._types import fits, told

Factory = Callable[..., Any]


@dataclass(frozen=True)
class Kind:
    """A kind of class that a recipe names: optimizers, schedulers."""

    word: str
    # By the name of its module; of several classes of one name the first module's counts.
    modules: Mapping[str, Mapping[str, Any]]
    base: type
    refused: Mapping[str, str]  # settings that are written elsewhere, and where

    @cached_property
    def names(self) -> Mapping[str, type]:
        """The classes by their names, short and with their module."""
        classes: dict[str, type] = {}
        for module, members in self.modules.items():
            for name, value in members.items():
                is_class = inspect.isclass(value) and issubclass(value, self.base)
                if is_class and value is not self.base and name[0] != "_" and name != "Mixed":
                    classes.setdefault(name, value)
                    classes[f"{module}.{name}"] = value
        return classes

    def name_of(self, cls: object) -> str | None:
        """The shortest name of a class."""
        return next((name for name, value in self.names.items() if value is cls), None)

    def settings(self, cls: type) -> Callee:
        """What a class takes."""
        callee = Callee.of(cls.__name__, cls)
        arguments = {k: v for k, v in callee.arguments.items() if k not in self.refused}
        return Callee(callee.name, callee.function, arguments)


OPTIMIZERS: Final = Kind(
    "optimizer",
    {module.__name__: vars(module) for module in (torch.optim, nnlr.optim)},
    Optimizer,
    {
        "params": "the model has them",
        "lr": "it stands at the top of the recipe",
        "weight_decay": "it stands at the top of the recipe",
    },
)

SCHEDULERS: Final = Kind(
    "scheduler",
    {lr_scheduler.__name__: vars(lr_scheduler), "nnlr": {"WarmupDecay": WarmupDecay}},
    lr_scheduler.LRScheduler,
    {
        "optimizer": "the recipe has it",
        "last_epoch": "a schedule starts at its beginning, or where its state says",
        "verbose": "torch has dropped it",
    },
)


@dataclass(frozen=True)
class Chain:
    """A scheduler of schedulers, for whatever optimizer it is called with."""

    cls: type
    schedulers: tuple[Factory, ...]
    settings: Mapping[str, Any]

    def __call__(self, optimizer: Optimizer, **settings: Any) -> Any:  # noqa: ANN401 - a scheduler
        """The scheduler."""
        inner = [make(optimizer) for make in self.schedulers]
        return self.cls(optimizer=optimizer, schedulers=inner, **{**self.settings, **settings})


def class_of(data: Any, kind: Kind, at: At) -> Factory:  # noqa: ANN401 - of any shape
    """A class, or a ``functools.partial`` of one with its settings, from plain data."""
    place = at / "class" if isinstance(data, dict) else at
    if isinstance(data, str):
        data = {"class": data}
    if not isinstance(data, dict) or not isinstance(data.get("class"), str):
        at.refuse(
            f"needs the name of a class, such as {{class: {next(iter(kind.names))}, ...}}, got "
            f"{shown(data)}."
        )
    name = data["class"]
    settings = {key: value for key, value in data.items() if key != "class"}
    if is_reference(name):
        cls = place.imported(name)
        if not callable(cls):
            place.refuse(f"{name!r} is no class, but {shown(cls)}.")
        return functools.partial(cls, **settings) if settings else cls
    if name not in kind.names:
        words = sorted(kind.names, key=lambda word: "." in word)  # short ones first
        place.refuse_value(name, f"there is no {kind.word}", words)
    return _with_settings(kind.names[name], settings, kind, at)


def _with_settings(cls: type, settings: dict[str, Any], kind: Kind, at: At) -> Factory:
    """A class with its settings, checked as far as its signature tells."""
    callee = kind.settings(cls)
    values = {}
    for key, value in settings.items():
        if key in kind.refused:
            (at / key).refuse(
                f"{key} is not a setting of {cls.__name__} here: {kind.refused[key]}."
            )
        if key not in callee.arguments:
            at.refuse_key(key, f"{cls.__name__} has no argument", callee.arguments)
        if key != "schedulers":
            types = callee.arguments[key].types
            values[key] = decoded(value, types, at / key)
            if not fits(values[key], types):
                meant = f"{key} of {cls.__name__} must be {told(types)}"
                (at / key).refuse(f"{meant}, got {shown(value)}.")
    if kind is OPTIMIZERS:  # whose settings go into groups and checkpoints
        values = {key: _tuple(value) for key, value in values.items()}
    if "schedulers" in callee.arguments:
        inner = settings.get("schedulers")
        if not isinstance(inner, list) or not inner:
            (at / "schedulers").refuse(f"{cls.__name__} needs a list of schedulers.")
        place = at / "schedulers"
        members = [class_of(value, kind, place[i]) for i, value in enumerate(inner)]
        return Chain(cls, tuple(members), values)
    return functools.partial(cls, **values) if values else cls


def _tuple(value: object) -> object:
    """A list as a tuple, inside too."""
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
