"""The towers of a model: which of the parts that hold blocks follow one another.

Parts do so unless one has an input of its own. What stands beside several towers belongs
to none, except what one of them looks up there.
"""

from dataclasses import dataclass

from nnlr.depth._blocks.tree import BlockGroup, ModelStep, Tree


@dataclass(slots=True)
class Tower:
    """Steps that follow one another, from an input on, and the path of what holds them."""

    path: str
    steps: list[ModelStep]


def split_into_towers(
    tree: Tree, group: BlockGroup, around: tuple[BlockGroup, ...] = ()
) -> list[Tower]:
    """The towers in a group, which stands in the groups ``around``."""
    around = (*around, group)
    towers: list[Tower] = []
    opening: list[ModelStep] = []  # before the first tower
    loose: list[ModelStep] = []  # not yet known to belong to a tower
    outside = _with_input_outside(tree, group)
    for item in group.items:
        if isinstance(item, ModelStep):
            item.around = around
            if not item.block:
                loose.append(item)
                continue
            inner = [Tower(group.unit.path, [item])]
        else:
            inner = split_into_towers(tree, item, around)
            if towers and (
                (item is outside and not (loose or towers[-1].steps[0].block))
                or _starts_new_tower(tree, group, item, [*towers[-1].steps, *loose])
            ):
                towers += inner
                loose = []
                continue
        if towers:
            towers[-1].steps += [*loose, *inner[0].steps]
            towers += inner[1:]
        else:
            opening, towers = loose, inner
        loose = []
    if len(towers) == 1:
        towers[0].path = group.unit.path
        towers[0].steps = [*opening, *towers[0].steps, *loose]
    elif outside and towers[-1].path == outside.unit.path:
        # Its embeddings, and the norms and bare matrices of their width, belong to it.
        lookups = [step for step in loose if tree.is_lookup(step.unit)]
        widths = set[int]().union(*(tree.output_widths(step.unit) for step in lookups))
        matrices = [
            step
            for step in opening
            if not step.whole and not widths.isdisjoint(tree.model.params[step.params[0]].shape)
        ]
        norms = [
            step
            for step in loose
            if tree.is_norm(step.unit) and widths == tree.output_widths(step.unit)
        ]
        towers[-1].steps = [*matrices, *lookups, *towers[-1].steps, *norms]
    return towers


def _with_input_outside(tree: Tree, group: BlockGroup) -> BlockGroup | None:
    """The second of two parts, if what it looks up stands after it, not in it."""
    groups = [item for item in group.items if isinstance(item, BlockGroup)]
    if group.listed or len(groups) != 2 or groups[-1].listed:
        return None
    last = groups[-1]
    after = group.items[group.items.index(last) + 1 :]  # steps only
    others = [step.unit for step in after if not tree.is_norm(step.unit)]
    if not others or not all(map(tree.is_lookup, others)):
        return None
    return None if any(tree.is_lookup(step.unit) for step in last.steps()) else last


def _starts_new_tower(
    tree: Tree, group: BlockGroup, item: BlockGroup, before: list[ModelStep]
) -> bool:
    """Whether a part of a group starts a tower of its own after these steps."""
    if group.listed:
        return group.branches
    if item.listed:
        return False
    last_block = max(at for at, step in enumerate(before) if step.block)
    widths = set[int]().union(*(tree.output_widths(step.unit) for step in before[last_block:]))
    return tree.has_own_input(item.steps(), widths)
