"""Indexers that a user gives: by name, as a function of ParamInfo, or as a mapping of patterns."""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Final, TypeGuard

from torch import nn

from nnlr._arguments import choice
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._select.selectors import Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import listed, plural, shown
from nnlr.depth._auto import auto
from nnlr.depth._layer import Indexer, Layer, Layers
from nnlr.depth._timm import PUBLISHED
from nnlr.errors import NnlrError

INDEXERS: Final[Mapping[str, Callable[..., Indexer]]] = {"auto": auto, **PUBLISHED}


def as_indexer(value: object) -> Indexer:
    """Return an indexer: itself, by its name, or made from a function or a mapping.

    Raises:
        NnlrError: If the value is nothing of that.

    Examples:
        >>> as_indexer("auto")
        auto()
    """
    if isinstance(value, Indexer):
        return value
    if isinstance(value, str):
        return INDEXERS[choice(value, "indexer", INDEXERS)]()
    if isinstance(value, Mapping):
        return by_pattern(value)
    for name, made in INDEXERS.items():
        if value is made:
            raise NnlrError(f"indexer is a function: call it, nnlr.depth.{name}().")
    if _is_function(value):
        return _ByFunction(value)
    hint = ""
    if isinstance(value, type) and issubclass(value, Indexer):
        hint = f" Make one: {value.__name__}()."
    if isinstance(value, nn.Module):
        hint = " The model comes first: resolve(model, layer_decay(...), ...)."
    raise NnlrError(
        f"indexer must be one of {', '.join(map(repr, INDEXERS))}, a function of ParamInfo, "
        f"or a mapping of patterns to layer numbers; got {shown(value, typed=True)}.{hint}",
        value=value,
    )


def _is_function(value: object) -> TypeGuard[Callable[[ParamInfo], int | None]]:
    """Whether it can be asked for layers; classes and modules are callable by accident."""
    return callable(value) and not isinstance(value, type | nn.Module)


def by_function(layer_of: Callable[[ParamInfo], int | None]) -> Indexer:
    """Layers from a function: 0 nearest the input, ``None`` for outside every tower.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> scheme = nnlr.layer_decay(0.5, by_function(lambda p: int(p.name.split(".")[0])))
        >>> plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
        >>> [row.lr for row in plan if row.name.endswith("weight")]
        [0.25, 0.5, 1.0]
    """
    if not _is_function(layer_of):
        raise NnlrError(f"by_function needs a function of ParamInfo, got {shown(layer_of)}.")
    return _ByFunction(layer_of)


def by_pattern(layers: Mapping[str | Selector, int]) -> Indexer:
    """Layers from a mapping of patterns; what none of them matches is outside every tower.

    Raises:
        NnlrError: If a layer is not a whole number >= 0; at resolve, if two patterns give
            one parameter different layers.
        PatternError: At resolve, if a pattern matches nothing.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> scheme = nnlr.layer_decay(0.5, {"0.*": 0, "1.*": 1})
        >>> nnlr.resolve(net, scheme, lr=1, weight_decay=0)["0.weight"].lr
        0.5
    """
    if not isinstance(layers, Mapping) or not layers:
        raise NnlrError(
            "by_pattern needs a mapping such as {'stem.*': 0, 'blocks.0.*': 1}, got "
            f"{shown(layers)}."
        )
    return _ByPattern(
        {
            as_selector(pattern, "indexer"): _whole(layer, repr(pattern))
            for pattern, layer in layers.items()
        }
    )


def _whole(layer: object, whose: str) -> int:
    if not isinstance(layer, Integral) or isinstance(layer, bool) or layer < 0:
        raise NnlrError(
            f"The layer of {whose} must be a whole number >= 0, got {shown(layer)}.",
            value=layer,
        )
    return int(layer)


def _as_given(indices: list[int | None], model: ModelInfo, who: object) -> Layers:
    """Layers as a user numbered them: gaps stay, the largest number is the last layer."""
    given = {index for index in indices if index is not None}
    if len(given) < 2:
        found = plural(len(given), "layer")
        raise NnlrError(
            f"{who!r} finds {found} in the {len(indices)} parameters of {model.label}: "
            "nothing can be said about depth with fewer than 2.",
        )
    last = max(given)
    return [None if index is None else Layer(index, last) for index in indices]


class _ByFunction(Indexer):
    def __init__(self, layer_of: Callable[[ParamInfo], int | None]) -> None:
        self.layer_of = layer_of

    def layers(self, model: ModelInfo) -> Layers:
        indices: list[int | None] = []
        for param in model.params:
            found = self.layer_of(param)
            indices.append(None if found is None else _whole(found, repr(param.name)))
        return _as_given(indices, model, self)

    def __repr__(self) -> str:
        return getattr(self.layer_of, "__name__", repr(self.layer_of))


class _ByPattern(Indexer):
    def __init__(self, table: dict[Selector, int]) -> None:
        self.table = table

    def layers(self, model: ModelInfo) -> Layers:
        chosen: list[tuple[Selector, int] | None] = [None] * len(model.params)
        for selector, layer in self.table.items():
            what = f"indexer {selector!r}"
            for index in must_match(selector, model, what, may_be_optional=False):
                earlier = chosen[index]
                if earlier is None or earlier[1] == layer:
                    chosen[index] = selector, layer
                else:
                    chosen[index] = _one_of(earlier, (selector, layer), model, index)
        return _as_given([each and each[1] for each in chosen], model, self)

    def __repr__(self) -> str:
        said = [f"{selector!r}: {layer}" for selector, layer in self.table.items()]
        return f"{{{listed(said)}}}"


def _one_of(
    earlier: tuple[Selector, int],
    later: tuple[Selector, int],
    model: ModelInfo,
    index: int,
) -> tuple[Selector, int]:
    """Of two patterns that match a tied tensor, the one that matches its first name.

    Raises:
        NnlrError: If both match that name, or neither.
    """
    param = model.params[index]
    first = [each for each in (earlier, later) if param.name in each[0].reach(model, index)]
    if len(first) == 1:
        return first[0]
    raise NnlrError(
        f"Two patterns of the indexer match {param.name!r}: {earlier[0]!r} says layer "
        f"{earlier[1]}, {later[0]!r} says layer {later[1]}. Narrow one of them.",
        name=param.name,
    )
