"""A model as one thing after another: steps, and the groups that hold its blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from torch import nn

from nnlr.depth._blocks.tree import Tree, Unit


@dataclass(slots=True, eq=False)
class Step:
    """One thing after another in a model: a block, or what is no block.

    Attributes:
        params: Positions of its parameters.
        unit: The unit that it is; of raw parameters, and of a part of a unit, the owner.
        block: Whether it is a block.
        whole: Whether it is the whole unit.
    """

    params: list[int]
    unit: Unit
    block: bool = False
    whole: bool = True


@dataclass(slots=True, eq=False)
class Group:
    """A unit that holds blocks, and what else it holds, in order.

    Attributes:
        unit: The unit.
        items: Its steps, and the groups in it.
        listed: Whether it is a list, whose members follow one another.
        branches: Whether it is a list of whole models side by side.
    """

    unit: Unit
    items: "list[Step | Group]" = field(default_factory=list)
    listed: bool = False
    branches: bool = False

    def blocks(self) -> Iterator[Step]:
        """All blocks in it, in order."""
        for item in self.items:
            if isinstance(item, Group):
                yield from item.blocks()
            elif item.block:
                yield item


def raw(unit: Unit) -> list[Step]:
    """The parameters that a unit holds directly, each a step."""
    return [Step([at], unit, whole=False) for at in unit.own]


def flat(group: Group) -> Iterator[Step]:
    """All steps of a group, in order."""
    for item in group.items:
        if isinstance(item, Group):
            yield from flat(item)
        else:
            yield item


def given(tree: Tree, unit: Unit) -> set[int]:
    """All widths that layers of a unit give out."""
    return {width for leaf in tree.leaves(unit) for width in tree.gives(leaf)}


def taken(tree: Tree, unit: Unit) -> set[int]:
    """All widths that layers of a unit take in."""
    return {width for leaf in tree.leaves(unit) for width in tree.takes(leaf)}


def begins_anew(tree: Tree, steps: Iterable[Step], widths: set[int]) -> bool:
    """Whether steps have an input of their own, not what was computed before them.

    They look something up, or their first layer takes a width that nothing before gives.

    Args:
        tree: The units of the model.
        steps: Steps with a block among them, in order.
        widths: What the layers before them give out.
    """
    first: set[int] = set()
    steps = list(steps)
    for step in takewhile(lambda step: not step.block, steps):
        for leaf in tree.leaves(step.unit) if step.whole else ():
            if issubclass(leaf.cls, nn.Embedding):
                return True
            first = first or tree.takes(leaf)
    if not first:  # any of the blocks may take what was computed before
        looks = {step.unit.looks: step.unit for step in steps if step.block}
        first = {width for unit in looks.values() for width in taken(tree, unit)}
    return widths.isdisjoint(first)
