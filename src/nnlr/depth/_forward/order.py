"""The layers of a model, from what one forward has shown.

The exponent of layer decay is the longest way from a unit to the output, counted in layers:
parallel towers, heads at half height and connections that skip blocks need no rule of their own.
"""

from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

from nnlr._model.describe import ModelInfo
from nnlr.depth._forward.record import Recording
from nnlr.depth._forward.units import FlowUnit, bits_of, ones, ordered_units
from nnlr.depth._layer import Layer, is_layer, stem_part
from nnlr.errors import NnlrError

Towers = Literal["apart", "chain"]


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
    units, circles = ordered_units(model, before)
    from_top = sorted(units, key=lambda unit: unit.after.bit_count())
    cuts = _towers_apart(units, model, before) if towers == "apart" else []
    for lower, upper in cuts:
        _cut(units, lower, upper)
    _set_parts(model, units)
    _count(model, units, from_top)
    used = [unit for unit in units if any(at in before for at in unit.params)]
    tower_of = _named_towers(model, used, [_cut_off(units, upper) for _, upper in cuts], units)
    lasts: dict[str, int] = {}
    for unit, tower in zip(used, tower_of, strict=True):
        lasts[tower] = max(unit.exponent, lasts.get(tower, 0))
    if not any(lasts.values()):
        raise NnlrError(
            f"nnlr.depth.flow finds 1 layer in the {len(model.params)} parameters of "
            f"{model.label}: none of them is after another."
        )
    layers: list[Layer | None] = [None] * len(model.params)
    for unit, tower in zip(used, tower_of, strict=True):
        for at in unit.params:
            part = unit.part or "block"
            part = stem_part(model.params[at]) if part == "stem" else part
            layers[at] = Layer(lasts[tower] - unit.exponent, lasts[tower], tower, part)
    unused = [at for at in range(len(layers)) if at not in before]
    dropped = [at for at in before if not recording.touched >> at & 1]
    return Order(layers, unused, sorted(dropped), circles)


# --- towers


def _towers_apart(
    units: list[FlowUnit], model: ModelInfo, before: dict[int, int]
) -> list[tuple[int, int]]:
    """Pairs of units, as bits: what is below a tower with an input of its own, and the tower.

    Such a tower looks something up that nothing below it does, or its first block takes an
    input that later ones do not take.
    """
    blocks = bits_of(at for at, unit in enumerate(units) if unit.blocks)
    fed = bits_of(at for at in ones(blocks) if _has_own_input(units, model, before, at, blocks))
    starts = 0
    for at in ones(fed):
        related = (units[at].before | units[at].after) & blocks
        if 2 * (related & fed).bit_count() <= related.bit_count():
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
        for block in ones(below):
            related |= units[block].before | units[block].after
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
    for unit in ones(through):
        layers |= bits_of(
            param
            for param in units[unit].params
            if is_layer(model.params[param]) and model.params[param].role != "embedding"
        )
    return any(
        is_layer(model.params[param]) and not before.get(param, layers) & layers
        for param in units[at].params
    )


def _cut(units: list[FlowUnit], lower: int, upper: int) -> None:
    """Forget that some units are before others."""
    for at in ones(lower):
        units[at].after &= ~upper
    for at in ones(upper):
        units[at].before &= ~lower


def _cut_off(units: list[FlowUnit], upper: int) -> int:
    """A tower that was cut off, with what leads to it alone."""
    return upper | bits_of(at for at, unit in enumerate(units) if unit.after & upper)


def _named_towers(
    model: ModelInfo, used: list[FlowUnit], cut_off: list[int], units: list[FlowUnit]
) -> list[str]:
    """The tower of each unit: the module around the blocks of what was counted together."""
    if not cut_off:
        return [""] * len(used)
    members: dict[tuple[bool, ...], list[FlowUnit]] = {}
    keys = []
    for at, unit in enumerate(units):
        if unit in used:
            keys.append(tuple(bool(bits >> at & 1) for bits in cut_off))
            members.setdefault(keys[-1], []).append(unit)
    around = {}
    for key, in_tower in members.items():
        blocks = [unit for unit in in_tower if unit.blocks] or in_tower
        owners = [model.params[at].owner.split(".") for unit in blocks for at in unit.params]
        shared = takewhile(lambda names: len(set(names)) == 1, zip(*owners, strict=False))
        around[key] = [names[0] for names in shared]
    paths = {}
    for key, path in around.items():
        others = [other for other_key, other in around.items() if other_key != key]
        if path in others:
            return [""] * len(used)
        ends = range(len(path))
        end = next((end for end in ends if path[:end] not in [o[:end] for o in others]), len(path))
        paths[key] = ".".join(path[:end])
    return [paths[key] for key in keys]


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
            unit.exponent = max((_counted(model, above, blocks) for above in later), default=0)
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
    layer = unit.blocks or (plain and any(is_layer(model.params[at]) for at in unit.params))
    return unit.exponent + bool(layer)
