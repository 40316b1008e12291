"""The layer of every parameter of one tower."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from math import isqrt, prod

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnlr.depth._blocks.steps import Group, given, taken
from nnlr.depth._blocks.towers import Entry, Tower
from nnlr.depth._blocks.tree import Tree, Unit
from nnlr.depth._layer import Part, Place
from nnlr.depth._matcher import stem_part


class _Layout:
    """Where the parameters of one tower stand."""

    def __init__(self, tree: Tree, tower: Tower, *, leaves: bool) -> None:
        self.tree = tree
        self.path = tower.path
        self.entries = tower.entries
        if not leaves:
            self._take_out_small_stacks()
        self.blocks = [at for at, entry in enumerate(self.entries) if entry.block]
        self.spans: dict[Group, tuple[int, int]] = {}
        for at in self.blocks:
            for group in self.entries[at].around:
                self.spans[group] = (self.spans.get(group, (at, at))[0], at)
        self.stages = set(self._stages())

    def _stages(self) -> Iterator[Group]:
        """The groups that are one of several in a list."""
        for around in self.spans:
            inner = [item for item in around.items if isinstance(item, Group)]
            if around.listed and len(inner) > 1:
                yield from self.spans.keys() & inner

    def _take_out_small_stacks(self) -> None:
        """Leave lists of layers in stems and heads out: their members are no blocks.

        Besides the largest stack, those stay that share a class with it; the others if they
        are not made of what is found inside blocks or in no list, weigh something before
        the largest stack, and hold norms after it.
        """
        stacks: dict[Group, list[Entry]] = {}
        for entry in self.entries:
            if entry.block:
                stacks.setdefault(_stack(entry), []).append(entry)
        classes = {
            stack: {entry.step.unit.cls for entry in found} for stack, found in stacks.items()
        }
        weight = {
            stack: sum(entry.step.unit.numel for entry in found) for stack, found in stacks.items()
        }
        of_class: Counter[type] = Counter()
        for stack, own in classes.items():
            of_class.update(dict.fromkeys(own, weight[stack]))
        main = max(stacks, key=lambda stack: max(of_class[cls] for cls in classes[stack]))
        heaviest = max(of_class.values())
        order = list(stacks)
        inner = self._inner(stacks[main])
        inner |= {e.step.unit.cls for e in self.entries if e.step.whole and not e.block}
        for stack, own in classes.items():
            if order.index(stack) < order.index(main):
                light = weight[stack] < 0.1 * heaviest
            else:
                light = not any(map(self._holds_norm, stacks[stack]))
            if own.isdisjoint(classes[main]) and (light or own <= inner):
                for entry in stacks[stack]:
                    entry.block = False

    def _inner(self, entries: list[Entry]) -> set[type]:
        """Classes found inside blocks."""
        looks = {entry.step.unit.looks: entry.step.unit for entry in entries}
        return {
            part.cls for unit in looks.values() for part in unit.below() if part is not unit
        } - {nn.Sequential, nn.ModuleList}

    def _holds_norm(self, entry: Entry) -> bool:
        return any(map(self.tree.is_norm, self.tree.leaves(entry.step.unit)))

    def places(self) -> Iterator[tuple[int, Place]]:
        """Each parameter's position and place."""
        dead_ends = self._dead_ends()
        for at, entry in enumerate(self.entries):
            order, part = self._where(at, entry)
            if at in dead_ends:
                order, part = self._head
            for param in entry.step.params:
                yield param, self._place(param, entry, order, part)

    def _place(self, at: int, entry: Entry, order: int, part: Part) -> Place:
        param = self.tree.model.params[at]
        if part == "stem":
            if not entry.step.whole and self._ends_bare(param.shape):
                order, part = self._head
            else:
                part = stem_part(param)
        return Place(self.path, (order,), part)

    def _ends_bare(self, shape: tuple[int, ...]) -> bool:
        """Whether a bare parameter is a temperature or a gate, or projects the output."""
        if prod(shape) == 1:
            return True
        if len(shape) != 2:
            return False
        rows, columns = shape
        first, last = (self.entries[self.blocks[end]].step.unit for end in (0, -1))
        return rows in given(self.tree, last) and (
            rows == columns or columns not in taken(self.tree, first)
        )

    @property
    def _head(self) -> tuple[int, Part]:
        return len(self.blocks) + 1, "head"

    def _where(self, at: int, entry: Entry) -> tuple[int, Part]:
        """Layer and part of an entry: 0 is the stem, 1 the first block."""
        first, last = self.blocks[0], self.blocks[-1]
        in_stage = self._in_stage(entry)
        if at < first:
            return (1, "block") if in_stage and self._has_stem else (0, "stem")
        if entry.block or at < last or (in_stage and not self._ends_in_norm(at)):
            return self._layer_of(at, entry), "block"
        if self._ends_in_norm(at):
            return len(self.blocks), "final_norm"
        if self.tree.is_lookup(entry.step.unit):
            return 0, "stem"
        # What a convolution after the blocks gives is taken by a head, or it is the head.
        after = [entry.step.unit for entry in self.entries[last + 1 : at + 1]]
        if at + 1 < len(self.entries) and all(map(self.tree.is_conv, after)):
            return len(self.blocks), "block"
        return self._head

    def _in_stage(self, entry: Entry) -> bool:
        return not self.stages.isdisjoint(entry.around)

    @property
    def _has_stem(self) -> bool:
        """Whether something that is in no stage comes before the blocks."""
        return any(
            entry.step.whole and not self._in_stage(entry)
            for entry in self.entries[: self.blocks[0]]
        )

    def _ends_in_norm(self, at: int) -> bool:
        """Whether there are only norms from the last block up to here, and embeddings."""
        after = [e.step.unit for e in self.entries[self.blocks[-1] + 1 : at + 1]]
        return self.tree.is_norm(after[-1]) and all(
            self.tree.is_norm(unit) or self.tree.is_lookup(unit) for unit in after
        )

    def _layer_of(self, at: int, entry: Entry) -> int:
        """The layer of a block, or of what stands between blocks or in a stage."""
        if entry.block:
            return self._layer_at(at)
        inmost = next(group for group in reversed(entry.around) if group in self.spans)
        start, end = self.spans[inmost]
        if at > end and self._opens(entry, start, end):
            return self._layer_at(start)
        joins_next = at < start or (at < end and not self.tree.is_vectors(entry.step.unit))
        return self._layer_at(at) + (1 if joins_next else 0)

    def _opens(self, entry: Entry, start: int, end: int) -> bool:
        """Whether the blocks of a stage take what a part gives that is registered after."""
        leaves = list(self.tree.leaves(entry.step.unit))
        first, last = self.entries[start].step.unit, self.entries[end].step.unit
        return (
            bool(leaves)
            and not self.tree.gives(leaves[-1]).isdisjoint(taken(self.tree, first))
            and self.tree.takes(leaves[0]).isdisjoint(given(self.tree, last))
        )

    def _layer_at(self, at: int) -> int:
        """How many blocks there are up to an entry."""
        return bisect_right(self.blocks, at)

    def _dead_ends(self) -> set[int]:
        """Parts of the stem whose output nothing takes: heads that are registered early."""
        tree, first = self.tree, self.blocks[0]
        later = list(tree.leaves(self.entries[first].step.unit))
        dead = set()
        for at in reversed(range(first)):
            entry = self.entries[at]
            leaves = list(tree.leaves(entry.step.unit)) if entry.step.whole else []
            if (
                leaves
                and issubclass(leaves[-1].cls, nn.Linear)
                and not any(self._feeds(leaves[-1], leaf) for leaf in later)
                and not any(group.listed for group in entry.around)
            ):
                dead.add(at)
            else:
                later += leaves
        return dead

    def _feeds(self, linear: Unit, leaf: Unit) -> bool:
        """Whether a layer can take what a linear one gives, be it as a square map."""
        widths, taken = self.tree.gives(linear), self.tree.takes(leaf)
        if not issubclass(leaf.cls, _ConvNd):
            return not widths.isdisjoint(taken)
        (width,), (channels,) = widths, taken
        pixels, rest = divmod(width, channels)
        is_image = channels <= 3
        return not is_image and not rest and isqrt(pixels) ** 2 == pixels


def _stack(entry: Entry) -> Group:
    """The outermost list around a block; else what holds it."""
    listed = (group for group in entry.around if group.listed)
    return next(listed, entry.around[-1])
