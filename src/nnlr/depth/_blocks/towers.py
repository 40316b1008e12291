"""The towers of a model: which of the parts that hold blocks follow one another.

Parts do so unless one has an input of its own. What stands beside several towers belongs
to none, but for what one of them looks up there.
"""

from dataclasses import dataclass, field

from nnlr.depth._blocks.steps import Group, Step, begins_anew, flat, given
from nnlr.depth._blocks.tree import Tree


@dataclass(slots=True)
class Entry:
    """A step of a tower, and the groups around it, outermost first."""

    step: Step
    around: tuple[Group, ...]
    block: bool = False


@dataclass(slots=True)
class Tower:
    """What follows one another from an input on."""

    path: str
    entries: list[Entry] = field(default_factory=list)


def split(tree: Tree, group: Group, around: tuple[Group, ...] = ()) -> list[Tower]:
    """The towers in a group, which stands in the groups ``around``."""
    around = (*around, group)
    towers: list[Tower] = []
    opening: list[Entry] = []  # before the first tower
    loose: list[Entry] = []  # not yet known to belong to a tower
    outside = _with_input_outside(tree, group)
    for item in group.items:
        if isinstance(item, Step):
            entry = Entry(item, around, item.block)
            if not item.block:
                loose.append(entry)
                continue
            found = [Tower(group.unit.path, [entry])]
        else:
            found = split(tree, item, around)
            if towers and (
                (item is outside and not (loose or towers[-1].entries[0].block))
                or _is_apart(tree, group, item, towers[-1], loose)
            ):
                towers += found
                loose = []
                continue
        if towers:
            towers[-1].entries += [*loose, *found[0].entries]
            towers += found[1:]
        else:
            opening, towers = loose, found
        loose = []
    if len(towers) == 1:
        towers[0].path = group.unit.path
        towers[0].entries = [*opening, *towers[0].entries, *loose]
    elif outside and towers[-1].path == outside.unit.path:
        _take_in(tree, towers[-1], opening, loose)
    return towers


def _with_input_outside(tree: Tree, group: Group) -> Group | None:
    """The second of two parts, if what it looks up stands after it, not in it."""
    groups = [item for item in group.items if isinstance(item, Group)]
    if group.listed or len(groups) != 2 or groups[-1].listed:
        return None
    last = groups[-1]
    beside = group.items[group.items.index(last) + 1 :]  # steps only
    looked_up = [step.unit for step in beside if not tree.is_norm(step.unit)]
    if not looked_up or not all(map(tree.is_lookup, looked_up)):
        return None
    return None if any(tree.is_lookup(step.unit) for step in flat(last)) else last


def _take_in(tree: Tree, tower: Tower, before: list[Entry], after: list[Entry]) -> None:
    """Add embeddings, norms, and bare matrices of its width to a tower."""
    beside = [e for e in after if tree.is_lookup(e.step.unit)]
    widths = {width for entry in beside for width in given(tree, entry.step.unit)}
    bare = [
        entry
        for entry in before
        if not entry.step.whole
        and not widths.isdisjoint(tree.model.params[entry.step.params[0]].shape)
    ]
    norms = [
        entry
        for entry in after
        if tree.is_norm(entry.step.unit) and widths == given(tree, entry.step.unit)
    ]
    tower.entries = [*bare, *beside, *tower.entries, *norms]


def _is_apart(tree: Tree, group: Group, item: Group, last: Tower, loose: list[Entry]) -> bool:
    """Whether a group starts a tower of its own, after another one."""
    if group.listed:
        return group.branches
    if item.listed:
        return False
    end = max(at for at, entry in enumerate(last.entries) if entry.block)
    widths: set[int] = set()
    for entry in (*last.entries[end:], *loose):
        widths |= given(tree, entry.step.unit)
    return begins_anew(tree, flat(item), widths)
