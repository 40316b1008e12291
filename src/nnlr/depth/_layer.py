"""Layers: where in the depth of a model a parameter is, as plain data.

An indexer says for each parameter in which layer of which tower it is. Layer 0 is nearest
the input; the last layer is nearest the output. :mod:`nnlr.depth` has the indexers.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, get_args
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnlr._arguments import by_fields, choice
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._text import plural, shown
from nnlr.errors import NnlrError

Part = Literal["stem", "patch_embed", "block", "final_norm", "head"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

FinalNorm = Literal["head", "last_block"]
FINAL_NORMS: Final[tuple[FinalNorm, ...]] = get_args(FinalNorm)


class Layer(NamedTuple):
    """The place of one parameter in the depth of a model.

    Attributes:
        depth: Its layer, 0 nearest the input.
        last: The layer nearest the output of the same tower.
        tower: Canonical path of the tower, ``""`` where the whole model is one.
        part: What that layer is: stem, patch embedding (a projection in the stem), block,
            final norm, or head (all that comes after).
    """

    depth: int
    last: int
    tower: str = ""
    part: Part = "block"

    @property
    def below(self) -> int:
        """How many layers it is below the last one: the exponent of layer decay."""
        return self.last - self.depth

    def __str__(self) -> str:
        """``layer 4 of 13``, and of which tower."""
        tower = f" of {self.tower}" if self.tower else ""
        return f"layer {self.depth} of {self.last}{tower}"


Layers = Sequence[Layer | None]


class Indexer(ABC):
    """Says in which layer each parameter is; subclass it for a rule of your own.

    :mod:`nnlr.depth` has the published ones; a function or a mapping does for most others.
    """

    @abstractmethod
    def layers(self, model: ModelInfo) -> Layers:
        """The layer of each of ``model.params``, in order; ``None`` outside every tower.

        Raises:
            NnlrError: If this indexer finds no depth in the model.
        """

    def basis(self, model: ModelInfo) -> str:
        """What the layers of this model were read from, for traces; nothing by default."""
        return ""

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What is to be pointed out about the layers of this model; nothing by default."""
        return ()

    def written_as(self) -> object:
        """The call that makes it, for its repr and for :mod:`nnlr.config`.

        By default the class with the fields of a dataclass.
        """
        return by_fields(self)

    def __repr__(self) -> str:
        """The indexer as a user would write it."""
        return repr(self.written_as())


_VALID_LAYER: Final = (
    "an nnlr.depth.Layer of whole numbers, 0 <= depth <= last, whose tower is a path and "
    f"whose part is one of {', '.join(map(repr, PARTS))}"
)

# The layers of a described model by each indexer: a scheme needs them for its factors and
# again for its findings. By the indexer's id, as a user's indexer need not be hashable; the
# indexer is kept beside its layers, so that no other object gets its id.
_CACHE: Final[WeakKeyDictionary[ModelInfo, dict[int, tuple[Indexer, Layers]]]] = WeakKeyDictionary()


def layers_of(indexer: Indexer, model: ModelInfo) -> Layers:
    """The layers that an indexer gives, checked, and asked for once per described model."""
    cache = _CACHE.setdefault(model, {})
    if id(indexer) in cache:
        return cache[id(indexer)][1]
    layers = indexer.layers(model)
    countable = isinstance(layers, Sequence)
    if not countable or len(layers) != len(model.params):
        got = plural(len(layers), "layer") if countable else shown(layers, typed=True)
        raise NnlrError(
            f"{indexer!r} gave {got} for the {len(model.params)} parameters of "
            f"{model.label}: layers(model) returns one nnlr.depth.Layer, or None, for "
            "each, in order."
        )
    for param, layer in zip(model.params, layers, strict=True):
        if layer is not None and not _is_valid(layer):
            raise NnlrError(
                f"{indexer!r} gave {shown(layer)} for {param.name!r}: it must be None, or "
                f"{_VALID_LAYER}.",
                name=param.name,
                value=layer,
            )
    cache[id(indexer)] = indexer, layers
    return layers


def as_layer(value: object) -> Layer:
    """Return a layer, also from a plain tuple or list, as read from a file.

    Examples:
        >>> str(as_layer([4, 13]))
        'layer 4 of 13'
    """
    if isinstance(value, tuple | list) and 2 <= len(value) <= len(Layer._fields):
        layer = Layer(*value)
        if _is_valid(layer):
            return layer
    raise NnlrError(f"layer must be {_VALID_LAYER}; got {shown(value)}.", value=value)


def _is_valid(layer: object) -> bool:
    return (
        isinstance(layer, Layer)
        and type(layer.depth) is int
        and type(layer.last) is int
        and 0 <= layer.depth <= layer.last
        and isinstance(layer.tower, str)
        and isinstance(layer.part, str)
        and layer.part in PARTS
    )


_MAPS: Final = frozenset({"embedding", "matrix", "conv", "head", "router", "lora_a", "lora_b"})


def is_layer(param: ParamInfo) -> bool:
    """Whether it is more than a vector; a linear map to one number is."""
    return param.role in _MAPS or sum(size > 1 for size in param.shape) > 1


class LayerPlace(NamedTuple):
    """Where a parameter is before layers are numbered."""

    tower: str  # canonical path
    order: tuple[float, ...]  # sorts the layers of a tower; equal for parameters of one layer
    part: Part


def numbered_layers(places: Iterable[LayerPlace | None]) -> list[Layer | None]:
    """Number the layers of each tower from 0, without gaps, in their order.

    Examples:
        >>> stem, block = LayerPlace("", (0,), "stem"), LayerPlace("", (5,), "block")
        >>> [str(layer) for layer in numbered_layers([block, stem, None])]
        ['layer 1 of 1', 'layer 0 of 1', 'None']
    """
    places = list(places)
    orders: dict[str, set[tuple[float, ...]]] = {}
    for place in places:
        if place is not None:
            orders.setdefault(place.tower, set()).add(place.order)
    layer_of: dict[LayerPlace | None, Layer | None] = {None: None}
    depths = {
        tower: {order: i for i, order in enumerate(sorted(orders[tower]))} for tower in orders
    }
    for place in places:
        if place is not None:
            of_tower = depths[place.tower]
            depth = of_tower[place.order]
            layer_of[place] = Layer(depth, len(of_tower) - 1, place.tower, place.part)
    return [layer_of[place] for place in places]


def flat_tower(layers: Layers, model: ModelInfo) -> str | None:
    """The model or module all of whose parameters are in one layer, by its path, if any is."""
    towers = [layer.tower for layer in layers if layer is not None and layer.last == 0]
    return f"{model.label}.{min(towers)}".rstrip(".") if towers else None


def stem_part(param: ParamInfo) -> Part:
    """``"patch_embed"`` for a projection in the stem, else ``"stem"``."""
    cls = param.owner_type
    projects = cls is not None and issubclass(cls, (_ConvNd, nn.Linear))
    return "patch_embed" if projects else "stem"


def with_final_norm(layers: Layers, where: FinalNorm) -> list[Layer | None]:
    """The same layers with the final norm in the last block, or in the layer above it.

    timm's matchers put a final norm into the last block, BEiT's and MAE's rule into the
    head. A tower that ends with its norm gets a layer more, or a layer less.

    Args:
        layers: The layers that an indexer gives.
        where: ``"last_block"`` or ``"head"``.

    Raises:
        NnlrError: If an argument is none of these.

    Examples:
        >>> tower = [Layer(0, 1), Layer(1, 1), Layer(1, 1, part="final_norm")]
        >>> [str(layer) for layer in with_final_norm(tower, "head")]
        ['layer 0 of 2', 'layer 1 of 2', 'layer 2 of 2']
    """
    choice(where, "where", FINAL_NORMS)
    is_list = isinstance(layers, Sequence) and not isinstance(layers, str | bytes)
    if not is_list or not all(layer is None or _is_valid(layer) for layer in layers):
        raise NnlrError(
            f"layers must be a list in which each is None, or {_VALID_LAYER}; got {shown(layers)}.",
            value=layers,
        )
    tops: dict[tuple[str, Part], int] = {}  # of each part of each tower
    for layer in layers:
        if layer is not None:
            top = layer.last if layer.part == "head" else layer.depth
            key = layer.tower, layer.part
            tops[key] = max(top, tops.get(key, 0))
    moved: list[Layer | None] = []
    for layer in layers:
        block = None if layer is None else tops.get((layer.tower, "block"))
        if layer is None or block is None or (layer.tower, "final_norm") not in tops:
            moved.append(layer)
            continue
        last = tops.get((layer.tower, "head"), block + (where == "head"))
        norm = last if where == "head" else block
        depth = norm if layer.part == "final_norm" else layer.depth
        moved.append(layer._replace(depth=depth, last=last))
    return moved
