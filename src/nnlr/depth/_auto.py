"""Depth found in the structure of a model: repeated blocks, tower by tower.

What comes before the first block of a tower is its stem, what comes after the last its
head; a norm right after the last block counts with it, as in timm. Between blocks,
what opens a stage counts with its first block and what closes it with its last.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nnlr._arguments import Call
from nnlr._findings import Finding, note
from nnlr._model.describe import ModelInfo, uncollected
from nnlr._text import plural
from nnlr.depth._blocks.evidence import check_by_code
from nnlr.depth._blocks.layout import TowerLayout
from nnlr.depth._blocks.names import has_lost_its_classes, module_from_names
from nnlr.depth._blocks.order import WAYS_OUT
from nnlr.depth._blocks.plain import plain_towers
from nnlr.depth._blocks.stacks import BlockFinder
from nnlr.depth._blocks.towers import split_into_towers
from nnlr.depth._blocks.tree import BlockGroup, Tree
from nnlr.depth._layer import (
    Indexer,
    LayerPlace,
    Layers,
    flat_tower,
    layers_of,
    numbered_layers,
)
from nnlr.depth._timm import first_places, towers_by_matchers
from nnlr.errors import NnlrError


def auto() -> Indexer:
    """Depth from the model's own matchers, else from its repeated blocks.

    Modules that bring a ``group_matcher``, as timm's models do, are a tower each; the other
    towers are what holds repeated blocks. What is in no tower has no depth.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> blocks = [nn.TransformerEncoderLayer(4, 1, 8) for _ in range(3)]
        >>> net = nn.Sequential(nn.Linear(2, 4), *blocks, nn.Linear(4, 1))
        >>> plan = nnlr.resolve(net, nnlr.layer_decay(0.5, auto()), lr=1, weight_decay=0)
        >>> [plan[f"{i}.{'norm1.' if 0 < i < 4 else ''}weight"].lr for i in range(5)]
        [0.0625, 0.125, 0.25, 0.5, 1.0]
    """
    return Auto()


@dataclass(frozen=True, repr=False)
class Auto(Call, Indexer):
    """The indexer of :func:`auto`."""

    def layers(self, model: ModelInfo) -> Layers:
        """By the matchers; without matchers, and in other towers, by structure."""
        places = first_places(towers_by_matchers(model))
        if not places:
            places = places_by_structure(model)
        elif None in places:
            try:
                both = list(zip(places, places_by_structure(model), strict=True))
            except NnlrError:  # no tower but those of the matchers
                both = []
            with_matcher = {
                structural.tower for matched, structural in both if matched and structural
            }
            for at, (matched, structural) in enumerate(both):
                if matched is None and structural and structural.tower not in with_matcher:
                    places[at] = structural
        layers = numbered_layers(places)
        if where := flat_tower(layers, model):
            raise NnlrError(
                f"The matcher of {where} puts all of its parameters into one layer.\n  {WAYS_OUT}",
                label=model.label,
            )
        return layers

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """That the order of a plain net was told by widths, unless its containers tell it."""
        layers = layers_of(self, model)
        if any(layer and layer.part != "block" for layer in layers) or towers_by_matchers(model):
            return ()
        tree = structure_of(model)
        by_widths = [unit for unit in tree.root.below() if len(unit.kids) > 1 and not unit.is_list]
        if not by_widths or outermost_blocks(tree):
            return ()
        return [
            note(
                "depth-by-widths",
                (),
                f"{self!r} told the order of the parts of {model.label} by the widths that they "
                "take and give",
                "See plan.layers; where it is wrong, name the layers: "
                "indexer={'fc1.*': 0, 'fc2.*': 1, ...}.",
            )
        ]


@uncollected()
def places_by_structure(model: ModelInfo) -> list[LayerPlace | None]:
    """The places that follow from the repeated blocks of a model.

    If they cannot be certain in the order of registration, in that in which code uses the parts.

    Raises:
        NnlrError: If there are none, or if they are certain in neither order.
    """
    try:
        return _places(structure_of(model))
    except NnlrError as error:
        try:
            return _places(structure_of(model, by_code=True))
        except NnlrError:
            raise error from None


def _places(tree: Tree) -> list[LayerPlace | None]:
    """The places in one order of the parts."""
    group = outermost_blocks(tree)
    read = _places_of_towers(tree, group) if group else _places_of_layers(tree)
    places: list[LayerPlace | None] = [None] * len(tree.model.params)
    for at, place in read:
        first = places[at]
        # A tied tensor counts in its first tower, and there where it is used first.
        if first is None or (first.tower == place.tower and place.order < first.order):
            places[at] = place
    check_by_code(tree, places)
    return places


def structure_of(model: ModelInfo, *, by_code: bool = False) -> Tree:
    """The tree of a model's modules, or of those that its names tell."""
    module = model.module
    if module is None or has_lost_its_classes(module):
        module = module_from_names(model)
    return Tree(model, module, by_code=by_code)


def outermost_blocks(tree: Tree) -> BlockGroup | None:
    """The blocks of a model, by the first of two searches that finds several."""
    for siblings in (False, True):
        group = BlockFinder(tree, siblings=siblings).blocks_of_model()
        if group and len(group.blocks()) > 1:
            return group
    return None


def _places_of_towers(tree: Tree, group: BlockGroup) -> Iterator[tuple[int, LayerPlace]]:
    """Positions and places of parameters in towers of blocks."""
    for tower in split_into_towers(tree, group):
        yield from TowerLayout(tree, tower).places()


def _places_of_layers(tree: Tree) -> Iterator[tuple[int, LayerPlace]]:
    """Positions and places of parameters in a model of single layers."""
    towers = plain_towers(tree)
    if not towers:
        raise NnlrError(
            f"indexer 'auto' finds no repeated blocks in {tree.model.label} "
            f"({plural(len(tree.model.params), 'parameter')}): there is nothing to count "
            f"layers by.\n  {WAYS_OUT}",
            label=tree.model.label,
        )
    for tower in towers:
        yield from tower.places(tower.unit.path if len(towers) > 1 else "")
