"""The values and the names that code refers to, and the source of functions."""

import ast
import builtins
import inspect
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Final, NamedTuple

from torch import nn

_CONTAINERS: Final = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


class UnreadableError(Exception):
    """Code that says nothing: there is no source, or it does what cannot be followed."""


class Used(NamedTuple):
    """A module that code calls, or any member of a list."""

    module: nn.Module
    member: bool = False


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
    item: "Value | None" = None  # what a loop over it gives
    code: object = None  # a function, or the name of a method of the modules

    def in_loop(self) -> "Value":
        """What a loop over it gives."""
        if self.item:
            return self.item
        if self.parts:
            return merged(self.parts)
        return replace(self, modules=frozenset(map(_member, self.modules)), code=None)

    def at(self, index: object) -> "Value":
        """What stands at a position, or under a key; ``None`` if it is not certain which."""
        if self.parts and isinstance(index, int) and -len(self.parts) <= index < len(self.parts):
            return self.parts[index]
        used = next(iter(self.modules), None)
        if used and not used.member and isinstance(used.module, _CONTAINERS):
            try:
                return Value(frozenset([Used(used.module[index])]))  # type: ignore[call-overload,index]
            except (KeyError, IndexError, TypeError, AttributeError):
                pass
        return self.in_loop()


NOTHING: Final = Value()


def _member(used: Used) -> Used:
    """A member of a list; anything else as it is."""
    return Used(used.module, member=used.member or isinstance(used.module, _CONTAINERS))


def merged(values: Iterable[Value]) -> Value:
    """A value that may be, or may be made of, any of these."""
    values = [value for value in values if value is not NOTHING]
    if len(values) < 2:
        return values[0] if values else NOTHING
    modules = frozenset[Used]().union(*(value.modules for value in values))
    sources = frozenset[Used]().union(*(value.sources for value in values))
    first = values[0]
    alike = all(len(value.parts) == len(first.parts) for value in values)
    parts = zip(*(value.parts for value in values), strict=True) if alike else ()
    items = [value.item for value in values if value.item]
    code = first.code if all(value.code is first.code for value in values) else None
    return Value(
        modules, sources, tuple(map(merged, parts)), merged(items) if items else None, code
    )


def as_tuple(values: Sequence[Value]) -> Value:
    """A tuple of values."""
    return replace(merged(values), parts=tuple(values), item=None, code=None)


class Names(dict[str, Value]):
    """The names in a function: its own, and those around it."""

    def __init__(self, function: FunctionType) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, name: str) -> Value:
        code = self.function.__code__
        for cell_name, cell in zip(code.co_freevars, self.function.__closure__ or (), strict=True):
            if cell_name == name:
                try:
                    return value_of(cell.cell_contents)
                except ValueError:  # not set yet
                    return NOTHING
        return value_of(self.function.__globals__.get(name, getattr(builtins, name, None)))

    def copy(self) -> "Names":
        """The same names."""
        made = Names(self.function)
        made.update(self)
        return made


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
    if isinstance(thing, MethodType):
        return bound(thing.__func__, value_of(thing.__self__))
    if isinstance(thing, nn.Module):
        return Value(frozenset([Used(thing)]))
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
    if not callable(function):
        return None
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        return None
    node = _definition(function)
    if node is None:
        return None
    return Function(node, Names(function))


@lru_cache(maxsize=4096)
def _definition(function: FunctionType) -> ast.FunctionDef | ast.Lambda | None:
    """The source of a function, as a tree; ``None`` if there is none."""
    is_lambda = function.__name__ == "<lambda>"
    try:
        if not is_lambda:
            [node] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
            return node if isinstance(node, ast.FunctionDef) else None
        lines, _ = inspect.findsource(function)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    code = function.__code__
    at = {(line, column) for line, _, column, _ in code.co_positions() if column}
    for each in ast.walk(_file("".join(lines))):
        if isinstance(each, ast.Lambda) and (each.body.lineno, each.body.col_offset) in at:
            return each
    return None


@lru_cache(maxsize=4)
def _file(source: str) -> ast.Module:
    """A whole file as a tree."""
    return ast.parse(source)
