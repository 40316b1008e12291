"""Where the repeated blocks of a model are: its stacks, searched from the outside in.

A stack is a list of blocks. A list whose members hold lists of blocks themselves is a list
of stages, unless its members repeat: then these are the blocks, and what they hold (experts,
heads, branches) is no layer.
"""

from collections import Counter
from itertools import pairwise

from torch import nn

from nnlr.depth._blocks.order import connects, ends, inputs_of, takes
from nnlr.depth._blocks.tree import LISTS, BlockGroup, Bundle, ModelStep, Tree, Unit


class BlockFinder:
    """Finds the blocks of a model; with ``siblings`` also equal layers side by side in no list."""

    def __init__(self, tree: Tree, *, siblings: bool = False) -> None:
        self.tree = tree
        self.siblings = siblings
        self._groups: dict[Unit, BlockGroup | None] = {}
        self._uniform: dict[int, bool] = {}

    def blocks_of_model(self) -> BlockGroup | None:
        """The blocks of the whole model. What is a block in one place is one everywhere."""
        group = self._group(self.tree.root)
        if group is None:
            return None
        blocks = {step.unit.looks: step.unit for step in group.blocks()}
        inside = {part.cls for unit in blocks.values() for kid in unit.kids for part in kid.below()}
        classes = {unit.cls for unit in blocks.values()}
        return self._with_all_of(group, classes - inside - set(LISTS))

    def _with_all_of(self, group: BlockGroup, classes: set[type]) -> BlockGroup:
        """The group with everything of these classes made a block."""
        items: list[ModelStep | BlockGroup] = []
        for item in group.items:
            unit = item.unit
            if isinstance(item, BlockGroup):
                if unit.cls in classes and not issubclass(unit.cls, nn.RNNBase):
                    items.append(ModelStep.of(unit, block=True))
                else:
                    items.append(self._with_all_of(item, classes))
                continue
            if group.listed and item.whole and unit.cls in classes:
                items.append(ModelStep(item.params, unit, block=True))
                continue
            blocks = {kid for kid in unit.kids if kid.cls in classes}
            heavy = 2 * sum(kid.numel for kid in blocks) > unit.numel
            if item.whole and not item.block and heavy:
                items.append(_group_of_kids(unit, unit.kids, blocks))
            else:
                items.append(item)
        return BlockGroup(group.unit, items, group.listed, group.branches)

    def _group(self, unit: Unit) -> BlockGroup | None:
        """The blocks in a unit; ``None`` if there are none."""
        if unit not in self._groups:
            self._groups[unit] = self._new_group(unit)
        return self._groups[unit]

    def _new_group(self, unit: Unit) -> BlockGroup | None:
        if issubclass(unit.cls, nn.RNNBase):
            return self._layers_of_recurrent(unit)
        if not unit.is_list:
            kids = self._with_bundles(unit)
            repeated = self._repeated(unit, kids)
            return _group_of_kids(unit, kids, repeated) if repeated else self._outer(unit, kids)
        layers = [kid for kid in unit.kids if not kid.is_vectors]
        members = [kid for kid in layers if self.tree.is_composite(kid)]
        if (
            len(members) * 2 < max(len(layers), 1)
            or self._are_stages(members)
            or not self._in_a_row(unit, members)
        ):
            return self._outer(unit, unit.kids)
        # The blocks of a list, but no convolution before or after them of a class that is
        # also found inside them.
        looks = {kid.looks: kid for kid in members if not self.tree.is_conv(kid)}
        inside = {part.cls for kid in looks.values() for part in kid.below()}
        ends = {
            kid for kid in (members[0], members[-1]) if kid.cls in inside and self.tree.is_conv(kid)
        }
        return _group_of_kids(unit, unit.kids, set(members) - ends)

    def _layers_of_recurrent(self, unit: Unit) -> BlockGroup | None:
        """The layers of one recurrent module, by the names that torch gives them."""
        if int(getattr(unit.module, "num_layers", 1)) < 2:
            return None
        layers: dict[str, list[int]] = {}
        for at in unit.direct:
            number = self.tree.model.params[at].leaf.removesuffix("_reverse")
            layers.setdefault(number.rpartition("_l")[2], []).append(at)
        params = layers.values()
        return BlockGroup(unit, [ModelStep(at, unit, block=True, whole=False) for at in params])

    def _outer(self, unit: Unit, kids: list[Unit]) -> BlockGroup | None:
        """The group of a unit whose parts hold the blocks; ``None`` if none of them does."""
        groups = [(kid, self._group(kid)) for kid in kids]
        classes = Counter(step.unit.cls for _, group in groups if group for step in group.blocks())

        def counts(group: BlockGroup) -> bool:
            """Whether it has several blocks, or one of a class that is found elsewhere too."""
            blocks = group.blocks()
            return len(blocks) > 1 or classes[blocks[0].unit.cls] > 1

        stages = {kid.cls for kid, group in groups if group and counts(group)}
        items = [
            group
            if group
            and (len(classes) == 1 or counts(group) or (unit.is_list and kid.cls in stages))
            else ModelStep.of(kid)
            for kid, group in groups
        ]
        made = BlockGroup.of(unit, items, listed=unit.is_list)
        if not made.blocks():
            return None
        if unit.is_list:
            members = [kid for kid in kids if self.tree.is_composite(kid)]
            same_input = len({takes(self.tree, kid) for kid in members}) == 1
            made.branches = self._are_branches(members) or (
                same_input and not self._in_a_row(unit, members)
            )
        return made

    # Questions about the members of a list

    def _in_a_row(self, unit: Unit, members: list[Unit]) -> bool:
        """Whether any member of a list can take what the member before gives.

        A Sequential runs them in a row whatever they are.
        """
        if issubclass(unit.cls, nn.Sequential):
            return True
        if self.tree.stands_apart(unit):
            return False
        return len(members) < 2 or any(self._can_follow(a, b) for a, b in pairwise(members))

    def _can_follow(self, before: Unit, after: Unit) -> bool:
        outputs, inputs = ends(self.tree, before)[1], ends(self.tree, after)[0]
        return connects(outputs, inputs, self.tree.all_maps)

    def _are_stages(self, kids: list[Unit]) -> bool:
        """Whether members of a list hold the blocks, and are none themselves."""
        uniform = [kid for kid in kids if self._is_uniform(kid)]
        if not any(len(self._blocks(kid)) > 1 for kid in uniform):
            return False
        classes = {kid.cls for kid in uniform}
        others = {kid.cls for kid in kids if kid not in uniform}
        if self._are_layers_of(uniform, others):
            return False
        if self._are_branches(kids):
            return True
        if len(kids) > 1 and self._have_twins(kids):
            return all(issubclass(cls, LISTS) for cls in classes)
        return all(issubclass(cls, LISTS) for cls in classes & others)

    def _is_no_row(self, unit: Unit) -> bool:
        """Whether members of a list cannot follow one another."""
        layers = [kid for kid in unit.kids if not kid.is_vectors]
        both = [ends(self.tree, kid) for kid in layers]
        return len(layers) < 2 or not all(connects(a[1], b[0]) for a, b in pairwise(both))

    def _blocks(self, unit: Unit) -> list[Unit]:
        """The units of the blocks in a unit."""
        group = self._group(unit)
        return [step.unit for step in group.blocks()] if group else []

    def _is_uniform(self, unit: Unit) -> bool:
        """Whether a unit holds a stack most of whose blocks are of one class.

        A class that the unit also holds outside of its stack is a layer, not a block.
        """
        if unit.looks not in self._uniform:
            blocks = self._blocks(unit)
            counts = Counter(block.cls for block in blocks)
            beside = {kid.cls for kid in set(unit.kids).difference(blocks) if not kid.is_list}
            self._uniform[unit.looks] = any(
                2 * count > counts.total() and (cls not in beside or unit.is_list)
                for cls, count in counts.items()
            )
        return self._uniform[unit.looks]

    def _are_layers_of(self, units: list[Unit], beside: set[type]) -> bool:
        """Whether most of what the units hold is of a class that also stands beside them.

        Then it is layers, not blocks.
        """
        shared = [block.cls in beside for unit in units for block in self._blocks(unit)]
        return 2 * sum(shared) > len(shared)

    def _have_twins(self, kids: list[Unit]) -> bool:
        """Whether more than half of the units look like another one."""
        looks = Counter(kid.looks for kid in kids)
        return 2 * sum(looks[kid.looks] > 1 for kid in kids) > len(kids)

    def _are_branches(self, kids: list[Unit]) -> bool:
        """Whether units of one kind are whole models side by side, not blocks in a row."""
        if len(kids) < 2 or any(issubclass(kid.cls, LISTS) for kid in kids):
            return False
        if 2 * sum(kid.numel for kid in kids) < self.tree.root.numel:
            return False
        for before, kid in pairwise(kids):
            group = self._group(kid)
            if group is None:
                return False
            steps = [step for step in group.steps() if step.whole] or group.blocks()
            if steps[0].block:  # what opens a stage may be registered after its blocks
                steps.sort(key=lambda step: step.block)
            inputs = inputs_of(self.tree, steps)
            sizes = {width.size for width in inputs or ()}
            if inputs is not None and sizes & self.tree.output_widths(before):
                return False
        return True

    # Questions about parts that are in no list

    def _repeated(self, unit: Unit, kids: list[Unit]) -> set[Unit]:
        """Parts of one class side by side, in no list, if they weigh something in the unit."""
        by_class: dict[type, list[Unit]] = {}
        for kid in kids:
            if not kid.is_list and self.tree.is_composite(kid):
                by_class.setdefault(kid.cls, []).append(kid)
        several = [
            alike
            for alike in by_class.values()
            if any(self._can_follow(a, b) for a, b in pairwise(alike))
            and not self._are_branches(alike)
        ]
        sure = [alike for alike in several if self._are_blocks(alike, set(by_class))]
        most = max(map(len, sure), default=0)
        repeated = {kid for alike in sure for kid in alike}
        for alike in several:
            # As many again of another class: the way up of what went down.
            heavy = 4 * sum(kid.numel for kid in alike) > unit.numel
            if sure and len(alike) == most and heavy:
                repeated |= set(alike)
        return repeated if 3 * sum(kid.numel for kid in repeated) > unit.numel else set()

    def _are_blocks(self, alike: list[Unit], classes: set[type]) -> bool:
        """Whether units of one class are blocks, beside units of these classes."""
        return (
            self.siblings
            or (all(map(self._group, alike)) and not any(map(self._is_uniform, alike)))
            or self._are_layers_of(alike, classes - {alike[0].cls})
            or (len(alike) > 3 and self._have_twins(alike))
        )

    def _with_bundles(self, unit: Unit) -> list[Unit]:
        """The parts of a unit, with parallel lists made one list."""
        by_length: dict[int, list[Unit]] = {}
        for kid in unit.kids:
            if (
                issubclass(kid.cls, nn.ModuleList)
                and len(kid.module._modules) > 1
                and not self.tree.is_lookup(kid)
            ):
                by_length.setdefault(len(kid.module._modules), []).append(kid)
        kids = unit.kids
        order = [kid for kid in unit.kids if kid.is_list]
        for lists in by_length.values():
            start = order.index(lists[0])
            if len(lists) < 2 or order[start : start + len(lists)] != lists:
                continue
            layers: list[list[Unit]] = [[] for _ in lists[0].module._modules]
            for each_list in lists:
                positions = {attr: at for at, attr in enumerate(each_list.module._modules)}
                for kid in each_list.kids:
                    layers[positions[kid.attr]].append(kid)
            layers = [layer for layer in layers if layer]
            if self._are_parallel(lists, layers):
                bundles = [self.tree.joined(layer, Bundle, layer[0]) for layer in layers]
                joined = self.tree.joined(bundles, nn.ModuleList, lists[0])
                kids = [joined if kid is lists[0] else kid for kid in kids if kid not in lists[1:]]
        return kids

    def _are_parallel(self, lists: list[Unit], layers: list[list[Unit]]) -> bool:
        """Whether lists of equal length run side by side, not one after the other.

        One of them holds single layers, or little at all, and each member can take what the
        member of the list before gives. If each list can be a row itself, and the last one is
        small, it may as well be heads.
        """
        most = max(unit.numel for unit in lists)
        small = [unit.numel < most / 5 or _holds_single_layers(unit) for unit in lists]
        if not any(small) or (small[-1] and not any(map(self._is_no_row, lists))):
            return False
        if any(a.looks == b.looks for layer in layers for a, b in pairwise(layer)):
            return False  # equal lists may as well run one after the other
        turns = [*map(pairwise, layers), ((a[-1], b[0]) for a, b in pairwise(layers))]
        return all(
            not self.tree.input_widths(after).isdisjoint(self.tree.output_widths(before))
            for turn in turns
            for before, after in turn
        )


def _group_of_kids(unit: Unit, kids: list[Unit], blocks: set[Unit]) -> BlockGroup:
    """The group of a unit some of whose parts are blocks."""
    steps = [ModelStep.of(kid, block=kid in blocks) for kid in kids]
    return BlockGroup.of(unit, steps, listed=unit.is_list)


def _holds_single_layers(unit: Unit) -> bool:
    """Whether a list holds single layers, or plain sequences of these."""
    return all(
        not kid.kids or (issubclass(kid.cls, nn.Sequential) and not any(k.kids for k in kid.kids))
        for kid in unit.kids
    )
