"""Whether one part of a model runs after another: told by the widths that parts take and give.

A container that runs its members itself, a Sequential, says so. Elsewhere a part follows what
gives the width that it takes. Where it could as well stand beside that, the order is not
certain, and is an error: a guess is never read as a sequence.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import dropwhile, takewhile
from math import isqrt
from typing import Final

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnlr.depth._blocks.tree import LISTS, ModelStep, Tree, Unit, Width
from nnlr.errors import NnlrError

WAYS_OUT: Final = (
    "Say which layer is which, in one of three ways:\n"
    "    indexer={'stem.*': 0, 'blocks.0.*': 1, ...}   patterns and their layers\n"
    "    indexer='...'                                 a name of nnlr.depth.INDEXERS, or a\n"
    "                                                  function of ParamInfo\n"
    "    indexer=nnlr.depth.flow(example_input)        the order of one forward"
)

Widths = frozenset[Width]
_NO_WIDTHS: Final = Widths()


def takes(tree: Tree, unit: Unit) -> Widths:
    """What the first layer of a part takes; nothing if it looks something up."""
    if issubclass(unit.cls, nn.ModuleList):  # its members may stand side by side
        return Widths().union(*(takes(tree, kid) for kid in unit.kids))
    leaf = _end(tree, unit, 0)
    return _as_widths(leaf, tree.input_widths(leaf) if leaf else set())


def gives(tree: Tree, unit: Unit) -> Widths:
    """What the last layer of a part gives."""
    leaf = _end(tree, unit, -1)
    return _as_widths(leaf, tree.output_widths(leaf) if leaf else set())


def _end(tree: Tree, unit: Unit, at: int) -> Unit | None:
    layers = [leaf for leaf in unit.leaves if not leaf.is_vectors]
    return layers[at] if layers else None


def _as_widths(leaf: Unit | None, sizes: set[int]) -> Widths:
    is_map = leaf is not None and issubclass(leaf.cls, _ConvNd)
    return frozenset(Width(size, is_map) for size in sizes)


def ends(tree: Tree, unit: Unit) -> tuple[Widths, Widths]:
    """What a part may take, and what it may give.

    Of a list or a layer what its first layer takes and its last one gives. The parts of a
    user's own module may be registered in any order. It takes what the layer before does not
    give; it gives what the layer after does not take, or what it takes and several layers give.
    """
    if not unit.kids or issubclass(unit.cls, LISTS):
        return takes(tree, unit), gives(tree, unit)
    layers = [leaf for leaf in unit.leaves if not leaf.is_vectors]
    all_inputs = [takes(tree, leaf) for leaf in layers]
    all_outputs = [gives(tree, leaf) for leaf in layers]
    none = Widths()
    pairs = zip([none, *all_outputs], [*all_inputs, none], strict=True)
    inputs = outputs = none
    for before, after in pairs:
        inputs |= _without(after, before)
        outputs |= _without(before, after)
    often = Counter(width for widths in all_outputs for width in widths)
    residual = frozenset(width for width, count in often.items() if count > 1)
    return inputs, outputs | (residual - _without(residual, inputs))


def _without(widths: Widths, others: Widths) -> Widths:
    """The widths whose sizes are not among those of others."""
    sizes = {width.size for width in others}
    return frozenset(width for width in widths if width.size not in sizes)


def inputs_of(tree: Tree, steps: Iterable[ModelStep]) -> Widths | None:
    """What the first of some steps may take: one that stands before their blocks, or any block.

    ``None`` if they start by looking something up, and so have an input of their own.
    """
    steps = list(steps)
    first = Widths()
    for step in takewhile(lambda step: not step.block, steps):
        if step.whole and any(issubclass(leaf.cls, nn.Embedding) for leaf in step.unit.leaves):
            return None
        first = first or (_first_inputs(tree, step.unit) if step.whole else first)
    if first:
        return first
    blocks = {step.unit.looks: step.unit for step in steps if step.block}
    return first.union(*(ends(tree, unit)[0] for unit in blocks.values()))


def _first_inputs(tree: Tree, unit: Unit) -> Widths:
    """The widths that the first layer of a part takes, or the first ones of a list's members."""
    if issubclass(unit.cls, nn.ModuleList):
        return Widths().union(*(_first_inputs(tree, kid) for kid in unit.kids))
    leaf = next(iter(unit.leaves), None)
    return _as_widths(leaf, tree.input_widths(leaf) if leaf else set())


def outputs_of(tree: Tree, units: Iterable[Unit]) -> Widths:
    """What any of these units may give."""
    return frozenset[Width]().union(*(ends(tree, unit)[1] for unit in units))


def connects(outputs: Widths, inputs: Widths, earlier: Widths = _NO_WIDTHS) -> bool:
    """Whether something that gives these widths can be what a part takes.

    As it is; a map made flat; or a map beside one of some earlier ones.

    Examples:
        >>> vector = lambda size: frozenset([Width(size)])
        >>> channels = lambda size: frozenset([Width(size, is_map=True)])
        >>> connects(vector(8), vector(8)), connects(vector(8), vector(16))
        (True, False)
        >>> connects(channels(8), vector(72))
        True
        >>> connects(channels(8), channels(12), earlier=channels(4))
        True
    """
    return any(
        a.size == b.size
        or (a.is_map and not b.is_map and b.size % a.size == 0)
        or (a.is_map and b.is_map and Width(b.size - a.size, is_map=True) in earlier)
        for a in outputs
        for b in inputs
    )


def reshapes(outputs: Widths, inputs: Widths) -> bool:
    """Whether a vector can be what a part takes as a map: channels times a square of pixels.

    Examples:
        >>> reshapes(frozenset([Width(8 * 9)]), frozenset([Width(8, is_map=True)]))
        True
    """
    pairs = [(a.size, b.size) for a in outputs for b in inputs if b.is_map and not a.is_map]
    return any(a % b == 0 and isqrt(a // b) ** 2 == a // b for a, b in pairs if b > 3)


def check_not_joined(tree: Tree, unit: Unit) -> None:
    """Raise an error if the part after a list takes what its members give together.

    They may stand side by side, or run in a row and all be looked at.

    Raises:
        NnlrError: With the reading and the ways out.
    """
    if unit.parent is None or issubclass(unit.cls, nn.Sequential):
        return
    outputs = [gives(tree, kid) for kid in unit.kids if not kid.is_vectors]
    after = dropwhile(lambda kid: kid is not unit, unit.parent.kids)
    later = next((kid for kid in after if kid is not unit and not kid.is_vectors), None)
    if later is None or len(outputs) < 2 or len(set(outputs)) > 1:
        return
    if later.kids and not tree.is_conv(later) and not issubclass(later.cls, LISTS):
        return  # a module of its own may have an input of its own
    inputs = takes(tree, later)
    together = frozenset(Width(len(outputs) * size, is_map) for size, is_map in outputs[0])
    if inputs & together and not tree.all_outputs & {width.size for width in together}:
        part = told(later, inputs, gives(tree, later))
        refuse(tree, f"{part} takes what all members of {unit.path!r} give together")


def refuse(tree: Tree, why: str) -> None:
    """Note that the widths do not tell an order for certain."""
    tree.doubts.append(why)


def refuse_all(tree: Tree, doubts: list[str]) -> None:
    """Raise the error for an order that is not certain.

    Raises:
        NnlrError: With the reading and the ways out.
    """
    raise NnlrError(
        f"indexer 'auto' cannot tell in which order {tree.model.label} runs its parts:\n"
        f"  {doubts[0]}.\n"
        f"  {WAYS_OUT}",
        label=tree.model.label,
    )


def told(unit: Unit, inputs: Widths, outputs: Widths) -> str:
    """A part for messages: its path, and what it takes and gives.

    Examples:
        >>> told(Unit("actor", nn.Linear, nn.Linear(1, 1)), frozenset([Width(4)]), frozenset())
        "'actor' (4 -> ?)"
    """
    sizes = [
        " or ".join(map(str, sorted({width.size for width in widths})[:3])) or "?"
        for widths in (inputs, outputs)
    ]
    return f"{unit.path or 'the model'!r} ({' -> '.join(sizes)})"
