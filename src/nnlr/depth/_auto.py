"""Depth found in the structure of a model: repeated blocks, tower by tower.

What comes before the first block of a tower is its stem, what comes after the last its
head; a norm right after the last block counts with it, as in timm. Between blocks,
what opens a stage counts with its first block and what closes it with its last.
"""

from functools import partial

from nnlr._model.describe import ModelInfo, uncollected
from nnlr._text import plural
from nnlr.depth._blocks.layout import _Layout
from nnlr.depth._blocks.stacks import Stacks, leaf_stacks
from nnlr.depth._blocks.steps import Group
from nnlr.depth._blocks.towers import split
from nnlr.depth._blocks.tree import Tree
from nnlr.depth._layer import Indexer, Layers, Place, counted
from nnlr.depth._matcher import first_of, matched, with_matchers
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
    return _Auto()


class _Auto(Indexer):
    def layers(self, model: ModelInfo) -> Layers:
        layers = counted(_places(model))
        found = [layer for layer in layers if layer is not None]
        if flat := {layer.tower for layer in found if layer.last == 0}:
            where = f"{model.label}.{min(flat)}".rstrip(".")
            raise NnlrError(
                f"The matcher of {where} puts all of its parameters into one layer.\n  {_FIX}",
                label=model.label,
            )
        return layers

    def __repr__(self) -> str:
        return "auto()"


_FIX = (
    "Say which layer is which: indexer={'stem.*': 0, 'blocks.0.*': 1, ...},\n"
    "  a function of ParamInfo, or the name of one of nnlr.depth.INDEXERS."
)


def _places(model: ModelInfo) -> list[Place | None]:
    """By the matchers; where there are none, and in towers without one, by structure."""
    matched = matched_places(model)
    if not matched:
        return structural_places(model)
    if None not in matched:
        return matched
    try:
        found = structural_places(model)
    except NnlrError:  # no tower but those of the matchers
        return matched
    both = list(zip(matched, found, strict=True))
    known = {new.tower for old, new in both if old and new}
    return [old or (new if new and new.tower not in known else None) for old, new in both]


def matched_places(model: ModelInfo) -> list[Place | None]:
    """The places that the models' own matchers give; empty if there are no matchers."""
    return first_of(matched(model, node.path, matcher) for node, matcher in with_matchers(model))


@uncollected()
def structural_places(model: ModelInfo) -> list[Place | None]:
    """The places that follow from the repeated blocks of a model.

    Raises:
        NnlrError: If nothing in the model is repeated.
    """
    if model.module is None:
        raise NnlrError(
            f"indexer 'auto' looks for the blocks of a model in its modules, and "
            f"{model.label} have none.\n  Pass the model itself. {_FIX}",
            label=model.label,
        )
    tree = Tree(model, model.module)
    places: list[Place | None] = [None] * len(model.params)
    group, leaves = _outermost(tree)
    for tower in split(tree, group):
        for at, place in _Layout(tree, tower, leaves=leaves).places():
            old = places[at]
            # A tied tensor counts in its first tower, and there where it is used first.
            if old is None or (old.tower == place.tower and place.order < old.order):
                places[at] = place
    return places


def _outermost(tree: Tree) -> tuple[Group, bool]:
    """The blocks of a model, and whether these are single layers.

    By the first way in which there are several.
    """
    found = 0
    for leaves, look in (
        (False, Stacks(tree).settled),
        (False, Stacks(tree, siblings=True).settled),
        (True, partial(leaf_stacks, tree, tree.root)),
    ):
        group = look()
        blocks = list(group.blocks()) if group else []
        if group and len(blocks) > 1:
            return group, leaves
        found = max(found, len(blocks))
    raise NnlrError(
        f"indexer 'auto' finds no repeated blocks in {tree.model.label} "
        f"({plural(len(tree.model.params), 'parameter')}"
        f"{', 1 block' if found else ''}): there is nothing to count layers by.\n"
        f"  {_FIX}",
        label=tree.model.label,
    )
