"""Schemes and recipes as plain data, from which :func:`scheme` and :func:`load` make them."""

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from numbers import Integral, Real
from typing import Any, Final

from torch import Tensor

from nnlr._arguments import Written
from nnlr._declare.moves import Timed
from nnlr._declare.scheme import At as Moved
from nnlr._declare.scheme import Product, Scheme, Where, Within
from nnlr._select.selector import Glob, Selector
from nnlr._text import shown
from nnlr.config._at import At, is_reference
from nnlr.config._calls import Callee, indexers, schemes, selectors
from nnlr.config._classes import OPTIMIZERS, SCHEDULERS, Chain, Factory, Kind
from nnlr.config._recipe import Recipe
from nnlr.config._scheme import RESTRICTIONS
from nnlr.depth import Indexer
from nnlr.errors import ConfigError
from nnlr.schemes._width.base import Base

_KINDS: Final = {"algorithms": OPTIMIZERS, "schedule": SCHEDULERS}

Data = Any  # what YAML and JSON can hold


def dump(value: Scheme | Recipe) -> Data:
    """A scheme or a recipe as plain data, of which :func:`scheme` or :func:`load` makes it again.

    Args:
        value: Any scheme or recipe that is data: without functions, classes, tensors or models,
            but for the classes of ``torch.optim`` and ``nnlr.optim``.

    Raises:
        ConfigError: If something in it is not data; it says what to write instead.

    Examples:
        >>> import nnlr
        >>> dump(nnlr.layer_decay(0.75) * nnlr.rule("head.*", lr_mult=10))
        [{'layer_decay': 0.75}, {'rule': {'select': 'head.*', 'lr_mult': 10.0}}]
    """
    if isinstance(value, Recipe):
        return _recipe(value, At(""))
    if not isinstance(value, Scheme):
        raise ConfigError(f"dump needs a scheme or a recipe, got {shown(value, typed=True)}.")
    return scheme_data(value, At("scheme"))


def _recipe(recipe: Recipe, at: At) -> dict[str, Data]:
    """A recipe as data, without what is not set."""
    data = {}
    for field in fields(Recipe):
        value, place = getattr(recipe, field.name), at / field.name
        if value == field.default:
            continue
        if field.name in _KINDS:
            data[field.name] = _classes(value, _KINDS[field.name], place)
        else:
            data[field.name] = data_of(value, place)
    return data


def _classes(value: Any, kind: Kind, at: At) -> Data:  # noqa: ANN401 - of any shape
    """A class with its settings, or several by name."""
    if isinstance(value, Mapping):
        return {key: item and _class(item, kind, at / key) for key, item in value.items()}
    return _class(value, kind, at)


def _class(factory: Factory, kind: Kind, at: At) -> Data:
    """A class with its settings."""
    cls: object = factory
    settings: dict[str, Data] = {}
    if isinstance(factory, Chain):
        cls, settings = factory.cls, data_of(factory.settings, at)
        inner = [_class(one, kind, at[i]) for i, one in enumerate(factory.schedulers)]
        settings = {"schedulers": inner, **settings}
    elif isinstance(factory, partial) and not factory.args:
        cls, settings = factory.func, data_of(factory.keywords, at)
    name = kind.name_of(cls)
    return _refuse(cls, at) if name is None else {"class": name, **settings}


def scheme_data(scheme: Scheme, at: At) -> Data:
    """A scheme at a place as data."""
    if isinstance(scheme, Product):
        return [scheme_data(member, at[i]) for i, member in enumerate(scheme.members)]
    if isinstance(scheme, Moved):
        return {**_beside(scheme.inner, at, RESTRICTIONS), "at": _at(scheme, at / "at")}
    if isinstance(scheme, Within):
        return {**_beside(scheme.inner, at, ("where", "within")), "within": scheme.path}
    if isinstance(scheme, Where):
        where = data_of(scheme.selector, at / "where")
        if scheme.optional:
            where = {"select": where, "optional": True}
        return {**_beside(scheme.inner, at, ("where",)), "where": where}
    return _call(scheme, "a scheme", schemes(), at)


def _at(scheme: Moved, at: At) -> Data:
    """What moves a scheme: a function, which a file can only name."""
    function = scheme.move.function if isinstance(scheme.move, Timed) else scheme.move
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    fix = "Name a function of a module, or use a scheme that moves by itself, such as freeze_out."
    if is_reference(name):
        written = name if scheme.setting == "lr" else {"function": name, "setting": scheme.setting}
        fix = f"In the file write at: {written!r}, and load it with allow=[{name!r}]."
    return at.refuse(f"{scheme!r} moves by a function, which is not data. {fix}", value=function)


def _beside(scheme: Scheme, at: At, taken: tuple[str, ...]) -> dict[str, Data]:
    """A scheme as a mapping, beside which a restriction can be written."""
    data = scheme_data(scheme, at)
    if isinstance(data, str):
        return {data: {}}
    if isinstance(data, list) or not data.keys().isdisjoint(taken):
        return {"product": data if isinstance(data, list) else [data]}
    return dict(data)


def data_of(value: object, at: At) -> Data:  # noqa: PLR0911 - a line for each kind
    """An argument as data."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, slice):
        return {"slice": value.stop if value.start is None else [value.start, value.stop]}
    if isinstance(value, list | tuple):
        return [data_of(item, at[i]) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _mapping(value, at)
    if isinstance(value, Scheme):
        return scheme_data(value, at)
    if isinstance(value, Glob):
        return value.pattern
    if isinstance(value, Selector):
        return _call(value, "a selector", selectors(), at)
    written = getattr(value, "written_as", lambda: value)()
    if isinstance(value, Indexer) and isinstance(written, Written):
        return _call(value, "an indexer", indexers(), at)
    if written is not value:
        return data_of(written, at)
    return _refuse(value, at)


def _mapping(value: Mapping[Any, Any], at: At) -> Data:
    """A mapping, or pairs where its keys are more than text."""
    keys = [data_of(key, at / key) for key in value]
    values = [data_of(item, at / key) for key, item in value.items()]
    if all(isinstance(key, str | int) for key in keys):
        return dict(zip(keys, values, strict=True))
    return [list(pair) for pair in zip(keys, values, strict=True)]


def _call(value: Any, kind: str, callees: Mapping[str, Callee], at: At) -> Data:  # noqa: ANN401 - of that kind
    """A scheme, selector or indexer as its call."""
    written: Written = value.written_as()
    cls = type(value)
    if written.name not in callees or not cls.__module__.startswith("nnlr."):
        name = f"{cls.__module__}:{cls.__qualname__}"
        fix = "Make it in Python."
        if kind == "a scheme":
            fix = f"Write {{{name!r}: {{argument: value}}}}, and load it with allow=[{name!r}]."
        at.refuse(f"{shown(value)} is {kind} that data cannot describe. {fix}", value=value)
    callee, at = callees[written.name], at / written.name
    if callee.members:
        several = [data_of(member, at[i]) for i, member in enumerate(written.args)]
        alone = len(several) == 1 and isinstance(several[0], str)
        return {written.name: several[0] if alone else several}
    positions = dict(zip(callee.arguments, written.args, strict=False))
    keys = {argument.name: key for key, argument in callee.arguments.items()}
    named = {keys[name]: item for name, item in written.kwargs.items()}
    arguments = {key: data_of(item, at / key) for key, item in {**positions, **named}.items()}
    if written.name == "rules":
        arguments["members"] = [_without_name(member) for member in arguments["members"]]
    if not arguments:
        return written.name
    [key, *others] = arguments
    if (
        not others
        and callee.first
        and callee.first.key == key
        and callee.stands_alone(arguments[key])
    ):
        return {written.name: arguments[key]}
    return {written.name: arguments}


def _without_name(member: Data) -> Data:
    """A member of ``rules``, without the name ``rule`` where ``select`` tells it."""
    rule = member.get("rule")
    return rule if isinstance(rule, dict) and "select" in rule else member


def _refuse(value: object, at: At) -> Data:
    """Say what to write in place of what is no data."""
    if isinstance(value, type):
        fix = f"Name the class: nnlr.module_type({value.__name__!r})."
    elif isinstance(value, Base):
        fix = "Pass its shapes as base: nnlr.config.shapes(base)."
    elif callable(value):
        name = f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"
        fix = "Define it in a module, and name it in the file as 'module:name'."
        if "<" not in name:
            fix = f"In the file write its name, {name!r}, and load it with allow=[{name!r}]."
    elif isinstance(value, Tensor):
        fix = "Write numbers in its place."
    else:
        fix = "Write plain numbers, text, lists and mappings."
    return at.refuse(f"{shown(value, typed=True)} is not data. {fix}", value=value)
