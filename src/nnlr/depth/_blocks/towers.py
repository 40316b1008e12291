"""The towers of a model: which of the parts that hold blocks follow one another.

Parts do so unless one has an input of its own. What stands beside several towers belongs
to none, except what one of them looks up there.
"""

from dataclasses import dataclass

from torch import nn

from nnlr.depth._blocks.order import (
    Widths,
    check_not_joined,
    connects,
    gives,
    inputs_of,
    outputs_of,
    refuse,
    takes,
    told,
)
from nnlr.depth._blocks.tree import BlockGroup, ModelStep, Tree, are_numbered


@dataclass(slots=True)
class Tower:
    """Steps that follow one another, from an input on, and the path of what holds them."""

    path: str
    steps: list[ModelStep]


def split_into_towers(
    tree: Tree, group: BlockGroup, around: tuple[BlockGroup, ...] = ()
) -> list[Tower]:
    """The towers in a group, which stands in the groups ``around``.

    Raises:
        NnlrError: If the order of its parts is not certain.
    """
    around = (*around, group)
    if group.listed and any(isinstance(item, ModelStep) and item.block for item in group.items):
        check_not_joined(tree, group.unit)
    towers: list[Tower] = []
    opening: list[ModelStep] = []  # before the first tower
    loose: list[ModelStep] = []  # not yet known to belong to a tower
    outside = _with_input_outside(tree, group)
    row = _Row(tree, group)
    flat = False  # whether the ends of towers stand in this group
    for item in group.items:
        if isinstance(item, ModelStep):
            item.around = around
            if not item.block:
                loose.append(item)
                continue
            inner = [Tower(group.unit.path, [item])]
        else:
            inner = split_into_towers(tree, item, around)
        if not towers:
            opening, towers, loose = loose, inner, []
            flat = isinstance(item, BlockGroup) and item.listed
            row.last = item
            continue
        start = row.start(item, towers[-1].steps, loose)
        if item is outside and not (loose or towers[-1].steps[0].block):
            start = 0
        if start is None:
            inner[0].steps = [*towers[-1].steps, *loose, *inner[0].steps]
            inner[0].path = towers.pop().path
        elif start < len(loose):  # a tower whose ends stand beside it
            flat = True
            towers[-1].steps += loose[:start]
            inner[0].steps = [*loose[start:], *inner[0].steps]
        towers += inner
        loose = []
        row.last = item
    if len(towers) > 1 and flat:
        towers[0].steps = [*opening, *towers[0].steps]
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


class _Row:
    """Asks of the parts of one group, in their order, which of them follow one another."""

    def __init__(self, tree: Tree, group: BlockGroup) -> None:
        self.tree = tree
        self.group = group
        self.last: BlockGroup | ModelStep = group  # the last part with blocks

    def start(
        self, item: BlockGroup | ModelStep, before: list[ModelStep], loose: list[ModelStep]
    ) -> int | None:
        """Where the tower of a part starts; ``None`` if it follows the steps before it.

        Returns:
            A position in ``loose``, or its length: the part starts the tower itself.

        Raises:
            NnlrError: If that is not certain.
        """
        tree = self.tree
        if self.group.branches:
            return len(loose)
        if self.group.listed or issubclass(self.group.unit.cls, nn.RNNBase):
            return None
        steps = _steps(item)
        inputs = inputs_of(tree, steps)
        if inputs is None:
            return len(loose)
        is_listed = isinstance(item, ModelStep) or item.listed
        outputs, apart, start = self._through(before, loose)
        lookups = [at for at, step in enumerate(loose) if tree.is_lookup(step.unit)]
        if is_listed and start == len(loose) and not self._is_joined(loose) and lookups:
            start = lookups[0]
            apart = outputs_of(tree, (loose[at].unit for at in lookups))
        earlier = outputs_of(tree, (step.unit for step in before))
        follows = connects(outputs | earlier, inputs, tree.all_maps)
        if not follows and _is_multiple(
            self._ends(self.last)[1], inputs
        ):  # concatenated, or patches merged
            follows = are_numbered(self.last.unit, item.unit)
        elif not follows and not is_listed:
            return len(loose)
        if not _is_light(steps, before):  # else a stem or a head
            if connects(apart, inputs):
                return start
            if not follows:
                self._refuse(item, "takes nothing of what is given by")
            if not self._is_joined(loose[:start]):
                self._check_follows(item)
        return None

    def _is_joined(self, loose: list[ModelStep]) -> bool:
        """Whether a layer between two parts leads from the one to the other."""
        return any(
            step.whole and not step.unit.is_vectors and not self.tree.is_lookup(step.unit)
            for step in loose
        )

    def _through(
        self, before: list[ModelStep], loose: list[ModelStep]
    ) -> tuple[Widths, Widths, int]:
        """What comes out of a tower and of the loose layers after it.

        Returns:
            What the tower and the layers that follow it give; what the others give, which
            have an input of their own; where in ``loose`` the first of these is.
        """
        tree = self.tree
        last_block = max(at for at, step in enumerate(before) if step.block)
        outputs = outputs_of(tree, (step.unit for step in before[last_block:]))
        everything = outputs_of(tree, (step.unit for step in before))
        apart: Widths = frozenset()
        start = len(loose)
        for at, step in enumerate(loose):
            if not step.whole or step.unit.is_vectors or tree.is_lookup(step.unit):
                continue
            if connects(everything | outputs, takes(tree, step.unit)):
                outputs |= gives(tree, step.unit)
            elif not tree.all_outputs & {width.size for width in takes(tree, step.unit)}:
                start = min(start, at)
                apart |= gives(tree, step.unit)
        return outputs, apart, start

    def _check_follows(self, item: BlockGroup | ModelStep) -> None:
        """Raise an error if a part that can follow the last can as well stand elsewhere."""
        tree = self.tree
        (first_inputs, first_outputs), (inputs, outputs) = map(self._ends, (self.last, item))
        if are_numbered(self.last.unit, item.unit):
            return
        widest = max((width.size for width in outputs), default=0)
        skips = frozenset(width for width in tree.all_maps if width.size <= widest)
        follows = _is_multiple(first_outputs, inputs) or connects(first_outputs, inputs, skips)
        if not follows and connects(outputs, first_inputs, skips):
            self._refuse(item, "gives what is taken by, and is registered after,")
        if not first_inputs & inputs:
            return
        in_turn = len(_lists_of(self.last)) == len(_lists_of(item)) > 1
        if in_turn or not _kinds(self.last).isdisjoint(_kinds(item)):
            self._refuse(item, "takes both what is taken and what is given by")

    def _ends(self, item: BlockGroup | ModelStep) -> tuple[Widths, Widths]:
        """What the first layer of a part takes, and what the last layer of its blocks gives."""
        steps = [step for step in _steps(item) if not step.unit.is_vectors]
        last = [step for step in steps if step.block][-1]
        return takes(self.tree, steps[0].unit), gives(self.tree, last.unit)

    def _refuse(self, item: BlockGroup | ModelStep, how: str) -> None:
        part, last = (told(it.unit, *self._ends(it)) for it in (item, self.last))
        refuse(self.tree, f"{part} {how} {last}")


def _steps(item: BlockGroup | ModelStep) -> list[ModelStep]:
    """The steps of a part."""
    return list(item.steps()) if isinstance(item, BlockGroup) else [item]


def _is_multiple(outputs: Widths, inputs: Widths) -> bool:
    """Whether a part takes a vector of several times what another gives."""
    return any(b.size % a.size == 0 for a in outputs for b in inputs if not b.is_map)


def _is_light(steps: list[ModelStep], others: list[ModelStep]) -> bool:
    """Whether some steps weigh little beside others, or those beside them."""
    weights = [sum(step.unit.numel for step in some if step.block) for some in (steps, others)]
    return 10 * min(weights) < max(weights)


def _lists_of(item: BlockGroup | ModelStep) -> list[ModelStep]:
    """The blocks of a list, which may take turns with those of another; else none."""
    is_list = (
        isinstance(item, BlockGroup) and item.unit.is_list and item.unit.cls is not nn.Sequential
    )
    return [step for step in _steps(item) if step.block] if is_list else []


def _kinds(item: BlockGroup | ModelStep) -> set[object]:
    """The looks of the blocks of a part, and the class of one that is in no list."""
    looks: set[object] = {step.unit.looks for step in _steps(item) if step.block}
    return looks if isinstance(item, BlockGroup) else {*looks, item.unit.cls}
