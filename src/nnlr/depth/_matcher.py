"""Layers from a model's own matcher: the ``group_matcher`` that timm's models bring.

A matcher is a mapping of names to patterns, or a function of a parameter's name. Either
gives each name a key, and the sorted keys are the layers. What is read here is what
timm 1.0.31 reads, key by key:

- a mapping is tried in its order, and the first pattern that matches the start of the name
  wins; the key is (place of the entry, captured numbers, suffix of the pattern);
- a name that nothing matches comes last;
- a key that ends in 99999 joins the layer before it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf, isfinite
from typing import Final

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._model.names import Node, nodes
from nnlr._text import shown
from nnlr.depth._layer import Part, Place
from nnlr.errors import NnlrError

Key = tuple[float, ...]

Matcher = Mapping[str, object] | Callable[[str], object]

UNMATCHED: Final[Key] = (inf,)

_JOINS_PREVIOUS: Final = 99999


def with_matchers(model: ModelInfo) -> Iterator[tuple[Node, Matcher]]:
    """The outermost modules that bring a matcher, and what they bring.

    Raises:
        NnlrError: If a module's ``group_matcher`` fails, or gives no matcher.
    """
    if model.module is None:
        return
    found: list[Node] = []
    for node in nodes(model.module, bare=False):
        bring = getattr(node.module, "group_matcher", None)
        if callable(bring) and found[-1:] != [_holder(node, found)]:
            found.append(node)
            yield node, _brought(node, bring)


def _holder(node: Node, found: list[Node]) -> Node | None:
    """The module met last that brought a matcher, if this one is inside it."""
    return next((up for up in node.above() if found and up is found[-1]), None)


def _brought(node: Node, bring: Callable[..., object]) -> Matcher:
    whose = f"{node.cls.__name__}.group_matcher"
    try:
        matcher = bring(coarse=False)
    except Exception as error:
        raise NnlrError(
            f"{whose}(coarse=False) failed: {error}. Mend it, or say which layer is which "
            "with another indexer."
        ) from error
    if not isinstance(matcher, Mapping) and not callable(matcher):
        raise NnlrError(
            f"{whose}(coarse=False) must give a mapping of patterns or a function of a "
            f"name, got {shown(matcher, typed=True)}.",
            value=matcher,
        )
    return matcher


def matched(model: ModelInfo, tower: str, matcher: Matcher) -> list[Place | None]:
    """The place of every parameter in one tower; ``None`` for those outside it.

    Args:
        model: The model described.
        tower: Canonical path of the module whose matcher it is, ``""`` for the whole model.
        matcher: A mapping of patterns, or a function of a parameter's name in the tower.
    """
    key_of = as_key(matcher)
    names = [name_inside(param, tower) for param in model.params]
    keys = [None if name is None else key_of(name) for name in names]
    ids = numbered({key for key in keys if key is not None})
    parts = _parts(model, keys, _stem_ordinal(matcher, ids))
    return [
        None if key is None else Place(tower, (ids[key],), part)
        for key, part in zip(keys, parts, strict=True)
    ]


def first_of(towers: Iterable[list[Place | None]]) -> list[Place | None]:
    """What the first tower that has a parameter says of it; tied ones may be in several."""
    return [
        next((place for place in places if place is not None), None)
        for places in zip(*towers, strict=True)
    ]


def name_inside(param: ParamInfo, tower: str) -> str | None:
    """A parameter's first name as the tower spells it; ``None`` outside the tower."""
    if not tower:
        return param.name
    prefix = f"{tower}."
    inside = (name for name in param.names if name.startswith(prefix))
    first = next(inside, None)
    return None if first is None else first.removeprefix(prefix)


def as_key(matcher: Matcher) -> Callable[[str], Key]:
    r"""The function that gives a name its key.

    Examples:
        >>> key_of = as_key({"stem": "^stem", "blocks": [(r"^blocks\.(\d+)", None)]})
        >>> key_of("blocks.3.weight"), key_of("stem.weight"), key_of("head.weight")
        ((1.0, 3.0), (0.0,), (inf,))
    """
    if not isinstance(matcher, Mapping):
        return lambda name: _as_tuple(matcher(name))
    patterns = list(_compiled(matcher))

    def key_of(name: str) -> Key:
        for pattern, ordinal, suffix in patterns:
            if found := pattern.match(name):
                return tuple(map(float, (ordinal, *found.groups(), *suffix)))
        return UNMATCHED

    return key_of


def _as_tuple(key: object) -> Key:
    numbers = key if isinstance(key, Iterable) else (key,)
    return tuple(map(float, numbers))


def _compiled(
    matcher: Mapping[str, object],
) -> Iterator[tuple[re.Pattern[str], int, tuple[float, ...]]]:
    """(pattern, place of the entry, suffix); an entry is a pattern, or a list of pairs."""
    for ordinal, given in enumerate(matcher.values()):
        if isinstance(given, list | tuple):
            for pattern, suffix in given:
                yield re.compile(pattern), ordinal, tuple(suffix or ())
        elif given is not None:
            yield re.compile(str(given)), ordinal, ()


def numbered(keys: Iterable[Key]) -> dict[Key, int]:
    """The layer of each key: dense, from 0, in sorted order.

    Examples:
        >>> numbered([(1.0, 0.0), (0.0,), (1.0, 99999.0), (inf,), (1.0, 4.0)])
        {(0.0,): 0, (1.0, 0.0): 1, (1.0, 4.0): 2, (1.0, 99999.0): 2, (inf,): 3}
    """
    ids: dict[Key, int] = {}
    layer = -1
    for key in sorted(keys):
        if layer < 0 or key[-1] != _JOINS_PREVIOUS:
            layer += 1
        ids[key] = layer
    return ids


def _stem_ordinal(matcher: Matcher, ids: Mapping[Key, int]) -> float:
    """What the keys of the stem begin with; a function says nothing, so the lowest key."""
    if isinstance(matcher, Mapping):
        return float(list(matcher).index("stem")) if "stem" in matcher else -1.0
    return min(ids, default=UNMATCHED)[0]


def _parts(model: ModelInfo, keys: list[Key | None], stem: float) -> list[Part]:
    """What each parameter's layer is, in order."""
    top = max((key for key in keys if key and isfinite(key[0])), default=UNMATCHED)
    ends_with_norm = top[-1] == _JOINS_PREVIOUS and all(
        param.role == "norm" for param, key in zip(model.params, keys, strict=True) if key == top
    )
    parts: list[Part] = []
    for param, key in zip(model.params, keys, strict=True):
        if key is None or not isfinite(key[0]):
            parts.append("head")
        elif key[0] == stem:
            parts.append(stem_part(param))
        else:
            parts.append("final_norm" if ends_with_norm and key == top else "block")
    return parts


def stem_part(param: ParamInfo) -> Part:
    """``"patch_embed"`` for a projection in the stem, else ``"stem"``."""
    cls = param.owner_type
    projects = cls is not None and issubclass(cls, (_ConvNd, nn.Linear))
    return "patch_embed" if projects else "stem"
