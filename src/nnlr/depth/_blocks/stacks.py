"""Where the repeated blocks of a model are: its stacks, found outermost first.

A stack is a list of blocks. A list whose members hold lists of blocks themselves is a list
of stages, unless its members repeat: then it is these that are the blocks, and what they
hold (experts, heads, branches) is no layer.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from torch import nn

from nnlr.depth._blocks.steps import Group, Step, begins_anew, flat, given, raw, taken
from nnlr.depth._blocks.tree import LISTS, Tree, Unit, is_list


class Stacks:
    """Finds the stacks of a model.

    Args:
        tree: The units of the model.
        siblings: Whether layers of one class side by side, in no list, are a stack too.
    """

    def __init__(self, tree: Tree, *, siblings: bool = False) -> None:
        self.tree = tree
        self.siblings = siblings
        self._opened: dict[Unit, Group | None] = {}
        self._uniform: dict[int, bool] = {}

    def opened(self, unit: Unit) -> Group | None:
        """The blocks in a unit; ``None`` if there are none."""
        if unit not in self._opened:
            self._opened[unit] = self._open(unit)
        return self._opened[unit]

    def _open(self, unit: Unit) -> Group | None:
        if issubclass(unit.cls, nn.RNNBase):
            return self._recurrent(unit)
        if is_list(unit):
            return self._list(unit, unit.kids)
        kids = self._with_bundles(unit)
        if repeated := self._repeated(unit, kids):
            return self._steps(unit, kids, repeated)
        return self._described(unit, kids, listed=False)

    def settled(self) -> Group | None:
        """The blocks of the model. What is a block in one place is one everywhere."""
        group = self.opened(self.tree.root)
        if group is None:
            return None
        blocks = {step.unit.looks: step.unit for step in group.blocks()}
        inside = {part.cls for unit in blocks.values() for kid in unit.kids for part in kid.below()}
        classes = {unit.cls for unit in blocks.values()}
        return self._settle(group, classes - inside - set(LISTS))

    def _settle(self, group: Group, classes: set[type]) -> Group:
        items: list[Step | Group] = []
        for item in group.items:
            unit = item.unit
            if isinstance(item, Group):
                if unit.cls in classes and not issubclass(unit.cls, nn.RNNBase):
                    items.append(Step(list(unit.params()), unit, block=True))
                else:
                    items.append(self._settle(item, classes))
                continue
            if group.listed and item.whole and unit.cls in classes:
                items.append(Step(item.params, unit, block=True))
                continue
            inner = {kid for kid in unit.kids if kid.cls in classes}
            heavy = 2 * sum(kid.numel for kid in inner) > unit.numel
            if item.whole and not item.block and heavy:
                items.append(self._steps(unit, unit.kids, inner))
            else:
                items.append(item)
        return Group(group.unit, items, group.listed, group.branches)

    # Lists

    def _list(self, unit: Unit, kids: list[Unit]) -> Group | None:
        tree = self.tree
        layers = [kid for kid in kids if not tree.is_vectors(kid)]
        composite = [kid for kid in layers if tree.is_composite(kid)]
        if self._are_stages(composite):
            return self._described(unit, kids, listed=True)
        if len(composite) * 2 < len(layers) or not composite:
            return self._described(unit, kids, listed=True)
        return self._steps(unit, kids, self._without_ends(composite))

    def _without_ends(self, kids: list[Unit]) -> set[Unit]:
        """The blocks of a list but for a convolution before and after them.

        That is one of a class which is also found inside the blocks.
        """
        looks = {kid.looks: kid for kid in kids if not self.tree.is_conv(kid)}
        inside = {part.cls for kid in looks.values() for part in kid.below()}
        ends = {kids[0], kids[-1]}
        return {
            kid
            for kid in kids
            if not (kid in ends and kid.cls in inside and self.tree.is_conv(kid))
        }

    def _are_stages(self, kids: list[Unit]) -> bool:
        """Whether members of a list hold the blocks, and are none themselves."""
        nested = [kid for kid in kids if self._is_uniform(kid)]
        if not any(len(list(self._blocks(kid))) > 1 for kid in nested):
            return False
        if self._are_layers_of(nested, {kid.cls for kid in kids if kid not in nested}):
            return False
        if self._are_branches(kids):
            return True
        if len(kids) > 1 and self._have_twins(kids):
            return all(issubclass(kid.cls, LISTS) for kid in nested)
        return not any(
            kid.cls is one.cls and not issubclass(kid.cls, LISTS)
            for one in nested
            for kid in kids
            if not self._is_uniform(kid)
        )

    def _are_layers_of(self, units: list[Unit], beside: set[type]) -> bool:
        """Whether what the units hold is what also stands beside them: layers, no blocks."""
        inside = [step.unit.cls in beside for unit in units for step in self._blocks(unit)]
        return 2 * sum(inside) > len(inside)

    def _is_uniform(self, unit: Unit) -> bool:
        """Whether a unit holds a stack most of whose blocks are of one class.

        A class that the unit also holds outside of its stack is a layer, not a block.
        """
        known = self._uniform.get(unit.looks)
        if known is None:
            blocks = [step.unit for step in self._blocks(unit)]
            counts = Counter(block.cls for block in blocks)
            others = set(unit.kids).difference(blocks)
            beside = {kid.cls for kid in others if not is_list(kid)}
            known = any(
                2 * count > counts.total() and (cls not in beside or is_list(unit))
                for cls, count in counts.items()
            )
            self._uniform[unit.looks] = known
        return known

    def _blocks(self, unit: Unit) -> Iterator[Step]:
        group = self.opened(unit)
        return group.blocks() if group else iter(())

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
        return all(
            self._begins_anew(kid, given(self.tree, before)) for before, kid in pairwise(kids)
        )

    def _begins_anew(self, unit: Unit, widths: set[int]) -> bool:
        group = self.opened(unit)
        if group is None:
            return False
        steps = [step for step in flat(group) if step.whole] or list(group.blocks())
        if steps[0].block:  # what opens a stage may be registered after its blocks
            steps.sort(key=lambda step: step.block)
        return begins_anew(self.tree, steps, widths)

    # Others

    def _with_bundles(self, unit: Unit) -> list[Unit]:
        """The parts of a unit, parallel lists of which are made one."""
        if len(unit.kids) < 2:
            return unit.kids
        lists: dict[int, list[Unit]] = {}
        for kid in unit.kids:
            if issubclass(kid.cls, nn.ModuleList) and len(kid.module._modules) > 1:
                lists.setdefault(len(kid.module._modules), []).append(kid)
        kids = unit.kids
        order = [kid for kid in unit.kids if is_list(kid)]
        for found in lists.values():
            start = order.index(found[0])
            adjoin = order[start : start + len(found)] == found
            if len(found) > 1 and adjoin and self._are_parallel(found):
                one = self._bundled(found)
                kids = [one if kid is found[0] else kid for kid in kids if kid not in found[1:]]
        return kids

    def _are_parallel(self, lists: list[Unit]) -> bool:
        """Whether lists of equal length run side by side, not one after the other.

        One of them holds single layers, or little at all, and each member can take what
        the member of the list before gives.
        """
        most = max(found.numel for found in lists)
        if not any(found.numel < most / 5 or _is_of_leaves(found) for found in lists):
            return False
        return all(
            not taken(self.tree, after).isdisjoint(given(self.tree, before))
            for members in self._members(lists)
            for before, after in pairwise(members)
        )

    def _members(self, lists: list[Unit]) -> list[list[Unit]]:
        """The parts of parallel lists that make one layer, for each layer."""
        members: list[list[Unit]] = [[] for _ in lists[0].module._modules]
        for found in lists:
            position = {attr: at for at, attr in enumerate(found.module._modules)}
            for kid in found.kids:
                members[position[kid.attr]].append(kid)
        return [some for some in members if some]

    def _bundled(self, lists: list[Unit]) -> Unit:
        bundles = [self.tree.bundled(some) for some in self._members(lists)]
        return self.tree.listed(bundles, lists[0])

    def _repeated(self, unit: Unit, kids: list[Unit]) -> set[Unit]:
        """Parts of one class side by side, in no list, if they weigh something in it."""
        by_class: dict[type, list[Unit]] = {}
        for kid in kids:
            if not is_list(kid) and self.tree.is_composite(kid):
                by_class.setdefault(kid.cls, []).append(kid)
        several = [
            some for some in by_class.values() if len(some) > 1 and not self._are_branches(some)
        ]
        sure = [some for some in several if self._are_blocks(some, set(by_class))]
        most = max(map(len, sure), default=0)
        found = [kid for some in sure for kid in some]
        for some in several:
            # As many again of another class: the way up of what went down.
            heavy = 4 * sum(kid.numel for kid in some) > unit.numel
            if sure and some not in sure and len(some) == most and heavy:
                found += some
        weighs = sum(kid.numel for kid in found)
        return set(found) if 3 * weighs > unit.numel else set()

    def _are_blocks(self, some: list[Unit], classes: set[type]) -> bool:
        """Whether units of one class, side by side with such of these, are blocks."""
        return (
            self.siblings
            or (all(map(self.opened, some)) and not any(map(self._is_uniform, some)))
            or self._are_layers_of(some, classes - {some[0].cls})
            or (len(some) > 3 and self._have_twins(some))
        )

    def _recurrent(self, unit: Unit) -> Group | None:
        """The layers of one recurrent module, by the names that torch gives them."""
        if int(getattr(unit.module, "num_layers", 1)) < 2:
            return None
        layers: dict[str, list[int]] = {}
        for at in unit.own:
            number = self.tree.model.params[at].leaf.removesuffix("_reverse")
            layers.setdefault(number.rpartition("_l")[2], []).append(at)
        steps: list[Step | Group] = [
            Step(some, unit, block=True, whole=False) for some in layers.values()
        ]
        return Group(unit, steps)

    # Groups

    def _steps(self, unit: Unit, kids: list[Unit], blocks: set[Unit]) -> Group:
        return Group(
            unit,
            [
                *raw(unit),
                *(Step(list(kid.params()), kid, kid in blocks) for kid in kids),
            ],
            listed=is_list(unit),
        )

    def _described(self, unit: Unit, kids: list[Unit], *, listed: bool) -> Group | None:
        """A unit whose parts hold the blocks, if any do."""
        groups = [(kid, self.opened(kid)) for kid in kids]
        classes = Counter(step.unit.cls for _, group in groups if group for step in group.blocks())
        if not classes:
            return None
        items: list[Step | Group] = list(raw(unit))
        stages = {kid.cls for kid, group in groups if group and _joined(group, classes)}
        for kid, group in groups:
            if group is not None and (
                len(classes) == 1 or _joined(group, classes) or (listed and kid.cls in stages)
            ):
                items.append(group)
            else:
                items.append(Step(list(kid.params()), kid))
        made = Group(unit, items, listed)
        if not any(True for _ in made.blocks()):
            return None
        if listed:
            made.branches = self._are_branches([kid for kid in kids if self.tree.is_composite(kid)])
        return made


def _joined(group: Group, classes: Counter[type]) -> bool:
    """Whether a group has several blocks, or one of a class that is found elsewhere too."""
    steps = list(group.blocks())
    return len(steps) > 1 or classes[steps[0].unit.cls] > 1


def _is_of_leaves(unit: Unit) -> bool:
    """Whether a list holds single layers, or plain sequences of these."""
    return all(
        not kid.kids or (issubclass(kid.cls, nn.Sequential) and not any(k.kids for k in kid.kids))
        for kid in unit.kids
    )


def leaf_stacks(tree: Tree, unit: Unit) -> Group | None:
    """Lists of single layers, each of which is a block: for models without any other."""
    kids: list[tuple[Unit, Group | None]]
    if issubclass(unit.cls, LISTS):
        layers = {kid for kid in unit.kids if not tree.is_vectors(kid)}
        if len(layers) > 1:
            steps = [Step(list(kid.params()), kid, kid in layers) for kid in unit.kids]
            return Group(unit, [*raw(unit), *steps], listed=True)
        # What a list holds one of is a block, and no layer is looked for in a block.
        kids = [
            (kid, leaf_stacks(tree, kid) if issubclass(kid.cls, LISTS) else None)
            for kid in unit.kids
        ]
    else:
        kids = [(kid, leaf_stacks(tree, kid)) for kid in unit.kids]
    if not any(group for _, group in kids):
        return None
    items = [group or Step(list(kid.params()), kid) for kid, group in kids]
    return Group(unit, [*raw(unit), *items])
