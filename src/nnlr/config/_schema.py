"""The JSON Schema of recipes and schemes, from the same signatures as the loader's."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

from nnlr._arguments import choice
from nnlr._declare.scheme import Scheme
from nnlr._select.selector import Selector
from nnlr.config._calls import Callee, indexers, schemes, selectors
from nnlr.config._classes import OPTIMIZERS, SCHEDULERS, Kind
from nnlr.config._load import RATE, SCHEMA_KEY
from nnlr.config._recipe import Recipe
from nnlr.config._scheme import NUMBER
from nnlr.config._types import LISTS, alternatives, is_open, keys_of
from nnlr.depth import INDEXERS, Indexer

Schema = dict[str, Any]

_REFERENCE: Final = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"

# What YAML 1.1 takes for text is a number too.
_NUMBER: Final[Schema] = {"type": ["number", "string"], "pattern": f"^{NUMBER}$"}

_PLAIN: Final[Mapping[Any, Schema]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: _NUMBER,
    str: {"type": "string"},
    NoneType: {"type": "null"},
    Scheme: {"$ref": "#/$defs/scheme"},
    Selector: {"$ref": "#/$defs/selector"},
    Indexer: {"$ref": "#/$defs/indexer"},
}

Part = Literal["recipe", "scheme"]


def schema(part: Part = "recipe") -> Schema:
    """The JSON Schema (draft 2020-12) of configurations, for editors and other programs.

    What :func:`load` accepts fits it. What it does not know are ranges of numbers and what
    depends on several keys.

    Args:
        part: ``"recipe"`` for the files that :func:`load` reads, ``"scheme"`` for a scheme alone.

    Examples:
        >>> import json
        >>> text = json.dumps(schema(), indent=1)  # save it as nnlr.schema.json
        >>> list(schema()["properties"])[:4]
        ['$schema', 'lr', 'weight_decay', 'decay']
    """
    choice(part, "part", get_args(Part))
    top = _recipe() if part == "recipe" else {"$ref": "#/$defs/scheme"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"nnlr {part}",
        **top,
        "$defs": {
            "scheme": _scheme(),
            "selector": _one_of(selectors(), {"type": "string", "minLength": 1}),
            "indexer": _one_of(indexers(), {"enum": list(INDEXERS)}),
            "optimizer": _classes(OPTIMIZERS),
            "scheduler": _classes(SCHEDULERS),
        },
    }


def _recipe() -> Schema:
    """The schema of a recipe."""
    texts = _argument_texts(Recipe)
    properties = {
        "lr": _any_of(RATE),
        "weight_decay": _any_of(RATE),
        "decay": {"enum": ["coupled", "independent", "sqrt", None]},
        "scheme": {"anyOf": [_PLAIN[Scheme], _PLAIN[NoneType]]},
        "algorithms": _one_or_several("optimizer"),
        "schedule": _one_or_several("scheduler"),
    }
    described = {key: {**value, **_described(texts, key)} for key, value in properties.items()}
    return {
        "type": "object",
        "properties": {SCHEMA_KEY: {"type": "string"}, **described},
        "required": ["lr", "weight_decay"],
        "additionalProperties": False,
    }


def _scheme() -> Schema:
    """The schema of a scheme."""
    reference = {"type": "string", "pattern": _REFERENCE}
    setting = {"enum": ["lr", "weight_decay"]}
    restrictions = {
        "at": {
            "description": "The function of progress that moves its multipliers while training.",
            "anyOf": [
                reference,
                {
                    "type": "object",
                    "properties": {"function": reference, "setting": setting},
                    "required": ["function"],
                    "additionalProperties": False,
                },
            ],
        },
        "where": {
            "description": "Act on these parameters only.",
            "anyOf": [
                _PLAIN[Selector],
                {
                    "type": "object",
                    "properties": {"select": _PLAIN[Selector], "optional": _PLAIN[bool]},
                    "required": ["select"],
                    "additionalProperties": False,
                },
            ],
        },
        "within": {
            "description": "The path of a submodule, which the scheme takes for the model.",
            "type": "string",
            "minLength": 1,
        },
    }
    named = {name: _callee(callee) for name, callee in schemes().items()}
    product = {"description": "All of these schemes.", **_PLAIN[Scheme]}
    rule = _arguments(schemes()["rule"])
    bare = [name for name, callee in schemes().items() if _needs_nothing(callee)]
    return {
        "anyOf": [
            {"enum": bare},
            reference,
            {"type": "array", "items": _PLAIN[Scheme], "minItems": 1},
            {
                "type": "object",
                "properties": {**named, "product": product, **restrictions},
                "patternProperties": {_REFERENCE: {}},
                "additionalProperties": False,
                "not": {"propertyNames": {"enum": list(restrictions)}},
                "maxProperties": 4,
            },
            {**rule, "properties": {**rule["properties"], **restrictions}},
        ]
    }


def _one_of(callees: Mapping[str, Callee], text: Schema) -> Schema:
    """The schema of a text, or a mapping with one of some names."""
    return {
        "anyOf": [
            text,
            {
                "type": "object",
                "properties": {name: _callee(callee) for name, callee in callees.items()},
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ]
    }


def _callee(callee: Callee) -> Schema:
    """The schema of what is written below the name of a function."""
    forms = [_PLAIN[NoneType]] if _needs_nothing(callee) else []
    if callee.members:
        member = _any_of(callee.members)
        forms += [member, {"type": "array", "items": member}]
    else:
        forms.append(_arguments(callee))
        if callee.first:
            forms.append(_any_of(callee.first.types))
    doc = (inspect.getdoc(callee.function) or "").partition("\n")[0]
    return {"description": _prose(doc), "anyOf": forms}


def _needs_nothing(callee: Callee) -> bool:
    """Whether a function can be called without arguments."""
    return not callee.members and not any(a.required for a in callee.arguments.values())


def _arguments(callee: Callee) -> Schema:
    """The schema of arguments by name."""
    texts = _argument_texts(callee.function)
    return {
        "type": "object",
        "properties": {
            key: {**_any_of(argument.types), **_described(texts, argument.name)}
            for key, argument in callee.arguments.items()
        },
        "required": [key for key, argument in callee.arguments.items() if argument.required],
        "additionalProperties": False,
    }


def _classes(kind: Kind) -> Schema:
    """The schema of a class with its settings."""
    of_class: dict[type, list[str]] = {}
    for name, cls in kind.names.items():
        of_class.setdefault(cls, []).append(name)
    settings_of = {cls: _arguments(kind.settings(cls)) for cls in of_class}
    chains = [cls for cls in of_class if "schedulers" in settings_of[cls]["properties"]]
    forms: list[Schema] = [
        {"enum": [name for name, cls in kind.names.items() if cls not in chains]},
        {"type": "string", "pattern": _REFERENCE},
        {
            "type": "object",
            "properties": {"class": {"type": "string", "pattern": _REFERENCE}},
            "required": ["class"],
        },
    ]
    for cls, names in of_class.items():
        settings, required = settings_of[cls], ["class"]
        properties = {"class": {"enum": names}, **settings["properties"]}
        if cls in chains:
            items = {"$ref": "#/$defs/scheduler"}
            properties["schedulers"] = {"type": "array", "items": items, "minItems": 1}
            required = ["class", "schedulers"]
        forms.append({**settings, "properties": properties, "required": required})
    return {"anyOf": forms}


def _one_or_several(word: str) -> Schema:
    """The schema of one class, or of several by name."""
    one = {"$ref": f"#/$defs/{word}"}
    nothing = _PLAIN[NoneType]
    several = {
        "type": "object",
        "propertyNames": {"not": {"const": "class"}},
        "additionalProperties": {"anyOf": [one, nothing]},
    }
    return {"anyOf": [one, several, nothing]}


def _any_of(types: Sequence[Any]) -> Schema:
    """The schema of a value of any of some types."""
    if any(is_open(one) for one in types):
        return {}
    forms = [form for one in types for form in _forms(one, types)]
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _forms(one: Any, types: Sequence[Any]) -> list[Schema]:  # noqa: ANN401 - a type
    """The forms in which a value of one of some types is written; none for what is no data."""
    origin, inside = get_origin(one), get_args(one)
    forms: list[Schema] = []
    if one in _PLAIN:
        # Text beside a selector or an indexer is one: their own schema has a form for it.
        is_other = one is str and (Selector in types or Indexer in types)
        forms = [] if is_other else [_PLAIN[one]]
    elif one is slice:
        end = {"anyOf": [_NUMBER, _PLAIN[NoneType]]}
        several = {"type": "array", "items": end, "minItems": 1, "maxItems": 2}
        ends = {"slice": {"anyOf": [_NUMBER, several]}}
        forms = [{"type": "object", "properties": ends, "required": ["slice"]}]
    elif origin is Literal:
        forms = [{"enum": list(inside)}]
    elif origin is Callable:
        forms = [{"type": "string", "pattern": _REFERENCE}]
    elif origin is Mapping:
        keys, values = alternatives(inside[0]), _any_of(alternatives(inside[1]))
        forms = [{"type": "object", "additionalProperties": values}]
        if Selector in keys:
            forms.append({"type": "array", "items": _tuple([_any_of(keys), values])})
    elif table := keys_of((one,)):
        texts = _argument_texts(one)
        properties = {key: {**_any_of(t), **_described(texts, key)} for key, t in table.items()}
        required = sorted(one.__required_keys__)
        forms = [{"type": "object", "properties": properties, "required": required}]
        forms[0]["additionalProperties"] = False
    elif origin is tuple:
        forms = [_tuple([_any_of(alternatives(member)) for member in inside])]
    elif origin in LISTS:
        forms = [{"type": "array", "items": _any_of(alternatives(inside[0]))}]
    return forms


def _tuple(members: list[Schema]) -> Schema:
    """The schema of a list of so many members."""
    size = len(members)
    return {"type": "array", "prefixItems": members, "minItems": size, "maxItems": size}


def _described(texts: Mapping[str, str], name: str) -> Schema:
    """A description, where there is one."""
    return {"description": texts[name]} if name in texts else {}


def _argument_texts(function: object) -> dict[str, str]:
    """What a docstring says of each argument."""
    doc = inspect.getdoc(function) or ""
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n|\n)+)", f"{doc}\n", re.MULTILINE)
    entries = re.findall(
        r"^    (\w+): ((?:.|\n {8})*)", section[1] if section else "", re.MULTILINE
    )
    return {name: _prose(" ".join(text.split())) for name, text in entries}


def _prose(text: str) -> str:
    """A text without the marks of reStructuredText."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "")
