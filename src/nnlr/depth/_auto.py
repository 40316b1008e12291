"""Depth found in the structure of a model: repeated blocks, tower by tower.

What comes before the first block of a tower is its stem, what comes after the last its
head; a norm right after the last block counts with it, as in timm. Between blocks,
what opens a stage counts with its first block and what closes it with its last.
"""

from dataclasses import dataclass
from functools import partial

from nnlr._arguments import Call
from nnlr._model.describe import ModelInfo, uncollected
from nnlr._text import plural
from nnlr.depth._blocks.layout import TowerLayout
from nnlr.depth._blocks.stacks import BlockFinder, single_layer_stacks
from nnlr.depth._blocks.towers import split_into_towers
from nnlr.depth._blocks.tree import BlockGroup, Tree
from nnlr.depth._layer import Indexer, LayerPlace, Layers, flat_tower, numbered_layers
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
                f"The matcher of {where} puts all of its parameters into one layer.\n  {_FIX}",
                label=model.label,
            )
        return layers


_FIX = (
    "Say which layer is which: indexer={'stem.*': 0, 'blocks.0.*': 1, ...},\n"
    "  a function of ParamInfo, or the name of one of nnlr.depth.INDEXERS."
)


@uncollected()
def places_by_structure(model: ModelInfo) -> list[LayerPlace | None]:
    """The places that follow from the repeated blocks of a model."""
    if model.module is None:
        raise NnlrError(
            f"indexer 'auto' looks for the blocks of a model in its modules, and "
            f"{model.label} have none.\n  Pass the model itself. {_FIX}",
            label=model.label,
        )
    tree = Tree(model, model.module)
    places: list[LayerPlace | None] = [None] * len(model.params)
    group, single_layers = _outermost_blocks(tree)
    for tower in split_into_towers(tree, group):
        for at, place in TowerLayout(tree, tower, single_layers=single_layers).places():
            first = places[at]
            # A tied tensor counts in its first tower, and there where it is used first.
            if first is None or (first.tower == place.tower and place.order < first.order):
                places[at] = place
    return places


def _outermost_blocks(tree: Tree) -> tuple[BlockGroup, bool]:
    """The blocks of a model, and whether these are single layers.

    By the first of three searches that finds several.
    """
    most = 0
    for single_layers, search in (
        (False, BlockFinder(tree).blocks_of_model),
        (False, BlockFinder(tree, siblings=True).blocks_of_model),
        (True, partial(single_layer_stacks, tree, tree.root)),
    ):
        group = search()
        count = len(group.blocks()) if group else 0
        if group and count > 1:
            return group, single_layers
        most = max(most, count)
    raise NnlrError(
        f"indexer 'auto' finds no repeated blocks in {tree.model.label} "
        f"({plural(len(tree.model.params), 'parameter')}"
        f"{', 1 block' if most else ''}): there is nothing to count layers by.\n"
        f"  {_FIX}",
        label=tree.model.label,
    )
