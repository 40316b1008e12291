"""What a scheduler is, and what it was built with, as plain values for its state.

A scheduler's own state has neither: those of transformers' linear and cosine course are equal,
and a cosine of ``T_max=10`` that is loaded into one of 100 goes on as one of 10.
"""

import hashlib
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from numbers import Real
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, NamedTuple, cast

from torch import Tensor

# Attributes that say where torch is in a call, or what is described by itself.
_SILENT: Final = {"optimizer", "_schedulers", "_get_lr_called_within_step", "_is_initial"}

Attributes = dict[str, Any]


class Entry(NamedTuple):
    """One setting: its label, its value, and where the value stands if it can be put back."""

    label: str
    value: Any
    holder: Attributes | None
    key: str


def parts(scheduler: object) -> Iterator[object]:
    """Return a scheduler and those that it runs, the outer ones first."""
    yield scheduler
    for inner in getattr(scheduler, "_schedulers", ()):
        yield from parts(inner)


def objects(scheduler: object) -> Iterator[object]:
    """Return a scheduler, those inside, and their callable objects: whatever steps may change."""
    for part in parts(scheduler):
        yield part
        for _, function in _functions(part):
            if not isinstance(function, FunctionType | MethodType) and hasattr(
                function, "__dict__"
            ):
                yield function


def name_of(scheduler: object) -> str:
    """Return the name of a scheduler: its class, its functions, and those that it runs.

    Examples:
        >>> import torch
        >>> from torch.optim.lr_scheduler import StepLR
        >>> optimizer = torch.optim.SGD([torch.zeros(1)])
        >>> name_of(StepLR(optimizer, 3))
        'lr_scheduler.StepLR'
    """
    cls = type(scheduler)
    names = [_function_name(function) for _, function in _functions(scheduler)]
    names += [name_of(inner) for inner in getattr(scheduler, "_schedulers", ())]
    # Of the module the last part: a script is `__main__` here and `train` there.
    module = cls.__module__.rpartition(".")[2]
    inside = f"({', '.join(names)})" if names else ""
    return f"{module}.{cls.__qualname__}{inside}"


def entries(
    scheduler: object, group: Attributes, defaults: Collection[str] = ()
) -> Iterator[Entry]:
    """Return what a scheduler that has just been built was built with.

    These are its attributes and those of its functions, as far as they are plain, and what it
    wrote into the proxy's ``group`` beside the optimizer's ``defaults``.
    """
    for number, part in enumerate(parts(scheduler)):
        prefix = f"{type(part).__name__} {number}: " if number else ""
        functions = dict(_functions(part))
        for key, value in vars(part).items():
            if key not in _SILENT and key not in functions and (described := plain(value)) != ...:
                yield Entry(f"{prefix}{key}", described, vars(part), key)
        for key, function in functions.items():
            yield from _of_function(function, prefix, key)
    for key, value in group.items():
        is_added = key == "lr" or key not in defaults
        if is_added and key != "params" and (described := plain(value)) != ...:
            yield Entry(f"group: {key}", described, group, key)


def plain(value: object) -> Any:  # noqa: ANN401 - a setting's value
    """Return a setting as plain Python, or ``...`` if it is no such thing."""
    if isinstance(value, Tensor):
        return value.tolist() if value.numel() == 1 else ...
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Real):  # of numpy, and enumerations
        return float(value)
    if isinstance(value, Mapping):
        items = {plain(key): plain(item) for key, item in value.items()}
        return ... if ... in items or ... in items.values() else items
    if isinstance(value, list | tuple):
        listed = [plain(item) for item in value]
        return ... if ... in listed else listed
    return ...


def same(one: object, other: object, *, units: tuple[float, float]) -> bool:
    """Whether two settings are equal, as they are or relative to the base rates of their runs."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            same(one[key], other[key], units=units) for key in one
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            same(a, b, units=units) for a, b in zip(one, other, strict=True)
        )
    if type(one) is type(other) is float:
        relative = math.isclose(one / units[0], other / units[1], rel_tol=1e-9)
        both_nan = math.isnan(one) and math.isnan(other)
        return math.isclose(one, other, rel_tol=1e-9) or relative or both_nan
    return bool(one == other)


def _functions(part: object) -> Iterator[tuple[str, Callable[..., object]]]:
    """Return the functions that a scheduler was given, by the attribute that holds them."""
    methods = f"{type(part).__qualname__}."
    for key, value in vars(part).items():
        several = value if isinstance(value, list | tuple) else [value]
        for position, function in enumerate(several):
            if (
                callable(function)
                and not isinstance(function, type)
                and not hasattr(function, "step")
                and not _function_name(function).startswith(methods)  # one of its own
            ):
                yield (f"{key}[{position}]" if several is value else key), function


def _function_name(function: Callable[..., object]) -> str:
    """Return the name of a function; of a partial one also the arguments that it was given."""
    if isinstance(function, partial):
        arguments = ["_"] * len(function.args) + sorted(function.keywords)
        return f"{_function_name(function.func)}({', '.join(arguments)})"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    # It matters little in which function a lambda was written.
    return "<lambda>" if name.endswith("<lambda>") else cast(str, name)


def _of_function(function: Callable[..., object], prefix: str, key: str) -> Iterator[Entry]:
    """Return what a function computes with: its code, its closure, its arguments."""
    if isinstance(function, partial):
        values = {**{str(at): item for at, item in enumerate(function.args)}, **function.keywords}
        yield from _described(values, prefix, None)
        yield from _of_function(function.func, prefix, key)
    elif isinstance(function, MethodType):
        yield from _of_function(function.__func__, prefix, key)
    elif isinstance(function, FunctionType):
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        closure = {name: cell.cell_contents for name, cell in cells}
        yield from _described(closure, prefix, None)
        for name, value in closure.items():  # a function that calls another
            if isinstance(value, FunctionType) and value is not function:
                yield Entry(f"{prefix}{key}: {name}", _digest(value.__code__), None, key)
        defaults = dict(enumerate(function.__defaults__ or ()))
        yield from _described(defaults, f"{prefix}{key}: default ", None)
        yield Entry(f"{prefix}the code of {key}", _digest(function.__code__), None, key)
    else:
        yield from _described(getattr(function, "__dict__", {}), prefix, vars(function))


def _described(
    values: Mapping[Any, Any], prefix: str, holder: Attributes | None
) -> Iterator[Entry]:
    """Return the values that are plain."""
    for key, value in values.items():
        if (described := plain(value)) != ...:
            yield Entry(f"{prefix}{key}", described, holder, str(key))


def _digest(code: CodeType) -> str:
    """Return a short text that tells a function's code from another's, in one version of Python."""
    constants = [
        _digest(constant) if isinstance(constant, CodeType) else repr(constant)
        for constant in code.co_consts
    ]
    text = repr((code.co_code, constants, code.co_names))
    version = ".".join(map(str, sys.version_info[:2]))
    return f"{version}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def other_python(one: object, other: object) -> bool:
    """Whether two texts tell the code of functions in different versions of Python."""
    both = isinstance(one, str) and isinstance(other, str)
    return both and _version(str(one)) != _version(str(other))


def _version(digest: str) -> str | None:
    """Return the version of Python in which code was told."""
    version, colon, rest = digest.partition(":")
    return version if colon and version[:2] == "3." and len(rest) == 12 else None
