"""The values and the names that code refers to, and the source of functions."""

import ast
import builtins
import inspect
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Final, NamedTuple

from torch import nn

CONTAINERS: Final = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


class UnreadableError(Exception):
    """Code that says nothing: there is no source, or it does what cannot be followed."""


class Used(NamedTuple):
    """A module that code calls, or any member of a list."""

    module: nn.Module
    member: bool = False
    backwards: bool = False  # whether its members are taken from the last to the first

    def in_loop(self) -> "Used":
        """A member, of a list; anything else as it is."""
        return self._replace(member=self.member or isinstance(self.module, CONTAINERS))

    def turned(self) -> "Used":
        """The same in the opposite order."""
        return self._replace(backwards=not self.backwards)


class Function(NamedTuple):
    """A function of which the source is at hand, and the names that it sees."""

    node: ast.FunctionDef | ast.Lambda
    names: "Names"
    first: tuple["Value", ...] = ()  # the instance, of a method


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a value."""

    modules: frozenset[Used] = frozenset()  # that it is
    sources: frozenset[Used] = frozenset()  # whose output it may hold
    parts: tuple["Value", ...] = ()  # of a tuple
    code: object = None  # a function, or the name of a method of the modules

    def in_loop(self) -> "Value":
        """What a loop over it gives."""
        if self.parts:
            return merged(self.parts)
        return replace(self, modules=frozenset(used.in_loop() for used in self.modules))

    def turned(self) -> "Value":
        """It from the last to the first, or what is taken by a number that falls."""
        return Value(frozenset(used.turned() for used in self.modules), self.sources, (), reversed)

    def at(self, index: object) -> "Value":
        """What stands at a position, or under a key; ``None`` if it is not certain which."""
        if isinstance(index, int) and -len(self.parts) <= index < len(self.parts):
            return self.parts[index]
        for used in self.modules:
            if isinstance(used.module, CONTAINERS) and not (used.member or used.backwards):
                with suppress(LookupError, TypeError):
                    return Value(frozenset([Used(used.module[index])]))  # type: ignore[call-overload,index]
        return self.in_loop()


NOTHING: Final = Value()


def merged(values: Iterable[Value]) -> Value:
    """A value that may be, or may be made of, any of these."""
    values = [value for value in values if value is not NOTHING]
    if len(values) < 2:
        return values[0] if values else NOTHING
    first = values[0]
    alike = all(len(value.parts) == len(first.parts) for value in values)
    parts = zip(*(value.parts for value in values), strict=True) if alike else ()
    return Value(
        first.modules.union(*(value.modules for value in values)),
        first.sources.union(*(value.sources for value in values)),
        tuple(map(merged, parts)),
        first.code if all(value.code is first.code for value in values) else None,
    )


def as_tuple(values: Sequence[Value]) -> Value:
    """A tuple of values."""
    return replace(merged(values), parts=tuple(values), code=None)


class Names(dict[str, Value]):
    """The names in a function: its own, and those around it."""

    def __init__(self, function: FunctionType, names: dict[str, Value] | None = None) -> None:
        super().__init__(names or {})
        self.function = function

    def __missing__(self, name: str) -> Value:
        cells = self.function.__closure__ or ()
        around = dict(zip(self.function.__code__.co_freevars, cells, strict=True))
        if name in around:
            return value_of(around[name].cell_contents)
        return value_of(self.function.__globals__.get(name, getattr(builtins, name, None)))

    def copy(self) -> "Names":
        """The same names."""
        return Names(self.function, self)


def is_builtin(function: object) -> bool:
    """Whether it is a function or a type of Python itself."""
    kinds = BuiltinFunctionType | type
    return isinstance(function, kinds) and function.__module__ == "builtins"


def constant(node: ast.AST) -> object:
    """The value of a number or a text in the code; else ``None``."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def value_of(thing: object) -> Value:
    """What is known of an object that code refers to."""
    if isinstance(thing, nn.Module):
        return Value(frozenset([Used(thing)]))
    if isinstance(thing, MethodType):
        return bound(thing.__func__, value_of(thing.__self__))
    return Value(code=thing) if callable(thing) or isinstance(thing, ModuleType) else NOTHING


def bound(function: object, instance: Value) -> Value:
    """A method of an instance.

    Raises:
        UnreadableError: If it has no source.
    """
    made = function_of(function)
    if made is None:
        raise UnreadableError
    return Value(code=made._replace(first=(instance,)))


def function_of(function: object) -> Function | None:
    """A function with its source; ``None`` if there is none."""
    function = inspect.unwrap(function) if callable(function) else None
    if not isinstance(function, FunctionType):
        return None
    node = _definition(function)
    return Function(node, Names(function)) if node else None


@lru_cache(maxsize=4096)
def _definition(function: FunctionType) -> ast.FunctionDef | ast.Lambda | None:
    """The source of a function, as a tree; ``None`` if there is none."""
    try:
        if function.__name__ != "<lambda>":
            [node] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
            return node if isinstance(node, ast.FunctionDef) else None
        lines, _ = inspect.findsource(function)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    at = {(line, column) for line, _, column, _ in function.__code__.co_positions() if column}
    lambdas = (node for node in ast.walk(_file("".join(lines))) if isinstance(node, ast.Lambda))
    matching = (node for node in lambdas if (node.body.lineno, node.body.col_offset) in at)
    return next(matching, None)


@lru_cache(maxsize=4)
def _file(source: str) -> ast.Module:
    """A whole file as a tree."""
    return ast.parse(source)
