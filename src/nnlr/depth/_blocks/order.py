"""Whether one part of a model runs after another: told by the widths that parts take and give.

A container that runs its members itself, a Sequential, says so. Elsewhere a part follows what
gives the width that it takes. Where it could as well stand beside that, the order is not
certain, and is an error: a guess is never read as a sequence.
"""

import re
from collections.abc import Iterable
from itertools import takewhile
from math import isqrt
from typing import Final

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnlr.depth._blocks.tree import LISTS, ModelStep, Tree, Unit, Width
from nnlr.errors import NnlrError

WAYS_OUT: Final = (
    "Say which layer is which, in one of three ways:\n"
    "    indexer={'stem.*': 0, 'blocks.0.*': 1, ...}   patterns and their layers\n"
    "    indexer='vit'                                 a name of nnlr.depth.INDEXERS, or a\n"
    "                                                  function of ParamInfo\n"
    "    indexer=nnlr.depth.flow(example_input)        the order of one forward"
)

# A name that ends in a number, or in a number after a point.
_NUMBERED: Final = re.compile(r"(.*?)(\d+)")


Widths = frozenset[Width]


def takes(tree: Tree, unit: Unit) -> Widths:
    """What the first layer of a part takes; nothing if it looks something up."""
    leaf = _end(tree, unit, 0)
    return _as_widths(leaf, tree.input_widths(leaf) if leaf else set())


def gives(tree: Tree, unit: Unit) -> Widths:
    """What the last layer of a part gives."""
    leaf = _end(tree, unit, -1)
    return _as_widths(leaf, tree.output_widths(leaf) if leaf else set())


def _end(tree: Tree, unit: Unit, at: int) -> Unit | None:
    layers = [leaf for leaf in unit.leaves() if not tree.is_vectors(leaf)]
    return layers[at] if layers else None


def _as_widths(leaf: Unit | None, sizes: set[int]) -> Widths:
    is_map = leaf is not None and issubclass(leaf.cls, _ConvNd)
    return frozenset(Width(size, is_map) for size in sizes)


def ends(tree: Tree, unit: Unit) -> tuple[Widths, Widths]:
    """What a part may take, and what it may give.

    Of a list or a layer what its first layer takes and its last one gives. The parts of a
    user's own module may be registered in any order: what any of its layers takes and gives,
    without what is taken and given inside, unless that is taken first or given last.
    """
    first, last = takes(tree, unit), gives(tree, unit)
    if not unit.kids or issubclass(unit.cls, LISTS):
        return first, last
    layers = [leaf for leaf in unit.leaves() if not tree.is_vectors(leaf)]
    taken = first.union(*(takes(tree, leaf) for leaf in layers))
    given = last.union(*(gives(tree, leaf) for leaf in layers))
    inside = {width.size for width in taken} & {width.size for width in given}
    return _outer(first, taken, inside), _outer(last, given, inside)


def _outer(end: Widths, widths: Widths, inside: set[int]) -> Widths:
    """Of some widths those that are not inside, unless the width at the end is."""
    if any(width.size in inside for width in end):
        return widths
    return frozenset(width for width in widths if width.size not in inside)


def taken_by(tree: Tree, steps: Iterable[ModelStep]) -> Widths | None:
    """What the first of some steps may take: one that stands before their blocks, or any block.

    ``None`` if they start by looking something up, and so have an input of their own.
    """
    steps = list(steps)
    first: Widths = frozenset()
    for step in takewhile(lambda step: not step.block, steps):
        for leaf in step.unit.leaves() if step.whole else ():
            if issubclass(leaf.cls, nn.Embedding):
                return None
            first = first or takes(tree, leaf)
    if first:
        return first
    blocks = {step.unit.looks: step.unit for step in steps if step.block}
    return first.union(*(ends(tree, unit)[0] for unit in blocks.values()))


def given_by(tree: Tree, units: Iterable[Unit]) -> Widths:
    """What any of these units may give."""
    return frozenset[Width]().union(*(ends(tree, unit)[1] for unit in units))


def connects(given: Widths, taken: Widths, earlier: Widths = frozenset()) -> bool:
    """Whether something that gives these widths can be what a part takes.

    As it is; a map made flat, or a vector made a map; or a map beside an earlier one that is
    no wider.

    Examples:
        >>> vector = lambda size: frozenset([Width(size)])
        >>> channels = lambda size: frozenset([Width(size, is_map=True)])
        >>> connects(vector(8), vector(8)), connects(vector(8), vector(16))
        (True, False)
        >>> connects(channels(8), vector(72)), connects(vector(72), channels(8))
        (True, True)
        >>> connects(channels(8), channels(12), earlier=channels(4))
        True
    """
    return any(_connects(a, b, earlier) for a in given for b in taken)


def _connects(given: Width, taken: Width, earlier: Widths) -> bool:
    if given.size == taken.size:
        return True
    if given.is_map and taken.is_map:
        skipped = taken.size - given.size
        return skipped <= given.size and Width(skipped, is_map=True) in earlier
    if given.is_map:
        return taken.size % given.size == 0
    pixels, rest = divmod(given.size, taken.size)
    return taken.is_map and taken.size > 3 and not rest and isqrt(pixels) ** 2 == pixels


def are_numbered(before: Unit, after: Unit) -> bool:
    """Whether the names of two parts say that one follows the other: ``fc1`` and ``fc2``."""
    first, second = (_NUMBERED.fullmatch(unit.attr) for unit in (before, after))
    return bool(first and second and first[1] == second[1] and int(first[2]) + 1 == int(second[2]))


def refuse(tree: Tree, why: str) -> None:
    """Raise the error for an order that is not certain, unless the tree may be guessed at.

    Raises:
        NnlrError: With the reading and the ways out.
    """
    if tree.guesses:
        return
    raise NnlrError(
        f"indexer 'auto' cannot tell in which order {tree.model.label} runs its parts:\n"
        f"  {why}.\n"
        f"  {WAYS_OUT}",
        label=tree.model.label,
    )


def told(unit: Unit, taken: Widths, given: Widths) -> str:
    """A part for messages: its path, and what it takes and gives.

    Examples:
        >>> told(Unit("actor", nn.Linear, nn.Linear(1, 1)), frozenset([Width(4)]), frozenset())
        "'actor' (4 -> ?)"
    """
    sizes = [
        " or ".join(map(str, sorted({width.size for width in widths})[:3])) or "?"
        for widths in (taken, given)
    ]
    return f"{unit.path or 'the model'!r} ({' -> '.join(sizes)})"
