"""Fold rows together, so that a model of thousands of tensors fits on a screen.

Rows fold only where what is told of them is equal: their *keys*. Names are read as a tree in which
numbers are all alike (``blocks.#.norm.weight``), and folded level by level, until they fit:

1. numbers of one role: ``blocks.{0..11}.norm1.weight``;
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
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import Final, NamedTuple

from nnlr._rows.row import PlanRow
from nnlr.report._label import STAR, Segments, is_number, label_of

_has_digit: Final = re.compile(r"\d").search
_DIGITS: Final = re.compile(r"(?<![0-9])(?:0|[1-9][0-9]{0,8})(?![0-9])")

# The key of rows that get no line, and whose names no other line may take in.
HIDDEN: Final = object()

# A label with braces that is longer than this is less clear than a star; where room is short a
# shorter one is.
_CLEAR: Final = 72
_BRIEF: Final = 32

# Rows that need no star.
_FEW: Final = 3

# A name is read as so many segments at most; what is left of it is the last of them.
_DEEPEST: Final = 16

# Most lines at either end of numbered ones that stay when the inner ones are folded.
_ENDS: Final = 24


class Line(NamedTuple):
    """Rows under one label."""

    label: str
    rows: tuple[PlanRow, ...]
    kind: object = None  # if the label has a star what it stands for; equal for parts alike
    mixed: bool = False  # whether the rates of the rows differ

    @property
    def numel(self) -> int:
        """Elements of all rows together."""
        return sum(row.numel for row in self.rows)


class _Pattern(NamedTuple):
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
        self.rows: list[int] = []  # those whose names end at it

    @cached_property
    def size(self) -> int:
        """Number of its leaves: names that differ in more than numbers."""
        return bool(self.rows) + sum(part.size for part in self.parts.values())

    @cached_property
    def kind(self) -> object:
        """Equal for parts of the same size and make."""
        return self.size, *self.parts

    def walk(self) -> Iterator["_Part"]:
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
        self._names = [tuple(row.name.split(".", _DEEPEST - 1)) for row in rows]
        self._alike: dict[str, str] = {}
        for segment in {segment for name in self._names for segment in name}:
            self._alike[segment] = _DIGITS.sub("#", segment)
        self._tree = _Part(0)
        for row, name in enumerate(self._names):
            part = self._tree
            for segment in name:
                text = self._alike[segment]
                if text not in part.parts:
                    part.parts[text] = _Part(part.depth + 1)
                part = part.parts[text]
            part.rows.append(row)
        self._whole: dict[int, list[_Pattern]] = {}
        self._clear: dict[int, bool] = {}
        self._levels: dict[int, list[_Pattern]] = {}
        self._lines_at: dict[int, list[Line]] = {}
        self._opened: Collection[object] = ()
        self._longest = _CLEAR
        self._sizes = sorted({part.size for part in self._tree.walk()} - {0, 1})
        self._least = len({*keys} - {HIDDEN})

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
        if opened:
            return self._labelled(self._folded(level))
        if level not in self._lines_at:
            self._lines_at[level] = self._labelled(self._level(level))
        return self._lines_at[level]

    def _labelled(self, patterns: list[_Pattern]) -> list[Line]:
        """The patterns as lines, in the order of the rows."""
        return [
            Line(
                label_of(pattern.segments),
                tuple([self._rows[row] for row in pattern.rows]),
                pattern.kind,
                len(pattern.rows) > 1 and pattern.key != self._keys[pattern.rows[0]],
            )
            for pattern in sorted(patterns, key=lambda pattern: pattern.rows[0])
        ]

    def is_within(self, most: int, level: int) -> bool:
        """Whether a level has at most so many lines; one that cannot is not folded."""
        self._opened = ()
        if level > self.exact:
            shown = 2 * (self.last - level) + 1
            least = sum(min(len(places), shown) for places in self._series.values())
        else:
            least = self._least
        return least <= most and len(self._level(level)) <= most

    def _level(self, level: int) -> list[_Pattern]:
        """The lines of a level of which nothing is opened."""
        if level not in self._levels:
            if level <= self.exact:
                self._levels[level] = self._folded(level)
            else:
                self._levels[level] = self._with_ends(self.last - level)
        return self._levels[level]

    def _folded(self, level: int) -> list[_Pattern]:
        if level == 0:
            parts = self._tree.walk()
            lines = [line for part in parts for line in self._numbered(part, whole=True)]
            return _seen([line._replace(key=self._keys[line.rows[0]]) for line in lines])
        most = [1, *self._sizes, len(self._names)][level - 1]
        self._longest = _BRIEF if level == self.exact else _CLEAR
        return _seen(self._lines(self._tree, most))

    def _lines(self, part: _Part, most: int) -> list[_Pattern]:
        """The lines of a part, in which parts of at most ``most`` leaves are folded."""
        small = 1 < part.size <= most and not part.rows  # a star is one segment or more
        if small and part.kind not in self._opened and self._is_clear(part):
            by_key: dict[Hashable, list[_Pattern]] = {}
            for pattern in self._all(part):
                by_key.setdefault(pattern.key, []).append(pattern)
            return [line for patterns in by_key.values() for line in self._cut(part, patterns)]
        if part.size == 1:
            return self._all(part)
        lines = self._numbered(part)
        for inner in part.parts.values():
            lines += self._lines(inner, most)
        joined = _merged(lines, [part.depth]) if small else lines
        shorter = len(joined) < len(lines) and all(map(self._is_short, joined))
        return joined if shorter else lines

    def _all(self, part: _Part) -> list[_Pattern]:
        """Every leaf of a part, with all numbers folded."""
        if id(part) not in self._whole:
            lines = self._numbered(part)
            for inner in part.parts.values():
                lines += self._all(inner)
            self._whole[id(part)] = lines
        return self._whole[id(part)]

    def _numbered(self, part: _Part, *, whole: bool = False) -> list[_Pattern]:
        """Rows that end at a part and differ in numbers; ``whole``: not in those within words."""
        if not part.rows:
            return []
        patterns = [
            _Pattern(
                tuple([(segment,) for segment in self._names[row]]),
                (self._keys[row], self._rows[row].role) if whole else self._keys[row],
                (row,),
            )
            for row in part.rows
        ]
        texts = [self._alike[segment] for segment in self._names[part.rows[0]]]
        numbers = [at for at, text in enumerate(texts) if (text == "#" if whole else "#" in text)]
        return _merged(patterns, numbers)

    def _cut(self, part: _Part, patterns: list[_Pattern]) -> list[_Pattern]:
        """The rows of one key in a part: their labels with braces, or else with a star."""
        if len(patterns) == 1:
            return patterns
        names = [pattern.segments for pattern in patterns]
        depth, shortest = part.depth, min(map(len, names))
        while depth < shortest - 1 and len({self._alike[name[depth][0]] for name in names}) == 1:
            depth += 1  # what all of them have in common is no part of the star
        end = 0
        while end < shortest - depth - 1 and len({name[-1 - end] for name in names}) == 1:
            end += 1
        tail = names[0][len(names[0]) - end :]
        by_place: dict[Segments, list[int]] = {}
        if len({name[:depth] for name in names}) == 1:
            by_place[names[0][:depth]] = sorted(row for p in patterns for row in p.rows)
        else:
            for row in sorted(row for pattern in patterns for row in pattern.rows):
                place = tuple([(segment,) for segment in self._names[row][:depth]])
                by_place.setdefault(place, []).append(row)
        cut = [
            _Pattern((*place, STAR, *tail), patterns[0].key, tuple(rows), part.kind)
            for place, rows in by_place.items()
        ]
        cut = _merged(cut, range(depth))
        exact = _merged(patterns, range(max(map(len, names))))
        few = len(exact) <= len(cut) or sum(len(pattern.rows) for pattern in exact) <= _FEW
        return exact if few and all(map(self._is_short, exact)) else cut

    def _is_short(self, pattern: _Pattern) -> bool:
        """Whether a label can be read at a glance."""
        return len(pattern.rows) == 1 or len(label_of(pattern.segments)) <= self._longest

    def _is_clear(self, part: _Part) -> bool:
        """Whether in each place of a part the role of a row tells its key."""
        if id(part) not in self._clear:
            inner = [each for each in part.parts.values() if each.size > 1]
            self._clear[id(part)] = all(map(self._is_clear, inner)) and self._roles_tell(part)
        return self._clear[id(part)]

    def _roles_tell(self, part: _Part) -> bool:
        patterns = self._all(part)
        if len({pattern.key for pattern in patterns}) == 1:
            return True
        key_of: dict[object, Hashable] = {}
        return all(
            key_of.setdefault((*place, role), pattern.key) == pattern.key
            for pattern in patterns
            for role in {self._rows[row].role for row in pattern.rows}
            for place in product(*pattern.segments[: part.depth])
        )

    @cached_property
    def _series(self) -> dict[object, dict[Segments, list[_Pattern]]]:
        """The lines of the last exact level: those that differ in numbers and rates together."""
        series: dict[object, dict[Segments, list[_Pattern]]] = {}
        for pattern in self._level(self.exact):
            numbers = tuple([c for c in pattern.segments if is_number(c[0])])
            words = tuple([None if is_number(c[0]) else c for c in pattern.segments])
            places = series.setdefault((words, self._loose[pattern.rows[0]]), {})
            places.setdefault(numbers, []).append(pattern)
        return series

    def _with_ends(self, ends: int) -> list[_Pattern]:
        """The lines, the inner ones of those that differ in numbers and rates folded."""
        lines: list[_Pattern] = []
        for places in self._series.values():
            members = list(places.values())
            inner = members[ends : len(members) - ends]
            if len(inner) > 1:
                key = self._loose[inner[0][0].rows[0]]
                loose = [pattern._replace(key=key) for each in inner for pattern in each]
                folded = _merged(loose, range(len(loose[0].segments)))
                members = [*members[:ends], folded, *members[len(members) - ends :]]
            lines += [pattern for each in members for pattern in each]
        return lines


def _seen(patterns: list[_Pattern]) -> list[_Pattern]:
    return [pattern for pattern in patterns if pattern.key is not HIDDEN]


def _merged(patterns: list[_Pattern], positions: Iterable[int]) -> list[_Pattern]:
    """Patterns of one key that differ in one segment only as one, the deepest segments first."""
    if len(patterns) < 2:
        return patterns
    keys = len({pattern.key for pattern in patterns})
    for at in sorted(positions, reverse=True):
        if len(patterns) == keys:
            break
        together: dict[object, list[_Pattern]] = {}
        for pattern in patterns:
            segments = pattern.segments
            if _leads_to_numbers(segments, at):
                together[id(pattern)] = [pattern]
                continue
            rest = (len(segments), segments[:at], segments[at + 1 :], pattern.key)
            together.setdefault(rest, []).append(pattern)
        if len(together) < len(patterns):
            patterns = [_joined(members, at) for members in together.values()]
    return patterns


def _leads_to_numbers(segments: Segments, at: int) -> bool:
    """Whether a segment is a word, and numbers follow: what has layers keeps its own lines."""
    if at >= len(segments) - 1 or _has_digit(segments[at][0]):
        return False
    return any(is_number(choices[0]) for choices in segments[at + 1 :]) and not any(
        map(_has_digit, segments[at])
    )


def _joined(patterns: Sequence[_Pattern], at: int) -> _Pattern:
    """Patterns that differ in the segment ``at`` as one."""
    first = patterns[0]
    if len(patterns) == 1:
        return first
    choices = tuple(dict.fromkeys([text for p in patterns for text in p.segments[at]]))
    segments = (*first.segments[:at], choices, *first.segments[at + 1 :])
    rows = tuple(sorted([row for pattern in patterns for row in pattern.rows]))
    return first._replace(segments=segments, rows=rows)
