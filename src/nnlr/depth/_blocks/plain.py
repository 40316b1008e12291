"""The layers of a model that repeats no block: each layer for itself, in a chain of widths.

Parts are joined in the order of registration: a part goes after the one chain whose end gives
what it takes, beside the part before it if both take the same, and else starts a chain of its
own. Chains that no part joins are towers. Where the widths allow another place, it is an error.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from torch import nn

from nnlr.depth._blocks.order import (
    Widths,
    check_not_joined,
    connects,
    gives,
    refuse,
    reshapes,
    takes,
    told,
)
from nnlr.depth._blocks.tree import LISTS, Tree, Unit, Width, are_numbered
from nnlr.depth._layer import LayerPlace

# An image has at most so many channels.
_COLOURS: Final = 4


@dataclass(slots=True, eq=False)
class Part:
    """A layer, or parts in a row, or parts side by side."""

    unit: Unit  # all of it; of several units, the first
    takes: Widths  # nothing if it starts by looking something up
    gives: Widths
    params: list[int] = field(default_factory=list)  # of a layer, with norms after it
    parts: Sequence["Part"] = ()
    beside: bool = False
    unsure: bool = False  # whether what stands side by side may start at several places

    @property
    def height(self) -> int:
        """Its number of layers, along the longest way."""
        heights = [part.height for part in self.parts]
        if not heights:
            return 1
        return max(heights) if self.beside else sum(heights)

    @property
    def last_layer(self) -> "Part":
        """The layer in it that was registered last."""
        return self.parts[-1].last_layer if self.parts else self

    def places(self, tower: str, above: int = 0) -> Iterator[tuple[int, LayerPlace]]:
        """Each parameter's position and place, with so many layers above this part."""
        for position in self.params:
            yield position, LayerPlace(tower, (-above,), "block")
        for part in reversed(self.parts):
            yield from part.places(tower, above)
            if not self.beside:
                above += part.height

    def __str__(self) -> str:
        """Its path, and what it takes and gives."""
        return told(self.unit, self.takes, self.gives)


def _in_a_row(parts: Sequence[Part]) -> Part:
    """Parts that follow one another, as one."""
    if len(parts) == 1:
        return parts[0]
    return Part(parts[0].unit, parts[0].takes, parts[-1].gives, parts=tuple(parts))


def _beside(parts: Sequence[Part]) -> Part:
    """Parts side by side, as one."""
    if len(parts) == 1:
        return parts[0]
    none = frozenset[Width]()
    inputs = none.union(*(part.takes for part in parts))
    outputs = none.union(*(part.gives for part in parts))
    return Part(parts[0].unit, inputs, outputs, parts=tuple(parts), beside=True)


def plain_towers(tree: Tree) -> list[Part]:
    """The towers of a model of single layers; none if it has a block."""
    reader = _Reader(tree)
    towers = reader.towers(tree.root)
    if reader.has_block:
        return []
    for tower in towers:
        if len(towers) > 1 and tower.height == 1 and not tower.takes:
            refuse(tree, f"by its width, no part takes what {tower} gives")
    return [tower for tower in towers if tower.height > 1]


class _Reader:
    """Reads the towers of a unit from those of its parts."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.has_block = False  # one part of several layers in a list, which is a block

    def towers(self, unit: Unit, *, member: bool = False) -> list[Part]:
        """The towers of a unit, or of a member of a list; none if it has vectors only."""
        if unit.is_vectors:
            return []
        if not unit.kids:
            return [Part(unit, takes(self.tree, unit), gives(self.tree, unit), list(unit.direct))]
        if member and not issubclass(unit.cls, LISTS):
            self.has_block = True
        branches = unit.is_list and self._are_branches(unit)
        rows: list[list[Part]] = []  # towers so far
        early: list[int] = []  # norms and vectors before the first layer
        for kid in unit.kids:
            parts = self.towers(kid, member=unit.is_list and not branches)
            if not parts:
                (rows[-1][-1].last_layer.params if rows else early).extend(kid.params())
            elif branches or not rows:
                rows += [[part] for part in parts]
            elif unit.is_list:
                rows = [[_beside([_in_a_row(row) for row in rows]), _beside(parts)]]
            else:
                single = all(part.height == 1 for part in parts)
                for part in [_beside(parts)] if kid.is_list and single else parts:
                    rows = self._joined(rows, part)
        towers = [_in_a_row(row) for row in rows]
        towers[0].last_layer.params.extend(early)
        for row in rows if not unit.is_list else ():
            self._check_ring(row)
        if len(towers) == 1:
            towers[0].unit = unit
        return towers

    def _are_branches(self, unit: Unit) -> bool:
        """Whether the members of a list stand side by side: none takes what another gives.

        Raises:
            NnlrError: If some do, and some do not.
        """
        if issubclass(unit.cls, nn.Sequential):
            return False
        members = [kid for kid in unit.kids if not kid.is_vectors]
        if self.tree.stands_apart(unit):
            for a, b in pairwise(members):
                added = takes(self.tree, b) - takes(self.tree, a)
                if issubclass(unit.cls, nn.ModuleDict) and added & gives(self.tree, a):
                    refuse(self.tree, f"{b.path!r} may follow {a.path!r}, or stand beside it")
            return True
        follow = [connects(gives(self.tree, a), takes(self.tree, b)) for a, b in pairwise(members)]
        if any(follow) and not all(follow):
            refuse(
                self.tree,
                f"only some members of {unit.path!r} take what the member before gives",
            )
        if all(follow):
            check_not_joined(self.tree, unit)
        return not all(follow)

    def _joined(self, rows: list[list[Part]], part: Part) -> list[list[Part]]:
        """The towers with one part more.

        Raises:
            NnlrError: If the widths allow more than one place for it, or none.
        """
        ends = [row for row in rows if self._can_follow(row, part)]
        if len(rows) > 1 and part.takes and (ends == rows or _takes_sum(rows, part)):
            return [[_beside([_in_a_row(row) for row in rows]), part]]
        if len(ends) > 1:
            self._refuse(part, "can follow", ends[0][-1], ends[1][-1])
        if ends:
            *trunk, end = ends[0]
            if not connects(end.gives, part.takes):  # put beside another, or seen as a map
                for before in trunk:
                    if connects(before.gives, part.takes):
                        self._refuse(part, "can follow", before, end)
            self._check_follows(ends[0], part)
            ends[0].append(part)
            return rows
        last = rows[-1]
        if part.takes & last[-1].takes:
            return self._with_branch(rows, part)
        for row in rows:
            if any(connects(before.gives, part.takes) for before in row) or connects(
                part.gives, row[0].takes, self.tree.all_maps
            ):
                self._refuse(part, "is registered after, and cannot follow,", last[-1])
        return [*rows, [part]]

    def _can_follow(self, row: list[Part], part: Part) -> bool:
        outputs = row[-1].gives
        return connects(outputs, part.takes, self.tree.all_maps) or reshapes(outputs, part.takes)

    def _check_follows(self, row: list[Part], part: Part) -> None:
        """Raise an error if a part that can follow a row can as well stand beside its end.

        Between two single layers of other shapes that is no question, nor for a single layer
        after several, what these give would be taken by nothing, nor for a list after a layer.
        """
        *trunk, before = row
        if before.unsure:
            self._refuse(part, "can follow one of several parts:", *before.parts)
        if not before.takes & part.takes:
            return
        is_list = issubclass(part.unit.cls, nn.ModuleList)
        long = part.height > 1 and (before.height > 1 or not is_list)
        long = long or (before.height > 1 and not trunk)
        alike = before.unit.looks == part.unit.looks and not are_numbered(before.unit, part.unit)
        if long or alike:
            self._refuse(part, "takes both what is taken and what is given by", before)

    def _check_ring(self, row: list[Part]) -> None:
        """Raise an error if a row may start elsewhere: an autoencoder starts at its larger end."""
        if not connects(row[-1].gives, row[0].takes) or all(part.height == 1 for part in row):
            return
        is_image = any(width.is_map and width.size <= _COLOURS for width in row[0].takes)
        widest = max(row, key=_most)
        if not is_image and _most(widest) > _most(row[0]):
            self._refuse(row[0], "can follow as well as precede", widest)

    def _with_branch(self, rows: list[list[Part]], part: Part) -> list[list[Part]]:
        """The towers with a part that takes what the last part takes, too."""
        *others, row = rows
        *trunk, last = row
        if not trunk:  # both take an input
            return [*rows, [part]]
        branches = _beside([*(last.parts if last.beside else [last]), part])
        branches.unsure = sum(connects(before.gives, part.takes) for before in trunk) > 1
        return [*others, [*trunk, branches]]

    def _refuse(self, part: Part, how: str, *others: Part) -> None:
        refuse(self.tree, f"{part} {how} {' and '.join(map(str, others))}")


def _most(part: Part) -> int:
    """The largest width that a part takes."""
    return max((width.size for width in part.takes), default=0)


def _takes_sum(rows: list[list[Part]], part: Part) -> bool:
    """Whether a part takes what several towers give, in one vector."""
    total = sum(max((width.size for width in row[-1].gives), default=0) for row in rows)
    return total in {width.size for width in part.takes}
