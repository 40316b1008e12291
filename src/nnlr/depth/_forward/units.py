"""Units, parameters that are in one layer, and which of them are before which.

Blocks are those that :func:`nnlr.depth.auto` finds, if the forward runs them in series; outside
of blocks the layers are units.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from torch import nn

from nnlr._model.describe import ModelInfo
from nnlr.depth._blocks.layout import TowerLayout
from nnlr.depth._blocks.stacks import BlockFinder
from nnlr.depth._blocks.towers import split_into_towers
from nnlr.depth._blocks.tree import BlockGroup, Bundle, ModelStep, Tree
from nnlr.depth._layer import Part

Stack = list[list[int]]  # the parameters of each block of a list


@dataclass(slots=True)
class FlowUnit:
    """Parameters that are in one layer."""

    params: list[int]  # positions
    blocks: int = 0  # how many blocks they are
    bits: int = 0  # the parameters, one bit each
    before: int = 0  # the units before it, one bit each
    after: int = 0  # the units after it
    part: Part | None = None  # None between blocks, and beside all of them
    exponent: int = 0


def ordered_units(
    model: ModelInfo, before: dict[int, int]
) -> tuple[list[FlowUnit], list[list[int]]]:
    """The units of a model and their order; and what had to be joined, as it is in a circle."""
    members = _blocks(model, before)
    blocks = len(members)
    members += _layers_outside(model, {at for block in members for at in block})
    parts = [set(params) for params in members]
    earlier = closure(parts, before)
    groups: list[int] = []  # the first unit of each circle, for each unit
    for at, bits in enumerate(earlier):
        mutual = (other for other in ones(bits) if other < at and earlier[other] >> at & 1)
        groups.append(next(mutual, at))
    units = []
    circles = []
    for first in dict.fromkeys(groups):
        joined = [at for at, group in enumerate(groups) if group == first]
        params = sorted(param for at in joined for param in members[at])
        units.append(FlowUnit(params, blocks=sum(at < blocks for at in joined)))
        # A bare parameter that acts inside a block is in no circle with it.
        if len(joined) > 1 and units[-1].blocks != 1:
            circles.append(params)
    earlier = closure([set(unit.params) for unit in units], before)
    for at, unit in enumerate(units):
        unit.bits = bits_of(unit.params)
        unit.before = earlier[at] & ~(1 << at)
        for below in ones(unit.before):
            units[below].after |= 1 << at
    return units, circles


def closure(members: list[set[int]], before: dict[int, int]) -> list[int]:
    """For each of several sets of parameters those that are before it, also by way of others."""
    owner = {at: number for number, params in enumerate(members) for at in params}
    earlier = []
    for number, params in enumerate(members):
        bits = 0
        for at in params:
            bits |= before.get(at, 0)
        units = bits_of({owner[at] for at in ones(bits) if at in owner} - {number})
        earlier.append(units)
    for via, bits in enumerate(earlier):
        for number in range(len(earlier)):
            if earlier[number] >> via & 1:
                earlier[number] |= bits
    return earlier


def ones(bits: int) -> Iterator[int]:
    """The positions of the ones of a number.

    Examples:
        >>> list(ones(0b1010))
        [1, 3]
    """
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def bits_of(positions: Iterable[int]) -> int:
    """The number with ones at these positions.

    Examples:
        >>> bin(bits_of([1, 3]))
        '0b1010'
    """
    bits = 0
    for position in positions:
        bits |= 1 << position
    return bits


def _layers_outside(model: ModelInfo, inside: set[int]) -> list[list[int]]:
    """The parameters outside of blocks: those of a layer together, bare ones each by itself."""
    around = {path for param in model.params for path, _ in param.ancestors[:-1]}
    layers: dict[str, list[int]] = {}
    for at, param in enumerate(model.params):
        if at in inside:
            continue
        path = param.name if param.owner in around else param.owner
        for outer, cls in param.ancestors:
            if issubclass(cls, nn.MultiheadAttention):
                path = outer
        layers.setdefault(path, []).append(at)
    return list(layers.values())


def _blocks(model: ModelInfo, before: dict[int, int]) -> list[list[int]]:
    """The parameters of each block; blocks of lists that take turns are joined."""
    tree = Tree(model, cast(nn.Module, model.module))
    stacks = list(_stacks(tree, before))
    stacks += _later_lists(tree, stacks, before)
    turns: list[list[Stack]] = []
    for stack in stacks:
        for lists in turns:
            if any(_take_turns(stack, other, before) for other in lists):
                lists.append(stack)
                break
        else:
            turns.append([stack])
    seen: set[int] = set()
    blocks = []
    for lists in turns:
        for parts in zip(*lists, strict=True):
            if params := [at for part in parts for at in part if at not in seen]:
                seen.update(params)
                blocks.append(params)
    return blocks


def _stacks(tree: Tree, before: dict[int, int]) -> Iterator[Stack]:
    """The lists of blocks that run in series; members that stand side by side are looked into."""
    for siblings in (False, True):
        finder = BlockFinder(tree, siblings=siblings)
        group = finder.blocks_of_model()
        if group and len(group.blocks()) > 1:
            break
    else:
        return
    for tower in split_into_towers(tree, group):
        TowerLayout(tree, tower)  # takes small lists in stem and head out
    pending = [group]
    while pending:
        for members in _innermost_lists(pending.pop()):
            params = [step.params for step in members]
            if _in_series(params, before):
                yield params
                continue
            for step in members:
                inner = finder._group(step.unit) if step.whole else None
                if inner is not None:
                    pending.append(inner)


def _later_lists(tree: Tree, stacks: list[Stack], before: dict[int, int]) -> Iterator[Stack]:
    """Lists above the blocks that run in series, and are too heavy for a head: decoders.

    Where connections skip blocks, widths do not tell that they follow one another.
    """
    inside = {at for stack in stacks for block in stack for at in block}
    weight = sum(tree.model.params[at].numel for at in inside)
    blocks = bits_of(inside)
    for unit in tree.root.below():
        members = [kid for kid in unit.kids if tree.is_composite(kid)]
        if not issubclass(unit.cls, nn.ModuleList) or len(members) < 2:
            continue
        params = [list(kid.params()) for kid in members]
        if (
            inside.isdisjoint(unit.params())
            and 10 * sum(kid.numel for kid in members) > weight
            and all(_before(member, before) & blocks for member in params)
            and _in_series(params, before)
        ):
            yield params


def _innermost_lists(group: BlockGroup) -> Iterator[list[ModelStep]]:
    """The blocks of a group, list by list; those of lists of one length are not joined yet."""
    lists: dict[str, list[ModelStep]] = {}
    for item in group.items:
        if not isinstance(item, ModelStep) or not item.block:
            continue
        if item.unit.cls is Bundle:
            for kid in item.unit.kids:
                path = kid.path.rpartition(".")[0]
                lists.setdefault(path, []).append(ModelStep.of(kid, block=True))
        else:
            lists.setdefault("", []).append(item)
    yield from lists.values()
    for item in group.items:
        if isinstance(item, BlockGroup):
            yield from _innermost_lists(item)


def _in_series(members: list[list[int]], before: dict[int, int]) -> bool:
    """Whether one of several parts is before another; so is a part that is alone."""
    everything = bits_of(at for params in members for at in params)
    return len(members) == 1 or any(
        _before(params, before) & everything & ~bits_of(params) for params in members
    )


def _before(params: Iterable[int], before: dict[int, int]) -> int:
    """The parameters before any of several ones."""
    bits = 0
    for at in params:
        bits |= before.get(at, 0)
    return bits


def _take_turns(one: Stack, other: Stack, before: dict[int, int]) -> bool:
    """Whether the members of two lists of one length alternate, as under ``zip``."""
    if len(one) != len(other) or len(one) < 2:
        return False
    for first, second in ((one, other), (other, one)):
        in_turn = [member for pair in zip(first, second, strict=True) for member in pair]
        if all(
            _before(after, before) & bits_of(params)
            and not _before(params, before) & bits_of(after)
            for params, after in pairwise(in_turn)
        ):
            return True
    return False
