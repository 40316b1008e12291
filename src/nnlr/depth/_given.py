"""Indexers that a user gives: by name, as a function of ParamInfo, or as a mapping of patterns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Final, TypeGuard

from torch import nn

from nnlr._arguments import choice
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._select.selector import Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import listed, plural, shown
from nnlr.depth._auto import auto
from nnlr.depth._flow import flow
from nnlr.depth._language import LANGUAGE
from nnlr.depth._layer import Indexer, Layer, Layers
from nnlr.depth._timm import timm
from nnlr.depth._vision import VISION
from nnlr.errors import NnlrError

_FUNCTIONS: Final[tuple[Callable[..., Indexer], ...]] = (auto, timm, *VISION, *LANGUAGE)

INDEXERS: Final[Mapping[str, Callable[..., Indexer]]] = {f.__name__: f for f in _FUNCTIONS}


def as_indexer(value: object) -> Indexer:
    """Return an indexer: itself, by its name, or made from a function or a mapping.

    Raises:
        NnlrError: If the value is none of these.

    Examples:
        >>> as_indexer("auto")
        auto()
    """
    if isinstance(value, Indexer):
        return value
    if value is flow or (isinstance(value, str) and value == "flow"):
        raise NnlrError(
            "indexer flow needs an example of what the model is called with: "
            "nnlr.depth.flow(torch.zeros(1, 3, 224, 224)), or by name, flow(input_ids=ids).",
            value=value,
        )
    if isinstance(value, str):
        return INDEXERS[choice(value, "indexer", INDEXERS)]()
    if isinstance(value, Mapping):
        return by_pattern(value)
    for name, function in INDEXERS.items():
        if value is function:
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


def written_indexer(indexer: Indexer) -> object:
    """Return the argument that stands for an indexer: its name, if it is made without arguments.

    Examples:
        >>> written_indexer(as_indexer("auto"))
        'auto'
    """
    plain = {f"{name}()": name for name in INDEXERS}
    return plain.get(repr(indexer), indexer)


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
            as_selector(pattern, "indexer"): _layer_number(layer, repr(pattern))
            for pattern, layer in layers.items()
        }
    )


_MOST: Final = 10**9  # of layers; far more than there are, and still exact in a float


def _layer_number(layer: object, whose: str) -> int:
    """Return the number of a layer, or refuse what is none."""
    if not isinstance(layer, Integral) or isinstance(layer, bool) or not 0 <= int(layer) <= _MOST:
        raise NnlrError(
            f"The layer of {whose} must be a whole number >= 0, got {shown(layer)}.", value=layer
        )
    return int(layer)


def _as_numbered(depths: list[int | None], model: ModelInfo, indexer: Indexer) -> Layers:
    """Layers as a user numbered them: gaps stay, the largest number is the last layer."""
    numbers = {depth for depth in depths if depth is not None}
    if len(numbers) < 2:
        raise NnlrError(
            f"{indexer!r} finds {plural(len(numbers), 'layer')} in the {len(depths)} parameters "
            f"of {model.label}: nothing can be said about depth with fewer than 2."
        )
    last = max(numbers)
    return [None if depth is None else Layer(depth, last) for depth in depths]


@dataclass(frozen=True, repr=False, eq=False)
class _ByFunction(Indexer):
    layer_of: Callable[[ParamInfo], int | None]

    def layers(self, model: ModelInfo) -> Layers:
        depths: list[int | None] = []
        for param in model.params:
            depth = self.layer_of(param)
            depths.append(None if depth is None else _layer_number(depth, repr(param.name)))
        return _as_numbered(depths, model, self)

    def written_as(self) -> object:
        return self.layer_of

    def __repr__(self) -> str:
        return getattr(self.layer_of, "__name__", repr(self.layer_of))


@dataclass(frozen=True, repr=False, eq=False)
class _ByPattern(Indexer):
    table: dict[Selector, int]

    def layers(self, model: ModelInfo) -> Layers:
        # The selector that numbered each parameter.
        chosen_by: list[Selector | None] = [None] * len(model.params)
        for selector, layer in self.table.items():
            what = f"indexer {selector!r}"
            for index in must_match(selector, model, what, may_be_optional=False):
                earlier = chosen_by[index]
                chosen_by[index] = selector
                if earlier is None or self.table[earlier] == layer:
                    continue
                # Of a tied tensor, the selector counts that matches its first name.
                name = model.params[index].name
                matching = [s for s in (earlier, selector) if name in s.reach(model, index)]
                if len(matching) != 1:
                    raise NnlrError(
                        f"Two patterns of the indexer match {name!r}: {earlier!r} says layer "
                        f"{self.table[earlier]}, {selector!r} says layer {layer}. "
                        "Narrow one of them.",
                        name=name,
                    )
                chosen_by[index] = matching[0]
        depths = [None if selector is None else self.table[selector] for selector in chosen_by]
        return _as_numbered(depths, model, self)

    def written_as(self) -> object:
        return self.table

    def __repr__(self) -> str:
        return f"{{{listed(f'{selector!r}: {layer}' for selector, layer in self.table.items())}}}"
