"""The depth indexers that papers and their code use, exactly as released."""

from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Final

from nnlr._arguments import as_call
from nnlr._model.describe import ModelInfo
from nnlr._model.names import nodes
from nnlr._text import shown
from nnlr.depth._language import electra, xlnet
from nnlr.depth._layer import Indexer, Layers, Place, counted
from nnlr.depth._matcher import first_of, matched, name_inside, with_matchers
from nnlr.depth._vision import convnext, dinov2, swin, vit, vitdet
from nnlr.errors import NnlrError

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
    if not isinstance(fallback, bool):
        raise NnlrError(f"fallback must be True or False, got {shown(fallback)}.", value=fallback)
    return _Timm(fallback=fallback)


class _Timm(Indexer):
    def __init__(self, *, fallback: bool) -> None:
        self.fallback = fallback

    def layers(self, model: ModelInfo) -> Layers:
        towers = [matched(model, node.path, matcher) for node, matcher in with_matchers(model)]
        if not towers and self.fallback:
            towers = [_chunked(model, *tower) for tower in _classifiers(model)]
        if not towers:
            raise NnlrError(self._nothing(model))
        layers = counted(first_of(towers))
        if flat := {layer.tower for layer in layers if layer and not layer.last}:
            where = f"{model.label}.{min(flat)}".rstrip(".")
            raise NnlrError(
                f"The group_matcher of {where} puts all of its parameters into one layer: "
                "nothing can be said about depth. Say which layer is which with a mapping of "
                "patterns, or with another of nnlr.depth.INDEXERS."
            )
        return layers

    def _nothing(self, model: ModelInfo) -> str:
        if model.module is None:
            return (
                f"{self!r} reads the group_matcher of a model, and {model.label} have none. "
                "Pass the model itself, or use an indexer that reads names."
            )
        if self.fallback:
            return (
                f"Neither {model.label} nor a module in it has a group_matcher, or a "
                "pretrained_cfg with the name of a classifier, which timm's fallback needs "
                "to tell the head. Use nnlr.depth.auto()."
            )
        return (
            f"Neither {model.label} nor a module in it has a group_matcher, as most models "
            "of timm have. Use nnlr.depth.auto(), which looks for repeated blocks; or "
            "nnlr.depth.timm(fallback=True), timm's own way out: layers of 12 parameters."
        )

    def __repr__(self) -> str:
        return as_call(timm, fallback=self.fallback)


def _classifiers(model: ModelInfo) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The modules that name their classifier, outer ones first: path, prefixes of names."""
    if model.module is None:
        return
    for node in nodes(model.module, bare=False):
        if heads := _heads(getattr(node.module, "pretrained_cfg", None)):
            yield node.path, heads


def _heads(config: object) -> tuple[str, ...]:
    named = config.get("classifier") if isinstance(config, Mapping) else None
    return (named,) if isinstance(named, str) and named else tuple(named or ())


def _chunked(model: ModelInfo, tower: str, heads: tuple[str, ...]) -> list[Place | None]:
    """Layers of so many parameter names, and the head on top of them."""
    places: list[Place | None] = []
    below = 0
    for param in model.params:
        name = name_inside(param, tower)
        if name is None:
            places.append(None)
        elif name.startswith(heads):
            places.append(Place(tower, (inf,), "head"))
        else:
            places.append(Place(tower, (below // _CHUNK,), "block"))
            below += 1
    return places


PUBLISHED: Final[dict[str, Callable[..., Indexer]]] = {
    "timm": timm,
    "vit": vit,
    "dinov2": dinov2,
    "swin": swin,
    "convnext": convnext,
    "vitdet": vitdet,
    "electra": electra,
    "xlnet": xlnet,
}
