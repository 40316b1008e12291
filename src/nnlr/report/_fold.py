"""Fold rows together, so that a model of thousands of tensors fits on a screen.

Rows fold only where what is told of them is equal: their *keys*. Names are read as a tree in which
numbers are all alike (``blocks.#.norm.weight``), and folded level by level, until they fit:

1. numbers: ``blocks.{0..11}.norm1.weight``;
2. numbers in words: ``blocks.{0..11}.norm{1,2}.weight``;
3. every part of the tree of at most n leaves, with growing n: its rows of one key are one line,
   ``blocks.{0..11}.attn.{q,k,v}_proj.weight`` if braces can say it, else ``blocks.3.*.weight``. A
   part stays open if a role does not tell which of its rows have which key;
4. labels with braces give way to shorter ones with a star;
5. at last the inner ones of numbered lines that differ in their rates only: the outermost s at
   either end stay.

A line without a star stands for exactly the names its braces come to. A line with one stands for
all rows of its key that match it.
"""

import re
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from nnlr._rows.row import PlanRow
from nnlr.report._label import STAR, Segments, is_number, label_of

_DIGITS: Final = re.compile(r"(?<![0-9])(?:0|[1-9][0-9]{0,8})(?![0-9])")

# A label with braces that is longer than this is less clear than a star; where room is short a
# shorter one is.
_CLEAR: Final = 72
_BRIEF: Final = 32

# Rows that need no star.
_FEW: Final = 3

# Most lines at either end of numbered ones that stay when the inner ones are folded.
_ENDS: Final = 24


@dataclass(frozen=True, slots=True)
class Line:
    """Rows under one label."""

    label: str
    rows: tuple[PlanRow, ...]
    kind: object = None  # if the label has a star what it stands for; equal for parts alike

    @property
    def numel(self) -> int:
        """Elements of all rows together."""
        return sum(row.numel for row in self.rows)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Rows of one key, and what each segment of their names may be."""

    segments: Segments
    key: Hashable
    rows: tuple[int, ...]
    kind: object = None


class _Part:
    """A part of the tree of names, in which numbers are all alike."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.parts: dict[str, _Part] = {}
        self.rows: list[int] = []  # all within it
        self.ends: list[int] = []  # those whose names end at it

    @cached_property
    def size(self) -> int:
        """Number of its leaves: names that differ in more than numbers."""
        return bool(self.ends) + sum(part.size for part in self.parts.values())

    @cached_property
    def kind(self) -> object:
        """Equal for parts of the same size and make."""
        return self.size, *self.parts

    def walk(self) -> Iterable["_Part"]:
        """It and all parts within it."""
        yield self
        for part in self.parts.values():
            yield from part.walk()


class Folding:
    """Rows, folded more and more from level 0 to the last.

    Args:
        rows: The rows.
        keys: For each row what is told of it; rows of other keys share no line.
        loose: For each row what is told of it beside its rates.
    """

    def __init__(
        self, rows: Sequence[PlanRow], keys: Sequence[Hashable], loose: Sequence[Hashable]
    ) -> None:
        self._rows, self._keys, self._loose = rows, keys, loose
        self._names = [tuple(row.name.split(".")) for row in rows]
        alike: dict[str, str] = {}
        for name in self._names:
            for segment in name:
                if segment not in alike:
                    alike[segment] = _DIGITS.sub("#", segment)
        self._alike = alike
        self._tree = _Part(0)
        for row, name in enumerate(self._names):
            part = self._tree
            part.rows.append(row)
            for segment in name:
                text = alike[segment]
                if text not in part.parts:
                    part.parts[text] = _Part(part.depth + 1)
                part = part.parts[text]
                part.rows.append(row)
            part.ends.append(row)
        self._clear: dict[int, bool] = {}
        self._opened: Collection[object] = ()
        self._longest = _CLEAR

    @cached_property
    def _sizes(self) -> list[int]:
        """For each level from the third how many leaves a part may have to be folded."""
        return sorted({part.size for part in self._tree.walk()} - {0, 1})

    @property
    def exact(self) -> int:
        """The last level at which all rows of a line have the same rates."""
        return 2 + len(self._sizes)

    @property
    def last(self) -> int:
        """The last level."""
        return self.exact + _ENDS + 1

    def at(self, level: int, opened: Collection[object] = ()) -> list[Line]:
        """The lines of a level, in the order of the rows.

        Args:
            level: The level.
            opened: Kinds of lines that are not folded but for what is within them.
        """
        self._opened = opened
        inner = level - self.exact - 1
        if inner < 0:
            patterns = self._folded(level)
        else:
            patterns = self._with_ends(self._folded(self.exact), _ENDS - inner)
        patterns.sort(key=lambda pattern: pattern.rows[0])
        return [
            Line(
                label_of(pattern.segments),
                tuple(self._rows[row] for row in pattern.rows),
                pattern.kind,
            )
            for pattern in patterns
        ]

    def _folded(self, level: int) -> list[_Pattern]:
        most = [1, 1, *self._sizes, len(self._names)][level]
        self._longest = _BRIEF if level == self.exact else _CLEAR
        return self._lines(self._tree, most, numbers_only=level == 0)

    def _lines(self, part: _Part, most: int, *, numbers_only: bool) -> list[_Pattern]:
        """The lines of a part, in which parts of at most ``most`` leaves are folded."""
        small = 1 < part.size <= most
        if small and part.kind not in self._opened and self._is_clear(part):
            by_key: dict[Hashable, list[int]] = {}
            for row in part.rows:
                by_key.setdefault(self._keys[row], []).append(row)
            return [line for key, rows in by_key.items() for line in self._cut(part, key, rows)]
        lines = self._leaves(part.ends, numbers_only=numbers_only)
        for inner in part.parts.values():
            lines += self._lines(inner, most, numbers_only=numbers_only)
        joined = _merged(lines, [part.depth]) if small else lines
        return joined if all(map(self._is_short, joined)) else lines

    def _leaves(self, rows: Sequence[int], *, numbers_only: bool) -> list[_Pattern]:
        """Rows whose names differ in numbers."""
        if not rows:
            return []
        segments = self._names[rows[0]]
        positions = [
            at
            for at, segment in enumerate(segments)
            if (self._alike[segment] == "#" if numbers_only else "#" in self._alike[segment])
        ]
        return _merged(self._patterns(rows), positions)

    def _patterns(self, rows: Iterable[int]) -> list[_Pattern]:
        """A pattern for each row."""
        return [
            _Pattern(tuple((segment,) for segment in self._names[row]), self._keys[row], (row,))
            for row in rows
        ]

    def _cut(self, part: _Part, key: Hashable, rows: Sequence[int]) -> list[_Pattern]:
        """The rows of one key in a part: their labels with braces, or else with a star."""
        names = [self._names[row] for row in rows]
        depth = part.depth
        shortest = min(map(len, names))
        while depth < shortest - 1 and len({self._alike[name[depth]] for name in names}) == 1:
            depth += 1  # what all of them have in common is no part of the star
        end = 0
        while end < shortest - depth - 1 and len({name[-1 - end] for name in names}) == 1:
            end += 1
        by_place: dict[tuple[str, ...], list[int]] = {}
        for row, name in zip(rows, names, strict=True):
            by_place.setdefault(name[:depth], []).append(row)
        tail = tuple((segment,) for segment in names[0][len(names[0]) - end :])
        cut = [
            _Pattern(
                (*((segment,) for segment in place), STAR, *tail), key, tuple(members), part.kind
            )
            for place, members in by_place.items()
        ]
        cut = _merged(cut, range(depth))
        exact = _merged(self._patterns(rows), range(max(map(len, names))))
        few = len(exact) <= len(cut) or len(rows) <= _FEW
        return exact if len(rows) == 1 or (few and all(map(self._is_short, exact))) else cut

    def _is_short(self, pattern: _Pattern) -> bool:
        """Whether a label can be read at a glance."""
        return len(label_of(pattern.segments)) <= self._longest

    def _is_clear(self, part: _Part) -> bool:
        """Whether in each place of a part the role of a row tells its key."""
        known = self._clear.get(id(part))
        if known is None:
            known = all(map(self._is_clear, part.parts.values())) and self._roles_tell(part)
            self._clear[id(part)] = known
        return known

    def _roles_tell(self, part: _Part) -> bool:
        key_of: dict[object, Hashable] = {}
        return all(
            key_of.setdefault(
                (self._names[row][: part.depth], self._rows[row].role), self._keys[row]
            )
            == self._keys[row]
            for row in part.rows
        )

    def _with_ends(self, patterns: list[_Pattern], ends: int) -> list[_Pattern]:
        """The lines, the inner ones of those that differ in numbers and rates folded."""
        series: dict[tuple[object, Hashable], dict[Segments, list[_Pattern]]] = {}
        for pattern in patterns:
            numbers = tuple(c for c in pattern.segments if all(map(is_number, c)))
            words = tuple(None if c in numbers else c for c in pattern.segments)
            places = series.setdefault((words, self._loose[pattern.rows[0]]), {})
            places.setdefault(numbers, []).append(pattern)
        lines: list[_Pattern] = []
        for (_, key), places in series.items():
            members = list(places.values())
            inner = members[ends : len(members) - ends]
            if len(inner) > 1:
                loose = [_Pattern(p.segments, key, p.rows, p.kind) for each in inner for p in each]
                folded = _merged(loose, range(len(loose[0].segments)))
                members = [*members[:ends], folded, *members[len(members) - ends :]]
            lines += [pattern for each in members for pattern in each]
        return lines


def _merged(patterns: list[_Pattern], positions: Iterable[int]) -> list[_Pattern]:
    """Patterns of one key that differ in one segment only as one, the deepest segments first."""
    for at in sorted(positions, reverse=True):
        if len(patterns) < 2:
            break
        together: dict[object, list[_Pattern]] = {}
        for pattern in patterns:
            segments = pattern.segments
            if _leads_to_numbers(segments, at):
                together[id(pattern)] = [pattern]
                continue
            rest = (len(segments), segments[:at], segments[at + 1 :], pattern.key)
            together.setdefault(rest, []).append(pattern)
        patterns = [_joined(members, at) for members in together.values()]
    return patterns


def _leads_to_numbers(segments: Segments, at: int) -> bool:
    """Whether a segment is a word, and numbers follow: what has layers keeps its own lines."""
    return (
        at < len(segments)
        and not any(_DIGITS.search(choice) for choice in segments[at])
        and any(is_number(choices[0]) for choices in segments[at + 1 :])
    )


def _joined(patterns: Sequence[_Pattern], at: int) -> _Pattern:
    """Patterns that differ in the segment ``at`` as one."""
    if len(patterns) == 1:
        return patterns[0]
    first = patterns[0].segments
    choices = tuple(dict.fromkeys(text for pattern in patterns for text in pattern.segments[at]))
    if choices != first[at]:
        first = (*first[:at], choices, *first[at + 1 :])
    rows = tuple(sorted(row for pattern in patterns for row in pattern.rows))
    return _Pattern(first, patterns[0].key, rows, patterns[0].kind)
