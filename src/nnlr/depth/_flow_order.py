"""The layers of a model, from what one forward has shown.

Parameters are joined to units: blocks, and outside of blocks the layers. One unit is before
another if its parameters flow into what the other one meets. The exponent of layer decay is
the longest way from a unit to the output, counted in layers: parallel towers, heads at half
height and connections that skip blocks need no rule of their own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

from torch import nn

from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr.depth._blocks.layout import TowerLayout
from nnlr.depth._blocks.stacks import BlockFinder
from nnlr.depth._blocks.towers import split_into_towers
from nnlr.depth._blocks.tree import BlockGroup, Bundle, ModelStep, Tree
from nnlr.depth._flow_record import Recording
from nnlr.depth._layer import Layer, Part, stem_part
from nnlr.errors import NnlrError

Towers = Literal["apart", "chain"]

_MAPS: Final = frozenset({"embedding", "matrix", "conv", "head", "router", "lora_a", "lora_b"})


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


@dataclass(frozen=True)
class Order:
    """Where the parameters of a model are, by one forward."""

    layers: list[Layer | None]
    unused: list[int] = field(default_factory=list)  # positions of what the forward did not use
    dropped: list[int] = field(default_factory=list)  # of what reaches no output
    circles: list[list[int]] = field(default_factory=list)  # of units that are before one another


def order_of(model: ModelInfo, recording: Recording, towers: Towers) -> Order:
    """Number the layers.

    Raises:
        NnlrError: If no parameter meets an input, or all are in one layer.
    """
    before = recording.before
    if not before:
        raise NnlrError(
            f"nnlr.depth.flow finds no parameter of {model.label} that the forward applies to "
            "its inputs. Pass tensors that the model computes with."
        )
    units, circles = _ordered_units(model, before)
    from_top = sorted(units, key=lambda unit: unit.after.bit_count())
    if towers == "apart":
        for lower, upper in _towers_apart(units, model, before):
            _cut(units, lower, upper)
    _set_parts(model, units)
    _count(model, units, from_top)
    last = max(unit.exponent for unit in units if any(at in before for at in unit.params))
    if not last:
        raise NnlrError(
            f"nnlr.depth.flow finds 1 layer in the {len(model.params)} parameters of "
            f"{model.label}: none of them is after another."
        )
    layers: list[Layer | None] = [None] * len(model.params)
    for unit in units:
        if any(at in before for at in unit.params):
            for at in unit.params:
                layers[at] = _layer(model.params[at], unit, last)
    unused = [at for at in range(len(layers)) if at not in before]
    dropped = [at for at in before if not recording.touched >> at & 1]
    return Order(layers, unused, sorted(dropped), circles)


def _layer(param: ParamInfo, unit: FlowUnit, last: int) -> Layer:
    part = unit.part or "block"
    if part == "stem":
        part = stem_part(param)
    return Layer(max(last - unit.exponent, 0), last, part=part)


# --- units


def _ordered_units(
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
        mutual = (each for each in ones(bits) if each < at and earlier[each] >> at & 1)
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
        for each in ones(unit.before):
            units[each].after |= 1 << at
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
        path = param.owner
        if path in around or not path:
            path = param.name if param.owner_type is None or path in around else path
        for outer, cls in param.ancestors:
            if issubclass(cls, nn.MultiheadAttention):
                path = outer
        layers.setdefault(path, []).append(at)
    return list(layers.values())


def _blocks(model: ModelInfo, before: dict[int, int]) -> list[list[int]]:
    """The parameters of each block; blocks of lists that take turns are joined."""
    if model.module is None:
        return []
    tree = Tree(model, model.module)
    stacks = list(_stacks(tree, before))
    joined = True
    while joined:
        joined = False
        for at, stack in enumerate(stacks):
            for other in stacks[at + 1 :]:
                if _take_turns(stack, other, before):
                    stack[:] = [[*a, *b] for a, b in zip(stack, other, strict=True)]
                    stacks = [each for each in stacks if each is not other]
                    joined = True
                    break
            if joined:
                break
    seen: set[int] = set()
    blocks = []
    for block in (block for stack in stacks for block in stack):
        if params := [at for at in block if at not in seen]:
            seen.update(params)
            blocks.append(params)
    return blocks


def _stacks(tree: Tree, before: dict[int, int]) -> Iterator[list[list[int]]]:
    """The lists of blocks that run in series; members that stand side by side are looked into."""
    for siblings in (False, True):
        finder = BlockFinder(tree, siblings=siblings)
        group = finder.blocks_of_model()
        if group and len(group.blocks()) > 1:
            break
    else:
        return
    for tower in split_into_towers(tree, group):
        TowerLayout(tree, tower, single_layers=False)  # takes small lists in stem and head out
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


def _take_turns(one: list[list[int]], other: list[list[int]], before: dict[int, int]) -> bool:
    """Whether the members of two lists of one length alternate, as under ``zip``."""
    if len(one) != len(other) or len(one) < 2:
        return False
    for first, second in ((one, other), (other, one)):
        in_turn = [each for pair in zip(first, second, strict=True) for each in pair]
        if all(
            _before(after, before) & bits_of(params)
            and not _before(params, before) & bits_of(after)
            for params, after in pairwise(in_turn)
        ):
            return True
    return False


# --- towers


def _towers_apart(
    units: list[FlowUnit], model: ModelInfo, before: dict[int, int]
) -> list[tuple[int, int]]:
    """Pairs of units, as bits: what is below a tower with an input of its own, and the tower.

    Such a tower looks something up that nothing below it does, or its first block takes an
    input that later ones do not take.
    """
    blocks = bits_of(at for at, unit in enumerate(units) if unit.blocks)
    own = bits_of(at for at in ones(blocks) if _has_own_input(units, model, before, at, blocks))
    starts = 0
    for at in ones(own):
        related = (units[at].before | units[at].after) & blocks
        if 2 * (related & own).bit_count() <= related.bit_count():
            starts |= 1 << at
    for unit in units:
        lookups = any(model.params[at].role == "embedding" for at in unit.params)
        if lookups and not unit.blocks and not unit.before & blocks:
            above = unit.after & blocks
            starts |= bits_of(at for at in ones(above) if not units[at].before & above)
    pairs = []
    for at in ones(starts):
        below = units[at].before & blocks
        if not below:
            continue
        tower = 1 << at | units[at].after
        related = below
        for each in ones(below):
            related |= units[each].before | units[each].after
        pairs.append((related & ~tower, tower))
    return pairs


def _has_own_input(
    units: list[FlowUnit], model: ModelInfo, before: dict[int, int], at: int, blocks: int
) -> bool:
    """Whether a block takes something that has gone through no layer below other blocks.

    What has only been looked up counts: towers may share the table.
    """
    through = 0  # units below the blocks below it, and other blocks
    for block in ones(units[at].before & blocks):
        through |= units[block].before
    through |= blocks & ~(1 << at)
    layers = 0
    for each in ones(through):
        layers |= bits_of(
            param
            for param in units[each].params
            if _is_layer(model.params[param]) and model.params[param].role != "embedding"
        )
    return any(
        _is_layer(model.params[param]) and not before.get(param, layers) & layers
        for param in units[at].params
    )


def _is_layer(param: ParamInfo) -> bool:
    """Whether it is more than a vector; a linear map to one number is."""
    return param.role in _MAPS or sum(size > 1 for size in param.shape) > 1


def _cut(units: list[FlowUnit], lower: int, upper: int) -> None:
    """Forget that some units are before others."""
    for at in ones(lower):
        units[at].after &= ~upper
    for at in ones(upper):
        units[at].before &= ~lower


# --- layers


def _set_parts(model: ModelInfo, units: list[FlowUnit]) -> None:
    """Say what is stem and head; what is between blocks, or beside all, stays without a part."""
    blocks = bits_of(at for at, unit in enumerate(units) if unit.blocks)
    for unit in units:
        if unit.blocks:
            unit.part = "block"
        elif unit.after & blocks and not unit.before & blocks:
            unit.part = "stem"
        elif unit.before & blocks and not unit.after & blocks:
            unit.part = "head"
    heads = [unit for unit in units if unit.part == "head"]
    others = [unit for unit in heads if not _is_norm(model, unit)]
    bits = bits_of(at for at, unit in enumerate(units) if unit in others)
    for unit in heads:
        if unit not in others and not unit.before & bits and not _is_with(model, unit, others):
            unit.part = "final_norm"


def _is_with(model: ModelInfo, norm: FlowUnit, others: list[FlowUnit]) -> bool:
    """Whether a norm and one of other units are all that a module holds, or a part of it."""
    path = model.params[norm.params[0]].owner.rpartition(".")[0]
    prefix = f"{path}."
    inside = {at for at, param in enumerate(model.params) if param.name.startswith(prefix)}
    members = {at for unit in others for at in unit.params}
    return bool(path) and bool(inside & members) and inside <= members.union(norm.params)


def _is_norm(model: ModelInfo, unit: FlowUnit) -> bool:
    return all(model.params[at].role == "norm" for at in unit.params)


def _count(model: ModelInfo, units: list[FlowUnit], from_top: list[FlowUnit]) -> None:
    """Give each unit its exponent: the largest number of layers that come after it."""
    blocks = bits_of(at for at, unit in enumerate(units) if unit.blocks)
    outside: list[FlowUnit] = []  # between blocks, and norms after the last
    for unit in from_top:
        between = unit.part is None and unit.after & blocks
        if between or unit.part == "final_norm":
            outside.append(unit)
        elif unit.part != "head":
            later = [units[at] for at in ones(unit.after)]
            unit.exponent = max((_counted(model, each, blocks) for each in later), default=0)
    others = bits_of(
        at for at, unit in enumerate(units) if unit in outside and not _is_norm(model, unit)
    )
    for unit in outside:
        above, below = unit.after & blocks, unit.before & blocks
        last = min(ones(below), key=lambda at: units[at].exponent)
        # Whether something stands between the block before it and this norm, or beside it.
        joins_next = unit.before & others & units[last].after or _is_with(
            model, unit, [units[at] for at in ones(others)]
        )
        if above and (not _is_norm(model, unit) or joins_next):
            unit.exponent = max(units[at].exponent for at in ones(above))
        else:
            unit.exponent = units[last].exponent


def _counted(model: ModelInfo, unit: FlowUnit, blocks: int) -> int:
    """The layers from a unit on, with it."""
    if unit.part == "head":
        return 1
    plain = unit.part is None and not unit.after & blocks
    layer = unit.blocks or (plain and any(_is_layer(model.params[at]) for at in unit.params))
    return unit.exponent + bool(layer)
