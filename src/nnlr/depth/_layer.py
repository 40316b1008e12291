"""Layers: where in the depth of a model a parameter sits, as plain data.

An indexer says for each parameter in which layer of which tower it is. Layer 0 is nearest
the input; the last layer is nearest the output. :mod:`nnlr.depth` has the indexers.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, get_args
from weakref import WeakKeyDictionary

from nnlr._model.describe import ModelInfo
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
            NnlrError: If the model has no depth that this indexer knows.
        """

    def __repr__(self) -> str:
        """The indexer as a user would write it."""
        return f"{type(self).__name__}()"


_SOUND: Final = (
    "an nnlr.depth.Layer of whole numbers, 0 <= depth <= last, whose tower is a path and "
    f"whose part is one of {', '.join(map(repr, PARTS))}"
)

# What was asked before of a described model: a scheme needs layers for its factors and again
# for its findings. By identity, as a user's indexer need not be hashable.
_ASKED: Final[WeakKeyDictionary[ModelInfo, dict[int, tuple[Indexer, Layers]]]] = WeakKeyDictionary()


def layers_of(indexer: Indexer, model: ModelInfo) -> Layers:
    """What an indexer says of a model, checked, as anybody may write an indexer.

    It is asked once for each description of a model.

    Raises:
        NnlrError: If it is not one sound layer, or ``None``, for each parameter.
    """
    asked = _ASKED.setdefault(model, {})
    if id(indexer) not in asked:  # the indexer is kept beside its id, which stays its own
        asked[id(indexer)] = indexer, _checked(indexer, model)
    return asked[id(indexer)][1]


def _checked(indexer: Indexer, model: ModelInfo) -> Layers:
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
        if layer is not None and not _is_sound(layer):
            raise NnlrError(
                f"{indexer!r} gave {shown(layer)} for {param.name!r}: it must be None, or "
                f"{_SOUND}.",
                name=param.name,
                value=layer,
            )
    return layers


def as_layer(value: object) -> Layer:
    """Return a layer, also from a bare tuple or list, as read from a file.

    Raises:
        NnlrError: If the value is none.

    Examples:
        >>> str(as_layer([4, 13]))
        'layer 4 of 13'
    """
    if isinstance(value, tuple | list) and 2 <= len(value) <= len(Layer._fields):
        layer = Layer(*value)
        if _is_sound(layer):
            return layer
    raise NnlrError(f"layer must be {_SOUND}; got {shown(value)}.", value=value)


def _is_sound(layer: object) -> bool:
    return (
        isinstance(layer, Layer)
        and isinstance(layer.depth, int)
        and isinstance(layer.last, int)
        and 0 <= layer.depth <= layer.last
        and isinstance(layer.tower, str)
        and layer.part in PARTS
    )


class Place(NamedTuple):
    """Where a parameter stands before layers are counted.

    Attributes:
        tower: Canonical path of its tower.
        order: Sorts the layers of a tower; equal for parameters of one layer.
        part: What the layer is.
    """

    tower: str
    order: tuple[float, ...]
    part: Part


def counted(places: Iterable[Place | None]) -> list[Layer | None]:
    """Number the layers of each tower from 0, without gaps, in their order.

    Examples:
        >>> stem, block = Place("", (0,), "stem"), Place("", (5,), "block")
        >>> [str(layer) for layer in counted([block, stem, None])]
        ['layer 1 of 1', 'layer 0 of 1', 'None']
    """
    places = list(places)
    orders: dict[str, set[tuple[float, ...]]] = {}
    for place in places:
        if place is not None:
            orders.setdefault(place.tower, set()).add(place.order)
    index = {
        (tower, order): position
        for tower, found in orders.items()
        for position, order in enumerate(sorted(found))
    }
    return [
        None
        if place is None
        else Layer(
            index[place.tower, place.order],
            len(orders[place.tower]) - 1,
            place.tower,
            place.part,
        )
        for place in places
    ]


def with_final_norm(layers: Layers, where: FinalNorm) -> list[Layer | None]:
    """The same layers with the final norm in the last block, or in the layer above it.

    timm's matchers put a final norm into the last block, BEiT's and MAE's rule into the
    head. A tower that ends with its norm gets a layer more, or a layer less.

    Args:
        layers: What an indexer gave.
        where: ``"last_block"`` or ``"head"``.

    Examples:
        >>> tower = [Layer(0, 1), Layer(1, 1), Layer(1, 1, part="final_norm")]
        >>> [str(layer) for layer in with_final_norm(tower, "head")]
        ['layer 0 of 2', 'layer 1 of 2', 'layer 2 of 2']
    """
    blocks: dict[str, int] = {}  # the last block of each tower
    lasts: dict[str, int] = {}  # the last layer of each tower that has a head
    ends: set[str] = set()  # towers with a final norm
    for layer in layers:
        if layer is None:
            continue
        if layer.part == "block":
            blocks[layer.tower] = max(blocks.get(layer.tower, 0), layer.depth)
        elif layer.part == "head":
            lasts[layer.tower] = layer.last
        elif layer.part == "final_norm":
            ends.add(layer.tower)
    moved: list[Layer | None] = []
    for layer in layers:
        if layer is None or layer.tower not in ends & blocks.keys():
            moved.append(layer)
            continue
        block = blocks[layer.tower]
        last = lasts.get(layer.tower, block + (where == "head"))
        depth = layer.depth
        if layer.part == "final_norm":
            depth = last if where == "head" else block
        moved.append(layer._replace(depth=depth, last=last))
    return moved
