"""What can be written in a configuration: functions by name, and the arguments that each takes.

All of it is read from signatures: a new scheme, or a new argument, needs no line here.
"""

import inspect
import typing
from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, reduce
from operator import and_, or_
from typing import Any, Final, get_origin

import nnlr.schemes
from nnlr._declare.rules import rule, rules
from nnlr._declare.scheme import Scheme
from nnlr._select import selectors as select
from nnlr._select.name_or_start import name_or_start
from nnlr._select.selector import Selector, as_selector, glob
from nnlr.config._types import alternatives
from nnlr.depth import INDEXERS, Indexer, by_function, by_pattern
from nnlr.errors import NnlrError

Function = Callable[..., Any]

# Arguments that are called otherwise in a configuration.
_KEYS: Final = {"selector": "select"}

# What has a form of its own as a mapping, beside mappings themselves.
_AS_MAPPING: Final = (Scheme, Selector, Indexer, slice, Any, object)


@dataclass(frozen=True)
class Argument:
    """One argument of a function."""

    key: str  # what it is called in a configuration
    name: str
    types: tuple[Any, ...]  # any of them
    required: bool
    by_position: bool


@dataclass(frozen=True)
class Callee:
    """A function that a configuration can call, with what it takes."""

    name: str
    function: Function
    arguments: Mapping[str, Argument]  # by key
    members: tuple[Any, ...] = ()  # the types of *args, where any number of them is taken

    @classmethod
    def of(cls, name: str, function: Function) -> "Callee":
        """Read the signature of a function."""
        arguments = {}
        members: tuple[Any, ...] = ()
        for parameter in _signature(function).parameters.values():
            is_typed = parameter.annotation is not parameter.empty
            types = alternatives(parameter.annotation if is_typed else Any)
            if parameter.kind is parameter.VAR_POSITIONAL and types != (object,):
                members = types  # `object` marks what is taken only to be refused
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
                continue
            key = _KEYS.get(parameter.name, parameter.name)
            arguments[key] = Argument(
                key,
                parameter.name,
                types,
                required=parameter.default is parameter.empty,
                by_position=parameter.kind is parameter.POSITIONAL_OR_KEYWORD,
            )
        return cls(name, function, arguments, members)

    @property
    def first(self) -> Argument | None:
        """The argument that may be written without its name: the first one by position."""
        first = next(iter(self.arguments.values()), None)
        return first if first and first.by_position else None

    def stands_alone(self, value: object) -> bool:
        """Whether a value is the first argument itself, and not a mapping of arguments."""
        if not isinstance(value, Mapping):
            return value is not None
        types = self.first.types if self.first else self.members
        if not value or not any(one in _AS_MAPPING or get_origin(one) is not None for one in types):
            return False
        # A mapping with a key that looks like an argument's is meant to be arguments.
        keys = list(self.arguments)
        return not any(key in keys or get_close_matches(str(key), keys, 1, 0.8) for key in value)


def _signature(function: Function) -> inspect.Signature:
    """The signature of a function, with its types where they can be had."""
    try:
        # Names that a module imports for type checkers only are mostly of these.
        return inspect.signature(function, eval_str=True, locals={**vars(typing), **vars(abc)})
    except (NameError, TypeError):
        return inspect.signature(function)


@cache
def schemes() -> Mapping[str, Callee]:
    """Every scheme by its name: rules, and all that :mod:`nnlr.schemes` publishes."""
    published = [value for value in vars(nnlr.schemes).values() if inspect.isfunction(value)]
    functions: list[Function] = [rule, rules, *published]
    return {function.__name__: Callee.of(function.__name__, function) for function in functions}


@cache
def selectors() -> Mapping[str, Callee]:
    """Every selector by its name, and what ``&``, ``|`` and ``~`` are called."""
    functions: dict[str, Function] = {
        "glob": glob,
        "regex": select.regex,
        "role": select.role,
        "name_or_start": name_or_start,
        "module_type": select.module_type,
        "ndim": _ndim,
        "predicate": select.predicate,
        "all": _all,
        "any": _any,
        "not": _not,
    }
    return {name: Callee.of(name, function) for name, function in functions.items()}


@cache
def indexers() -> Mapping[str, Callee]:
    """Every indexer of :mod:`nnlr.depth` that needs no tensors."""
    functions: dict[str, Function] = {
        **INDEXERS,
        "by_pattern": by_pattern,
        "by_function": by_function,
    }
    return {name: Callee.of(name, function) for name, function in functions.items()}


def _ndim(
    exactly: int | None = None, *, min: int | None = None, max: int | None = None
) -> Selector:
    """Choose by the number of axes."""
    if exactly is None:
        return select.ndim(min=min, max=max)
    if min is not None or max is not None:
        raise NnlrError("ndim is one number, or has min, max or both.")
    return select.ndim(min=exactly, max=exactly)


def _all(*selectors: Selector | str) -> Selector:
    """Choose what all of these choose."""
    return _joined(selectors, "all", and_)


def _any(*selectors: Selector | str) -> Selector:
    """Choose what any of these chooses."""
    return _joined(selectors, "any", or_)


def _joined(several: tuple[Selector | str, ...], word: str, sign: Function) -> Selector:
    """Selectors joined by a sign, from left to right."""
    if not several:
        raise NnlrError(f"{word} needs a list of selectors.")
    joined: Selector = reduce(sign, [as_selector(one, word) for one in several])
    return joined


def _not(selector: Selector | str) -> Selector:
    """Choose all but what this chooses."""
    return ~as_selector(selector, "not")
