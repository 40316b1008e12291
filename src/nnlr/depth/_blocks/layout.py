"""The layer of every parameter of one tower."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from math import isqrt, prod
from operator import itemgetter

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnlr.depth._blocks.order import Widths, connects, ends, gives, outputs_of, refuse, takes, told
from nnlr.depth._blocks.towers import Tower
from nnlr.depth._blocks.tree import BlockGroup, ModelStep, Tree, Unit, Width
from nnlr.depth._layer import LayerPlace, Part, stem_part


class TowerLayout:
    """Finds the layers of one tower."""

    def __init__(self, tree: Tree, tower: Tower) -> None:
        self.tree = tree
        self.path = tower.path
        self.steps = tower.steps
        self._take_out_small_stacks()
        self.blocks = [at for at, step in enumerate(self.steps) if step.block]
        # The first and the last block in each group.
        self.spans: dict[BlockGroup, tuple[int, int]] = {}
        for at in self.blocks:
            for group in self.steps[at].around:
                self.spans[group] = (self.spans.get(group, (at, at))[0], at)
        # Groups that are one of several in a list.
        self.stages: set[BlockGroup] = set()
        for group in self.spans:
            inner = [item for item in group.items if isinstance(item, BlockGroup)]
            if group.listed and len(inner) > 1:
                self.stages |= self.spans.keys() & inner
        self.head: tuple[int, Part] = len(self.blocks) + 1, "head"

    def _take_out_small_stacks(self) -> None:
        """Leave lists of layers in stems and heads out: their members are no blocks.

        Besides the largest stack, those stay that share a class with it; the others if they
        are not made of what is found inside blocks or in no list, weigh something before
        the largest stack, and hold norms after it.
        """
        stacks: dict[BlockGroup, list[ModelStep]] = {}
        for step in self.steps:
            if step.block:  # the outermost list around it; else what holds it
                lists = (group for group in step.around if group.listed)
                stacks.setdefault(next(lists, step.around[-1]), []).append(step)
        blocks = list(stacks.values())
        classes = [{step.unit.cls for step in stack} for stack in blocks]
        weights = [sum(step.unit.numel for step in stack) for stack in blocks]
        by_class: Counter[type] = Counter()
        for stack_classes, weight in zip(classes, weights, strict=True):
            by_class.update(dict.fromkeys(stack_classes, weight))
        main = max(range(len(blocks)), key=lambda at: max(by_class[cls] for cls in classes[at]))
        heaviest = max(by_class.values())
        looks = {step.unit.looks: step.unit for step in blocks[main]}
        inside = {kid.cls for unit in looks.values() for kid in unit.below() if kid is not unit}
        inside -= {nn.Sequential, nn.ModuleList}
        inside |= {step.unit.cls for step in self.steps if step.whole and not step.block}
        for at, stack in enumerate(blocks):
            if at < main:
                light = weights[at] < 0.1 * heaviest
            else:
                light = not any(
                    self.tree.is_norm(leaf) for step in stack for leaf in step.unit.leaves
                )
            if classes[at].isdisjoint(classes[main]) and (light or classes[at] <= inside):
                for step in stack:
                    step.block = False

    def places(self) -> Iterator[tuple[int, LayerPlace]]:
        """Each parameter's position and place."""
        dead_ends = self._dead_ends()
        layers = [
            self.head if at in dead_ends else self._layer_and_part(at, step)
            for at, step in enumerate(self.steps)
        ]
        self._check_order([layer for layer, _ in layers])
        for step, (order, part) in zip(self.steps, layers, strict=True):
            for position in step.params:
                param = self.tree.model.params[position]
                place = LayerPlace(self.path, (order,), part)
                if part == "stem":
                    place = place._replace(part=stem_part(param))
                    if not step.whole and self._belongs_to_head(param.shape):
                        place = LayerPlace(self.path, (self.head[0],), self.head[1])
                yield position, place

    def _check_order(self, layers: list[int]) -> None:
        """Raise an error if a part takes what only parts in later layers give.

        Raises:
            NnlrError: With the two parts.
        """
        tree = self.tree
        sides: dict[int, tuple[Widths, Widths]] = {}
        whole = sorted(
            (
                (layer, at, step)
                for at, (layer, step) in enumerate(zip(layers, self.steps, strict=True))
                if step.whole and not step.unit.is_vectors
            ),
            key=itemgetter(0, 1),
        )
        for _, _, step in whole:
            if step.unit.looks not in sides:
                sides[step.unit.looks] = ends(tree, step.unit)
        first = max(1, whole[0][0]) if whole else 0  # the model's input enters up to here
        before: Widths = frozenset()
        for layer, same in groupby(whole, itemgetter(0)):
            parts = [step for _, _, step in same]
            for step in parts if layer > first else ():
                inputs, outputs = sides[step.unit.looks]
                beside = (sides[part.unit.looks][1] for part in parts if part is not step)
                if not inputs or connects(before.union(*beside), inputs, tree.all_maps):
                    continue
                sizes = {width.size for width in inputs}
                for at, _, other in whole:
                    theirs = sides[other.unit.looks]
                    apart = not any(group.listed for group in {*step.around} & {*other.around})
                    if at > layer and apart and sizes & {width.size for width in theirs[1]}:
                        last, part = told(other.unit, *theirs), told(step.unit, inputs, outputs)
                        refuse(tree, f"{last} is registered after {part}, and may feed it")
            before = before.union(*(sides[step.unit.looks][1] for step in parts))

    def _belongs_to_head(self, shape: tuple[int, ...]) -> bool:
        """Whether a bare parameter is a temperature or a gate, or projects the output."""
        if prod(shape) == 1:
            return True
        if len(shape) != 2:
            return False
        rows, columns = shape
        first, last = (self.steps[self.blocks[end]].unit for end in (0, -1))
        return rows in self.tree.output_widths(last) and (
            rows == columns or columns not in self.tree.input_widths(first)
        )

    def _layer_and_part(self, at: int, step: ModelStep) -> tuple[int, Part]:
        """Layer and part of a step: 0 is the stem, 1 the first block."""
        first, last = self.blocks[0], self.blocks[-1]
        if at < first and (later := self._first_that_takes(step)):
            return later, "block"
        if at < first or self._is_late_stem(at, step):
            has_stem = any(s.whole and not self._in_stage(s) for s in self.steps[:first])
            return (1, "block") if self._in_stage(step) and has_stem else (0, "stem")
        if step.block or at < last:
            return self._layer_in_blocks(at, step), "block"
        return self._after_blocks(at, step)

    def _after_blocks(self, at: int, step: ModelStep) -> tuple[int, Part]:
        """Layer and part of a step after the last block."""
        # Whether there are only norms from the last block up to here, and embeddings.
        after = [s.unit for s in self.steps[self.blocks[-1] + 1 : at + 1]]
        ends_in_norm = self.tree.is_norm(after[-1]) and all(
            self.tree.is_norm(unit) or self.tree.is_lookup(unit) for unit in after
        )
        if self._in_stage(step) and not ends_in_norm:
            return self._layer_in_blocks(at, step), "block"
        if ends_in_norm:
            return len(self.blocks), "final_norm"
        if self.tree.is_lookup(step.unit):
            return 0, "stem"
        # What a convolution after the blocks gives is taken by a head, or it is the head.
        if at + 1 < len(self.steps) and all(map(self.tree.is_conv, after)):
            return len(self.blocks), "block"
        return self.head

    def _first_that_takes(self, step: ModelStep) -> int:
        """The layer of the block that first takes a vector or an embedding; 0 for the stem.

        Where the first block takes it, it is in the stem. A map takes none.
        """
        tree = self.tree
        if step.whole and not tree.is_lookup(step.unit):
            return 0
        shapes = [tree.model.params[at].shape for at in step.params]
        width = shapes[0][-1] if shapes[0] else 1
        for layer, at in enumerate(self.blocks, start=1):
            inputs = ends(tree, self.steps[at].unit)[0]
            if Width(width) in inputs or (layer == 1 and Width(width, is_map=True) in inputs):
                return layer * (layer > 1)
        return 0

    def _is_late_stem(self, at: int, step: ModelStep) -> bool:
        """Whether a layer after the last block, which takes nothing of it, gives to the first.

        Raises:
            NnlrError: If it is like a block, and may run before one.
        """
        tree, units = self.tree, [self.steps[block].unit for block in self.blocks]
        last = self.blocks[-1]
        if at <= last or not step.whole or step.unit.is_vectors:
            return False
        before = outputs_of(tree, (step.unit for step in self.steps[last:at]))
        inputs, outputs = takes(tree, step.unit), gives(tree, step.unit)
        if connects(before, inputs):
            return False
        if step.unit.cls in {unit.cls for unit in units}:
            for unit in units:
                if connects(outputs, ends(tree, unit)[0], tree.all_maps):
                    part = told(step.unit, inputs, outputs)
                    refuse(tree, f"{part} is registered after {unit.path!r}, and may feed it")
        is_merged = any(b.size % a.size == 0 for a in before for b in inputs)
        is_input = not is_merged and not tree.all_outputs & {width.size for width in inputs}
        return is_input and connects(outputs, ends(tree, units[0])[0])

    def _in_stage(self, step: ModelStep) -> bool:
        return not self.stages.isdisjoint(step.around)

    def _layer_in_blocks(self, at: int, step: ModelStep) -> int:
        """The layer of a block, or of what stands between blocks or in a stage."""
        blocks_so_far = bisect_right(self.blocks, at)
        if step.block:
            return blocks_so_far
        start, end = self.spans[next(g for g in reversed(step.around) if g in self.spans)]
        if at > end and self._opens_stage(step, start, end):
            return bisect_right(self.blocks, start)
        joins_next = at < start or (at < end and not step.unit.is_vectors)
        return blocks_so_far + joins_next

    def _opens_stage(self, step: ModelStep, start: int, end: int) -> bool:
        """Whether the blocks of a stage take what a part gives that is registered after."""
        tree = self.tree
        leaves = list(step.unit.leaves)
        first, last = self.steps[start].unit, self.steps[end].unit
        return (
            bool(leaves)
            and not tree.output_widths(leaves[-1]).isdisjoint(tree.input_widths(first))
            and tree.input_widths(leaves[0]).isdisjoint(tree.output_widths(last))
        )

    def _dead_ends(self) -> set[int]:
        """Heads that are registered early: what takes the blocks' output, and gives to nothing."""
        first = self.blocks[0]
        later = list(self.steps[first].unit.leaves)
        outputs = self.tree.output_widths(self.steps[self.blocks[-1]].unit)
        dead_ends = set()
        for at in reversed(range(first)):
            step = self.steps[at]
            leaves = list(step.unit.leaves) if step.whole else []
            by_code = step.unit.parent and step.unit.parent.by_code
            if (
                leaves
                and not by_code
                and issubclass(leaves[-1].cls, nn.Linear)
                and not outputs.isdisjoint(self.tree.input_widths(leaves[0]))
                and not any(self._feeds(leaves[-1], leaf) for leaf in later)
                and not any(group.listed for group in step.around)
            ):
                dead_ends.add(at)
            else:
                later += leaves
        return dead_ends

    def _feeds(self, linear: Unit, leaf: Unit) -> bool:
        """Whether a layer can take what a linear one gives, if need be as a square image."""
        outputs, inputs = self.tree.output_widths(linear), self.tree.input_widths(leaf)
        if not issubclass(leaf.cls, _ConvNd):
            return not outputs.isdisjoint(inputs)
        (width,), (channels,) = outputs, inputs
        pixels, remainder = divmod(width, channels)
        is_image = channels <= 3
        return not is_image and not remainder and isqrt(pixels) ** 2 == pixels
