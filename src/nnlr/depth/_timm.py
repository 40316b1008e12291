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
from dataclasses import KW_ONLY, dataclass
from math import inf, isfinite
from typing import Final

from nnlr._arguments import Call, flag
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._model.names import Node, nodes
from nnlr._text import shown
from nnlr.depth._layer import (
    Indexer,
    LayerPlace,
    Layers,
    Part,
    flat_tower,
    numbered_layers,
    stem_part,
)
from nnlr.errors import NnlrError

SortKey = tuple[float, ...]
Matcher = Mapping[str, object] | Callable[[str], object]

UNMATCHED: Final[SortKey] = (inf,)

_JOINS_PREVIOUS: Final = 99999

# Parameters in one layer of timm's fallback.
_CHUNK: Final = 12


def timm(*, fallback: bool = False) -> Indexer:
    """The model's own ``group_matcher(coarse=False)``, read as timm reads it.

    The outermost modules that bring a matcher are the towers, so that a timm model inside
    another module, a LightningModule say, keeps its depth; parameters outside them are in
    no layer. Unlike timm's own function it works on a compiled or otherwise wrapped model.

    Args:
        fallback: Without any matcher do as timm does: cut the names of the parameters into
            layers of 12, in their order, below the head that
            ``pretrained_cfg["classifier"]`` names. Twelve tensors are no layer of any
            model: :func:`nnlr.depth.auto` looks for the blocks instead.

    Raises:
        NnlrError: If ``fallback`` is no bool; at resolve, if there is no matcher (with
            ``fallback``: and no classifier's name), or it puts all into one layer.

    Examples:
        >>> timm(fallback=True)
        timm(fallback=True)
    """
    return Timm(fallback=flag(fallback, "fallback"))


@dataclass(frozen=True, repr=False)
class Timm(Call, Indexer):
    """The indexer of :func:`timm`."""

    _: KW_ONLY
    fallback: bool = False

    def layers(self, model: ModelInfo) -> Layers:
        """By the matchers, or with ``fallback`` in chunks."""
        towers = towers_by_matchers(model) or (list(_chunks(model)) if self.fallback else [])
        if not towers:
            missing = f"Neither {model.label} nor a module in it has a group_matcher, "
            if model.module is None:
                raise NnlrError(
                    f"{self!r} reads the group_matcher of a model, and {model.label} have none. "
                    "Pass the model itself, or use an indexer that reads names."
                )
            if self.fallback:
                raise NnlrError(
                    f"{missing}or a pretrained_cfg with the name of a classifier, which timm's "
                    "fallback needs to tell the head. Use nnlr.depth.auto()."
                )
            raise NnlrError(
                f"{missing}as most models of timm have. Use nnlr.depth.auto(), which looks for "
                "repeated blocks; or nnlr.depth.timm(fallback=True), timm's own way out: layers "
                "of 12 parameters."
            )
        layers = numbered_layers(first_places(towers))
        if where := flat_tower(layers, model):
            raise NnlrError(
                f"The group_matcher of {where} puts all of its parameters into one layer: "
                "nothing can be said about depth. Say which layer is which with a mapping of "
                "patterns, or with another of nnlr.depth.INDEXERS."
            )
        return layers


def towers_by_matchers(model: ModelInfo) -> list[list[LayerPlace | None]]:
    """For each matcher of the model the places that it gives; ``None`` outside its tower."""
    return [places_in_tower(model, node.path, m) for node, m in modules_with_matchers(model)]


def first_places(towers: Iterable[list[LayerPlace | None]]) -> list[LayerPlace | None]:
    """The place of each parameter in the first tower that has it; tied ones may be in several."""
    return [
        next((place for place in places if place is not None), None)
        for places in zip(*towers, strict=True)
    ]


def modules_with_matchers(model: ModelInfo) -> Iterator[tuple[Node, Matcher]]:
    """The outermost modules that bring a matcher, and what they bring."""
    last: Node | None = None
    for node in _modules(model):
        bring = getattr(node.module, "group_matcher", None)
        if not callable(bring) or (last and last in node.above()):
            continue
        last = node
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
        yield node, matcher


def _modules(model: ModelInfo) -> Iterator[Node]:
    """The modules of a model, outer ones first; nothing for bare tensors."""
    return iter(()) if model.module is None else nodes(model.module, bare=False)


def places_in_tower(model: ModelInfo, tower: str, matcher: Matcher) -> list[LayerPlace | None]:
    """The place of every parameter in the tower at this path; ``None`` for those outside it."""
    key_of = key_function(matcher)
    names = [_name_inside(param, tower) for param in model.params]
    keys = [None if name is None else key_of(name) for name in names]
    numbers = numbered_keys({key for key in keys if key is not None})
    # What the keys of the stem begin with; a function does not say, so the lowest key.
    if isinstance(matcher, Mapping):
        stem = float(list(matcher).index("stem")) if "stem" in matcher else -1.0
    else:
        stem = min(numbers, default=UNMATCHED)[0]
    top = max((key for key in keys if key and isfinite(key[0])), default=UNMATCHED)
    pairs = list(zip(model.params, keys, strict=True))
    ends_with_norm = top[-1] == _JOINS_PREVIOUS and all(
        param.role == "norm" for param, key in pairs if key == top
    )
    places: list[LayerPlace | None] = []
    for param, key in pairs:
        part: Part = "final_norm" if ends_with_norm and key == top else "block"
        if key is None:
            places.append(None)
            continue
        if not isfinite(key[0]):
            part = "head"
        elif key[0] == stem:
            part = stem_part(param)
        places.append(LayerPlace(tower, (numbers[key],), part))
    return places


def _name_inside(param: ParamInfo, tower: str) -> str | None:
    """A parameter's first name as the tower spells it; ``None`` outside the tower."""
    if not tower:
        return param.name
    prefix = f"{tower}."
    inside = (name.removeprefix(prefix) for name in param.names if name.startswith(prefix))
    return next(inside, None)


def key_function(matcher: Matcher) -> Callable[[str], SortKey]:
    r"""The function that gives a name its key.

    Examples:
        >>> key_of = key_function({"stem": "^stem", "blocks": [(r"^blocks\.(\d+)", None)]})
        >>> key_of("blocks.3.weight"), key_of("stem.weight"), key_of("head.weight")
        ((1.0, 3.0), (0.0,), (inf,))
    """
    if not isinstance(matcher, Mapping):

        def key_by_function(name: str) -> SortKey:
            key = matcher(name)
            return tuple(map(float, key if isinstance(key, Iterable) else (key,)))

        return key_by_function
    patterns: list[tuple[re.Pattern[str], int, tuple[float, ...]]] = []
    for ordinal, entry in enumerate(matcher.values()):  # a pattern, or a list of pairs
        if isinstance(entry, list | tuple):
            for pattern, suffix in entry:
                patterns.append((re.compile(pattern), ordinal, tuple(suffix or ())))
        elif entry is not None:
            patterns.append((re.compile(str(entry)), ordinal, ()))

    def key_by_patterns(name: str) -> SortKey:
        for pattern, ordinal, suffix in patterns:
            if match := pattern.match(name):
                return tuple(map(float, (ordinal, *match.groups(), *suffix)))
        return UNMATCHED

    return key_by_patterns


def numbered_keys(keys: Iterable[SortKey]) -> dict[SortKey, int]:
    """The layer of each key, from 0 without gaps, in sorted order.

    Examples:
        >>> numbered_keys([(1.0, 0.0), (0.0,), (1.0, 99999.0), (inf,), (1.0, 4.0)])
        {(0.0,): 0, (1.0, 0.0): 1, (1.0, 4.0): 2, (1.0, 99999.0): 2, (inf,): 3}
    """
    numbers: dict[SortKey, int] = {}
    layer = -1
    for key in sorted(keys):
        if layer < 0 or key[-1] != _JOINS_PREVIOUS:
            layer += 1
        numbers[key] = layer
    return numbers


def _chunks(model: ModelInfo) -> Iterator[list[LayerPlace | None]]:
    """For each module that names its classifier: layers of 12 parameters, the head on top."""
    for node in _modules(model):
        config = getattr(node.module, "pretrained_cfg", None)
        named = config.get("classifier") if isinstance(config, Mapping) else None
        heads = (named,) if isinstance(named, str) and named else tuple(named or ())
        if not heads:
            continue
        places: list[LayerPlace | None] = []
        below_head = 0
        for param in model.params:
            name = _name_inside(param, node.path)
            if name is None:
                places.append(None)
            elif name.startswith(heads):
                places.append(LayerPlace(node.path, (inf,), "head"))
            else:
                places.append(LayerPlace(node.path, (below_head // _CHUNK,), "block"))
                below_head += 1
        yield places
