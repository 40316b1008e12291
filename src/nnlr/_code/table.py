"""Names and their groups as the rows of a table: patterns, and loops over layers."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Final

from nnlr._code.fold import Folder, escaped, without_numbers

_NUMBER: Final = re.compile("[0-9]+")

# So many layers at least are a loop.
_LOOP: Final = 3

# The groups of the names that share a beginning, by the number that follows it and the ending.
_Layers = Mapping[int, Mapping[str, int]]


@dataclass(frozen=True)
class Row:
    """A pattern of names, and their group."""

    pattern: str
    group: int


@dataclass(frozen=True)
class LoopRow:
    """Two parts of a pattern with the number of the layer between, and the group of each layer."""

    before: str
    after: str
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Loop:
    """Rows for each of several layers."""

    layers: range
    rows: list[LoopRow]


def table(group_of: Mapping[str, int]) -> list[Row | Loop]:
    """The rows that give each name its group, in the order of the names.

    Names that differ in numbers only, and are in one group all the same, share a pattern. Where
    the group depends on a number, that number is the variable of a loop, or is written out.
    """
    position = {name: at for at, name in enumerate(group_of)}
    templates: dict[str, list[str]] = defaultdict(list)
    for name in group_of:
        templates[without_numbers(name)].append(name)
    alike: dict[int, list[str]] = defaultdict(list)  # names whose numbers do not matter, by group
    by_layer: dict[str, dict[int, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    first: dict[str, int] = {}
    placed: list[tuple[int, Row | Loop]] = []
    for names in templates.values():
        if len({group_of[name] for name in names}) == 1:
            alike[group_of[names[0]]] += names
            continue
        at = _deciding(names, group_of)
        for name in names:
            number = list(_NUMBER.finditer(name))[at]
            before, value, after = name[: number.start()], number[0], name[number.end() :]
            if str(int(value)) == value:
                by_layer[before][int(value)][after] = group_of[name]
                first[before] = min(position[name], first.get(before, position[name]))
            else:  # a loop does not count 01, 02
                placed.append((position[name], Row(escaped(name), group_of[name])))
    folder = Folder(list(group_of))
    for group, names in alike.items():
        names.sort(key=position.__getitem__)
        for pattern in folder.fold(names):
            matches = re.compile(translate(pattern)).match
            at = next(position[name] for name in names if matches(name))
            placed.append((at, Row(pattern, group)))
    endings = _endings(by_layer, group_of)
    loops: dict[range, Loop] = {}
    for before, layers in by_layer.items():
        for item in _of_layers(before, layers, endings[before]):
            if isinstance(item, Loop):
                if item.layers in loops:
                    loops[item.layers].rows.extend(item.rows)
                    continue
                loops[item.layers] = item
            placed.append((first[before], item))
    return [item for _, item in sorted(placed, key=lambda pair: pair[0])]


def _deciding(names: Sequence[str], group_of: Mapping[str, int]) -> int:
    """Which number, with those before it, decides on the groups of names of one template."""
    last = len(_NUMBER.findall(names[0])) - 1
    for at in range(last):
        groups: dict[str, int] = {}
        starts = (name[: list(_NUMBER.finditer(name))[at].end()] for name in names)
        pairs = zip(starts, names, strict=True)
        if all(groups.setdefault(start, group_of[n]) == group_of[n] for start, n in pairs):
            return at
    return last


def _endings(
    beginnings: Iterable[str], names: Iterable[str]
) -> Mapping[str, Mapping[int, list[str]]]:
    """What follows each number behind each beginning, in all names."""
    wanted = set(beginnings)
    endings: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        for number in _NUMBER.finditer(name):
            before = name[: number.start()]
            if before in wanted:
                endings[before][int(number[0])].append(name[number.end() :])
    return endings


def _of_layers(
    before: str, layers: _Layers, endings: Mapping[int, Sequence[str]]
) -> Iterator[Row | Loop]:
    """The rows of names that begin alike, followed by a number."""
    layers_of: dict[str, list[int]] = defaultdict(list)
    for layer in sorted(layers):
        for after in layers[layer]:
            layers_of[after].append(layer)
    afters_of: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for after, members in layers_of.items():
        afters_of[tuple(members)].append(after)
    for members, afters in afters_of.items():
        groups = {layer: tuple(layers[layer][after] for after in afters) for layer in members}
        for part in _parts(groups):
            present = dict.fromkeys(after for layer in part for after in endings[layer])
            folder = Folder(list(present), anchored=True)
            by_groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
            for at, after in enumerate(afters):
                by_groups[tuple(groups[layer][at] for layer in part)].append(after)
            rows = [
                LoopRow(escaped(before), pattern, own)
                for own, same in by_groups.items()
                for pattern in folder.fold(same)
            ]
            if len(part) >= _LOOP:
                yield Loop(part, rows)
                continue
            for at, layer in enumerate(part):
                for row in rows:
                    yield Row(f"{row.before}{layer}{row.after}", row.groups[at])


def _parts(groups: Mapping[int, tuple[int, ...]]) -> list[range]:
    """Layers that follow each other: several with the same groups, or each with others."""
    runs: list[range] = []
    for layer in groups:
        last = runs[-1] if runs else range(0)
        if runs and last.stop == layer and groups[last[0]] == groups[layer]:
            runs[-1] = range(last.start, layer + 1)
        else:
            runs.append(range(layer, layer + 1))
    parts: list[range] = []
    for run in runs:
        short = len(run) < _LOOP and not (parts and parts[-1] in runs and len(parts[-1]) >= _LOOP)
        if parts and parts[-1].stop == run.start and short:
            parts[-1] = range(parts[-1].start, run.stop)
        else:
            parts.append(run)
    return parts
