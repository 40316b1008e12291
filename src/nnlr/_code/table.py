"""Names and their groups as the rows of a table: patterns, and loops over layers."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from itertools import groupby
from typing import Final

from nnlr._code.fold import Folder, escaped, without_numbers

_NUMBER: Final = re.compile("[0-9]+")

# So many layers with the same groups at least have a loop of their own.
_ALIKE: Final = 3

# A group for each layer; where some names lack a layer, for those that they have.
_Series = Mapping[int, int]


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

    def written_out(self) -> list[Row]:
        """The rows without a loop."""
        return [
            Row(f"{row.before}{layer}{row.after}", row.groups[at])
            for at, layer in enumerate(self.layers)
            for row in self.rows
        ]


@dataclass(frozen=True, slots=True)
class _Split:
    """A name at the number of its layer."""

    before: str
    layer: int
    after: str


def table(group_of: Mapping[str, int]) -> list[Row | Loop]:
    """The rows that give each name its group, in the order of the names.

    Names that differ in numbers only, and are in one group all the same, share a pattern. Where
    the group depends on a number, that number is the variable of a loop, or is written out.
    """
    position = {name: at for at, name in enumerate(group_of)}
    templates: dict[str, list[str]] = defaultdict(list)
    for name in group_of:
        templates[without_numbers(name)].append(name)
    placed: list[tuple[int, Row | Loop]] = []
    alike: dict[int, list[str]] = defaultdict(list)  # names whose numbers do not matter, by group
    numbered: list[list[str]] = []
    for names in templates.values():
        if len({group_of[name] for name in names}) == 1:
            alike[group_of[names[0]]] += names
        else:
            numbered.append(names)
    folder = Folder(list(group_of))
    for group, names in alike.items():
        names.sort(key=position.__getitem__)
        for pattern in folder.fold(names):
            matches = re.compile(translate(pattern)).match
            at = next(position[name] for name in names if matches(name))
            placed.append((at, Row(pattern, group)))
    by_start: dict[str, dict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    first: dict[str, int] = {}
    for name, split in _splits(numbered, group_of):
        if split is None:  # a loop does not count 01, 02
            placed.append((position[name], Row(escaped(name), group_of[name])))
            continue
        by_start[split.before][split.after][split.layer] = group_of[name]
        first[split.before] = min(position[name], first.get(split.before, position[name]))
    endings = _endings(by_start, group_of)
    loops: dict[tuple[range, tuple[int, ...]], Loop] = {}
    for before, series_of in by_start.items():
        for item in _of_layers(before, series_of, endings[before]):
            if isinstance(item, Loop):
                keys = [(item.layers, row.groups) for row in item.rows]
                same = next((loops[key] for key in keys if key in loops), item)
                loops.update(dict.fromkeys(keys, same))
                if same is not item:
                    same.rows.extend(item.rows)
                    continue
            placed.append((first[before], item))
    return [item for _, item in sorted(placed, key=lambda pair: pair[0])]


def _splits(
    numbered: Sequence[Sequence[str]], group_of: Mapping[str, int]
) -> Iterator[tuple[str, _Split | None]]:
    """Names at the number that decides on their group, with those before it.

    Names that begin alike are split at the same of their numbers: that which decides on most.
    """
    deciding: dict[str, Counter[int]] = defaultdict(Counter)
    for names in numbered:
        deciding[_start(names[0])][_deciding(names, group_of)] += len(names)
    for names in numbered:
        counts = deciding[_start(names[0])]
        at = max(counts, key=lambda each: (counts[each], each))
        for name in names:
            numbers = list(_NUMBER.finditer(name))
            number = numbers[min(at, len(numbers) - 1)]
            layer = int(number[0])
            if str(layer) == number[0]:
                yield name, _Split(name[: number.start()], layer, name[number.end() :])
            else:
                yield name, None


def _start(name: str) -> str:
    """What stands before the first number of a name."""
    return _NUMBER.split(name, maxsplit=1)[0]


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
    before: str, series_of: Mapping[str, _Series], endings: Mapping[int, Sequence[str]]
) -> Iterator[Row | Loop]:
    """The rows of names that begin alike, followed by a number."""
    by_layers: dict[tuple[int, ...], list[_Like]] = defaultdict(list)
    for like in _together(series_of):
        by_layers[tuple(sorted(like.series))].append(like)
    for layers, likes in by_layers.items():
        groups = {layer: tuple(like.series[layer] for like in likes) for layer in layers}
        for part in _parts(groups):
            by_groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
            for like in likes:
                own = tuple(like.series[layer] for layer in part)
                by_groups[own] += [
                    after for after in like.afters if not series_of[after].keys().isdisjoint(part)
                ]
            folder = Folder(
                list(dict.fromkeys(after for layer in part for after in endings[layer])),
                anchored=True,
            )
            patterns = [(own, each) for own in by_groups for each in folder.fold(by_groups[own])]
            yield from _rows(escaped(before), part, patterns, series_of)


def _rows(
    before: str,
    part: range,
    patterns: Sequence[tuple[tuple[int, ...], str]],
    series_of: Mapping[str, _Series],
) -> Iterator[Row | Loop]:
    """A loop over the layers that have names of a pattern, or rows where there is one layer."""
    loops: dict[range, list[LoopRow]] = defaultdict(list)
    for own, pattern in patterns:
        matches = re.compile(translate(pattern)).match
        present = {layer for after in filter(matches, series_of) for layer in series_of[after]}
        for run in _runs(layer for layer in part if layer in present):
            groups = own[run.start - part.start : run.stop - part.start]
            loops[run].append(LoopRow(before, pattern, groups))
    for run, rows in loops.items():
        loop = Loop(run, rows)
        yield from [loop] if len(run) > 1 else loop.written_out()


@dataclass(frozen=True, slots=True)
class _Like:
    """Endings of names that are in the same groups, as far as they have the layers."""

    series: _Series
    afters: list[str]


def _together(series_of: Mapping[str, _Series]) -> list[_Like]:
    """The endings that go together; those of many layers come first, and others join them."""
    likes: list[_Like] = []
    at: dict[tuple[int, int], list[_Like]] = defaultdict(list)
    for after in sorted(series_of, key=lambda each: -len(series_of[each])):
        series = series_of[after]
        candidates = at[next(iter(series.items()))]
        like = next((each for each in candidates if series.items() <= each.series.items()), None)
        if like is None:
            like = _Like(series, [])
            likes.append(like)
            for pair in series.items():
                at[pair].append(like)
        like.afters.append(after)
    return likes


def _parts(groups: Mapping[int, tuple[int, ...]]) -> list[range]:
    """Layers that follow each other: several with the same groups, or each with others."""
    parts: list[range] = []
    open_end = False  # whether short runs may be added to the last part
    for members in _runs(groups):
        open_end = False
        for run in _equal(members, groups):
            short = len(run) < _ALIKE
            if short and open_end:
                parts[-1] = range(parts[-1].start, run.stop)
            else:
                parts.append(run)
            open_end = short
    return parts


def _runs(layers: Iterable[int]) -> list[range]:
    """Numbers in order as ranges."""
    runs: list[range] = []
    for layer in layers:
        if runs and runs[-1].stop == layer:
            runs[-1] = range(runs[-1].start, layer + 1)
        else:
            runs.append(range(layer, layer + 1))
    return runs


def _equal(layers: range, groups: Mapping[int, tuple[int, ...]]) -> Iterator[range]:
    """The layers in parts that have the same groups."""
    for _, same in groupby(layers, key=groups.__getitem__):
        members = list(same)
        yield range(members[0], members[-1] + 1)
