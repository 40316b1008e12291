"""YAML as plain data: PyYAML's safe loader with the numbers of YAML 1.2, and no key twice.

Loaded on use, as PyYAML is an extra.
"""

import re
from typing import Any, Final

import yaml

from nnlr._text import printable

_TAG: Final = "tag:yaml.org,2002:"

# The core schema of YAML 1.2, which editors go by. PyYAML's own, 1.1, takes 1e-3 for text,
# 1:30 for 90, and yes, no, on and off for bools.
_CORE: Final = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with another idea of numbers."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own name for them

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave ``<<`` alone: it is no part of YAML 1.2, and nested merges grow without bound."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The dict of a mapping, in which no key comes twice."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {printable(key.value)!r} comes twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes text that would be read as a number."""


for _name, (_pattern, _first) in _CORE.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), list(_first))
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile("$"), [""])


def parsed(text: str) -> Any:  # noqa: ANN401 - of any shape
    """The data in a text.

    Raises:
        ValueError: If it is no YAML, or more than plain data; with the line.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - derived from the safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{line}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except (KeyError, AttributeError) as error:  # of PyYAML, where a value does not fit its tag
        raise ValueError(f"a tag (!!) does not fit its value: {error}") from None


def written(data: object) -> str:
    """Data as a text, of which :func:`parsed` makes them again."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
