"""Few patterns in place of many names: those of a group, and no others."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from fnmatch import translate
from functools import cached_property
from itertools import chain
from typing import Final, NamedTuple

_NUMBER: Final = re.compile("[0-9]+")
_SPECIAL: Final = re.compile(r"[*?\[]")

# Segments that a pattern may keep at the end of a name, after a star.
_TAIL: Final = 2


class _Shape(NamedTuple):
    """A pattern in the making: whole segments at both ends, numbers in them as stars."""

    head: tuple[str, ...]
    tail: tuple[str, ...] | None  # after a star; None where the head is all of it


def escaped(name: str) -> str:
    """A name as a pattern of ``fnmatch`` that matches it and no other.

    Examples:
        >>> escaped("w[0]")
        'w[[]0]'
    """
    return _SPECIAL.sub(r"[\g<0>]", name)


def without_numbers(name: str) -> str:
    """A name as a pattern in which every number is a star."""
    return _NUMBER.sub("*", escaped(name))


class Folder:
    """Folds names among all those that a pattern might match."""

    def __init__(
        self, names: Sequence[str], *, anchored: bool = False, numbers: bool = False
    ) -> None:
        """Read the names, in the order of the model.

        ``anchored`` keeps their first segment, ``numbers`` the numbers in them.
        """
        self._names = names
        self._anchored = anchored
        self._template = escaped if numbers else without_numbers
        self._position = {name: at for at, name in enumerate(names)}
        self._sorted = sorted(names)
        self._named: dict[str, list[str]] = defaultdict(list)  # the names of a template
        for name in names:
            self._named[self._template(name)].append(name)
        self._shapes = {each: tuple(_shapes(each, anchored)) for each in self._named}
        self._makers = Counter(chain.from_iterable(self._shapes.values()))

    def fold(self, names: Collection[str]) -> list[str]:
        """Patterns of which each of these names matches one, and no other name any.

        The pattern that covers most of what is left comes next; of equal ones the one that says
        most. They are in the order of the model.
        """
        wanted = dict.fromkeys(names)
        templates = {
            template: None
            for template in dict.fromkeys(map(self._template, wanted))
            if wanted.keys() >= set(self._named[template])
        }
        makers: dict[_Shape, list[str]] = defaultdict(list)
        for template in templates:
            for shape in self._shapes[template]:
                makers[shape].append(template)
        whole = [shape for shape, each in makers.items() if len(each) == self._makers[shape]]
        whole.sort(key=lambda shape: (-len(makers[shape]), -len(_text(shape)), _text(shape)))
        first: dict[str, int] = {}
        for shape in whole:
            if any(template not in templates for template in makers[shape]):
                continue  # each name matches one pattern only
            members = [name for each in makers[shape] for name in self._named[each]]
            pattern = _text(_narrowed(shape, members))
            matches = set(self._matches(pattern))  # more than the members, if a star crosses dots
            if wanted.keys() >= matches:
                first[pattern] = min(map(self._position.__getitem__, matches))
                for name in matches:
                    del wanted[name]
                    templates.pop(self._template(name), None)
        for pattern in self._exact.fold(wanted) if wanted else ():
            first[pattern] = next(self._position[n] for n in self._matches(pattern) if n in wanted)
        return sorted(first, key=first.__getitem__)

    @cached_property
    def _exact(self) -> "Folder":
        """The same names with their numbers, for those that differ in them."""
        return Folder(self._names, anchored=self._anchored, numbers=True)

    def _matches(self, pattern: str) -> Iterator[str]:
        """The names that a pattern matches; only those that begin like it are tried."""
        start = _SPECIAL.split(pattern, maxsplit=1)[0]
        begin = bisect_left(self._sorted, start)
        end = bisect_right(self._sorted, start, key=lambda name: name[: len(start)])
        return filter(re.compile(translate(pattern)).match, self._sorted[begin:end])


def _shapes(template: str, anchored: bool) -> Iterator[_Shape]:
    """Every pattern that one may fold a name to: itself, or its ends with a star between."""
    segments = tuple(template.split("."))
    count = len(segments)
    yield _Shape(segments, None)
    for head in range(int(anchored), count):
        if head and segments[head - 1] == "*":
            continue  # two stars beside each other
        for tail in range(min(_TAIL + 1, count - head)):
            if not tail or segments[-tail] != "*":
                yield _Shape(segments[:head], segments[count - tail :])


def _narrowed(shape: _Shape, names: Sequence[str]) -> _Shape:
    """The shape with the numbers that all names have in common."""
    split = [escaped(name).split(".") for name in names]
    head = [_common(seg, {each[at] for each in split}) for at, seg in enumerate(shape.head)]
    if shape.tail is None:
        return _Shape(tuple(head), None)
    count = len(shape.tail)
    tail = [_common(seg, {each[at - count] for each in split}) for at, seg in enumerate(shape.tail)]
    return _Shape(tuple(head), tuple(tail))


def _common(segment: str, texts: set[str]) -> str:
    """The one text of a segment, or the segment with stars."""
    return next(iter(texts)) if len(texts) == 1 else segment


def _text(shape: _Shape) -> str:
    """The pattern."""
    between = () if shape.tail is None else ("*", *shape.tail)
    return ".".join([*shape.head, *between])
