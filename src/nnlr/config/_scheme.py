"""Schemes from plain data: each is written as its call.

"no_weight_decay"                          a name: no arguments
{"layer_decay": 0.75}                      the first argument alone
{"layer_decay": {"decay": 0.75, "min_mult": 0.1}}      arguments by name
{"select": "head.*", "lr_mult": 10}        a rule, whose name may be left out
[..., ...]                                 a product
{"no_weight_decay": {}, "where": "head.*"}      restricted; "within" likewise
{"layer_decay": 0.75, "at": "my.module:function"}      moved while training
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import reduce
from operator import mul
from typing import Any, Final, get_args, get_origin

from nnlr._declare.scheme import Scheme
from nnlr._select.selector import Selector
from nnlr._text import listed, nearest_hint, shown
from nnlr.config._at import At, is_reference, root
from nnlr.config._calls import Callee, indexers, schemes, selectors
from nnlr.config._plain import plain
from nnlr.config._read import read
from nnlr.config._types import LISTS, alternatives, keys_of
from nnlr.depth import Indexer
from nnlr.errors import ConfigError, NnlrError

# What may stand beside the name of a scheme.
RESTRICTIONS: Final = ("at", "where", "within")

# What else a scheme may be written with than its name.
_BESIDE: Final = ("product", "select", *RESTRICTIONS)

# YAML 1.1 reads 1e-3 as text, for want of a point.
NUMBER: Final = r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?"

_NUMBERS: Final = {int, float}


def scheme(data: object, *, allow: Iterable[str] = ()) -> Scheme:
    """The scheme that plain data describe.

    Args:
        data: A name, a mapping, or a list, which is a product; as read from YAML or JSON. Or the
            path of a file with these (``pathlib.Path``, as text is a name), which may also be
            that of a recipe. The page ``docs/configuration.md`` has all forms.
        allow: Names of code that the data may name, ``"package.module:name"``; ``*`` stands for
            anything that the package itself defines. What they name is imported, and called.

    Raises:
        ConfigError: If the data are no scheme; with the path of the key and the nearest valid
            one.

    Examples:
        >>> scheme([{"layer_decay": 0.75}, "no_weight_decay"])
        layer_decay(0.75) * no_weight_decay()
        >>> scheme({"rule": {"select": {"role": ["norm", "bias"]}, "wd_mult": 0}})
        rule(role('norm', 'bias'), wd_mult=0.0)
    """
    if not isinstance(data, os.PathLike):
        at = root("scheme", allow)
        return scheme_of(plain(data, at), at)
    at = root("", allow, data)
    content = read(data, at)
    is_recipe = isinstance(content, dict) and "scheme" in content
    return scheme_of(content["scheme"] if is_recipe else content, at / "scheme")


def scheme_of(data: object, at: At) -> Scheme:
    """The scheme of plain data at a place."""
    if isinstance(data, list):
        if not data:
            at.refuse("an empty list is no scheme.")
        product: Scheme = reduce(mul, [scheme_of(item, at[i]) for i, item in enumerate(data)])
        return product
    if isinstance(data, str):
        return _by_name(data, None, at)
    if not isinstance(data, dict):
        at.refuse(
            "a scheme is a name, a mapping such as {layer_decay: 0.75}, or a list of schemes, "
            f"got {shown(data)}."
        )
    rest = {key: value for key, value in data.items() if key not in RESTRICTIONS}
    made: Scheme
    if "select" in rest:  # a rule without its name
        made = called(schemes()["rule"], rest, at)
    else:
        made = _by_name(*_only(rest, "scheme", [*schemes(), *_BESIDE], at), at)
    if "at" in data:
        made = _moved(made, data["at"], at / "at")
    if "within" in data:
        made = attempt(at / "within", made.within, data["within"])
    if "where" in data:
        made = _where(made, data["where"], at / "where")
    return made


def _only(data: Mapping[Any, Any], kind: str, names: Collection[str], at: At) -> tuple[str, Any]:
    """The one name in a mapping, and what is below it."""
    if len(data) != 1:
        strays = [str(key) for key in data if key not in names]
        hint = nearest_hint(strays[0], names) if strays else ""
        at.refuse(
            f"a {kind} is a mapping with one name, got {listed(map(repr, data)) or 'none'}. "
            f"{hint or 'Arguments go below the name; several go into a list.'}"
        )
    [(name, value)] = data.items()
    return str(name), value


def _by_name(name: str, value: object, at: At) -> Scheme:
    """The scheme of some name, with what is written below it."""
    if name == "product":
        return scheme_of(value if isinstance(value, list) else [value], at / name)
    if is_reference(name):
        target = (at / name).imported(name)
        made = called(Callee.of(name, target), value, at / name) if callable(target) else target
        if not isinstance(made, Scheme):
            at.refuse(f"{name!r} gives no scheme, but {shown(made, typed=True)}.")
        return made
    if name not in schemes():
        at.refuse_key(name, "there is no scheme", [*schemes(), *_BESIDE])
    result: Scheme = called(schemes()[name], value, at / name)
    return result


def _moved(made: Scheme, data: Any, at: At) -> Scheme:  # noqa: ANN401 - of any shape
    """A scheme moved by a function, or by ``{function: ..., setting: ...}``."""
    values = data if isinstance(data, Mapping) else {"function": data}
    for key in values.keys() - {"function", "setting"}:
        at.refuse_key(key, "at has no", ("function", "setting"))
    name = values.get("function")
    if not is_reference(name):
        at.refuse(
            "it needs the name of a function of progress, 'my.module:name', got "
            f"{shown(name, typed=True)}."
        )
    setting = {"setting": values["setting"]} if "setting" in values else {}
    moved: Scheme = attempt(at, made.at, at.imported(str(name)), **setting)
    return moved


def _where(made: Scheme, data: Any, at: At) -> Scheme:  # noqa: ANN401 - of any shape
    """A scheme restricted to a selector, or to ``{select: ..., optional: ...}``."""
    optional = False
    if isinstance(data, Mapping) and "select" in data:
        for key in data.keys() - {"select", "optional"}:
            at.refuse_key(key, "where has no", ("select", "optional"))
        data, optional = data["select"], data.get("optional", False)
    selector = decoded(data, (Selector, str), at)
    restricted: Scheme = attempt(at, made.where, selector, optional=optional)
    return restricted


def called(callee: Callee, data: Any, at: At) -> Any:  # noqa: ANN401 - what it returns
    """What a function returns, with the arguments that are written below its name."""
    if callee.members:
        several = data if isinstance(data, list) else [] if data is None else [data]
        members = [decoded(value, callee.members, at[i]) for i, value in enumerate(several)]
        return attempt(at, callee.function, *members)
    first = callee.first
    alone = callee.stands_alone(data)
    if alone and first is None:
        keys = ", ".join(callee.arguments) or "none"
        at.refuse(f"{callee.name} takes its arguments by name ({keys}), got {shown(data)}.")
    values = {first.key: data} if alone and first else data or {}
    places = {key: at if alone else at / key for key in values}
    arguments = {}
    for key, value in values.items():
        if key not in callee.arguments:
            at.refuse_key(key, f"{callee.name} has no argument", callee.arguments)
        argument = callee.arguments[key]
        arguments[argument.name] = decoded(value, argument.types, places[key])
    for argument in callee.arguments.values():
        if argument.required and argument.name not in arguments:
            at.refuse(f"{callee.name} needs {argument.key!r}.", key=argument.key)
    try:
        return callee.function(**arguments)
    except NnlrError as error:
        # The place of the argument that it is about, where the error tells.
        what = getattr(error, "what", None)
        about = [key for key in values if callee.arguments[key].name == what]
        raise relocated(error, places[about[0]] if about else at) from error


def attempt(at: At, function: Callable[..., Any], *args: object, **kwargs: object) -> Any:  # noqa: ANN401 - any call
    """What a function returns; its errors get the path."""
    try:
        return function(*args, **kwargs)
    except NnlrError as error:
        raise relocated(error, at) from error


def relocated(error: NnlrError, at: At) -> ConfigError:
    """The same error with the path of the key that it is about."""
    return ConfigError(f"{at}: {error}", **{**error.facts, **at.facts})


def decoded(data: Any, types: Sequence[Any], at: At) -> Any:  # noqa: ANN401 - of these types
    """A value of one of some types, from plain data.

    What fits none of them is left as it is: the function that takes it says what is wrong.
    """
    if Scheme in types:
        return scheme_of(data, at)
    if isinstance(data, str):
        return _from_text(data, types, at)
    if isinstance(data, dict):
        return _from_mapping(data, types, at)
    if isinstance(data, list):
        return _from_list(data, types, at)
    return data


def _from_text(data: str, types: Sequence[Any], at: At) -> Any:  # noqa: ANN401 - of these types
    """A reference to code, or a number that YAML took for text; else the text."""
    if is_reference(data) and any(get_origin(one) is Callable for one in types):
        return at.imported(data)
    if not _NUMBERS.isdisjoint(types) and str not in types and re.fullmatch(NUMBER, data):
        return float(data)
    return data


def _from_mapping(
    data: dict[Any, Any],
    types: Sequence[Any],
    at: At,
) -> Any:  # noqa: ANN401 - of these types
    """A slice, a selector, an indexer, or a mapping with its values."""
    if table := keys_of(types):
        return {
            key: decoded(value, table.get(key, (Any,)), at / key) for key, value in data.items()
        }
    keys, values = _of_mapping(types)
    if slice in types and data.keys() == {"slice"}:
        ends = data["slice"] if isinstance(data["slice"], list) else [data["slice"]]
        ends = [decoded(end, (float,), at / "slice") for end in ends]
        if 1 <= len(ends) <= 2:
            return slice(*ends)
        (at / "slice").refuse("needs one or two numbers: start and stop.")
    # Layers by pattern are whole numbers, which no indexer takes.
    is_table = Selector in keys and all(isinstance(value, int) for value in data.values())
    if Indexer in types and not is_table:
        return _named(data, "indexer", indexers(), at)
    if Selector in types:
        return _named(data, "selector", selectors(), at)
    return {key: decoded(value, values, at / key) for key, value in data.items()}


def _from_list(data: list[Any], types: Sequence[Any], at: At) -> Any:  # noqa: ANN401 - of these types
    """A list with its members; or a mapping whose keys are more than text, as pairs."""
    keys, values = _of_mapping(types)
    if Selector in keys and all(map(_is_pair, data)):
        return {
            decoded(key, keys, at[i]): decoded(value, values, at[i])
            for i, (key, value) in enumerate(data)
        }
    for one in types:
        members = get_args(one)
        if get_origin(one) is tuple and len(members) == len(data):
            return [decoded(v, alternatives(members[i]), at[i]) for i, v in enumerate(data)]
        if get_origin(one) in LISTS:
            return [decoded(v, alternatives(members[0]), at[i]) for i, v in enumerate(data)]
    return data


def _is_pair(item: object) -> bool:
    """Whether something is a selector and what it is mapped to."""
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str | dict)


def _of_mapping(types: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The types of keys and values of the mapping among some types."""
    mappings = [get_args(one) for one in types if get_origin(one) is Mapping]
    return tuple(map(alternatives, mappings[0])) if mappings else ((), (Any,))  # type: ignore[return-value]


def _named(data: dict[Any, Any], kind: str, callees: Mapping[str, Callee], at: At) -> Any:  # noqa: ANN401 - of that kind
    """A selector or an indexer, as its call."""
    name, value = _only(data, kind, callees, at)
    if name not in callees:
        at.refuse_key(name, f"there is no {kind}", callees)
    return called(callees[name], value, at / name)
