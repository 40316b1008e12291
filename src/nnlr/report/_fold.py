"""Fold equal rows together, so that a model of thousands of tensors fits on a screen.

Rows fold only if their rates, states and settings are equal. The first fold joins siblings
that differ by numbers in their names (``blocks.{0..11}.norm1.weight``). Where that is not
enough, names are cut to fewer and fewer segments (``blocks.3.*``); numbers that all rows of
a line have in common stay (``vision.*.3.*``), as they tell which layer it is.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from nnlr._rows.row import PlanRow
from nnlr._text import printable

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True, slots=True)
class Line:
    """Rows of equal rates, under one label."""

    label: str  # a name, or a pattern that all their names fit
    rows: tuple[PlanRow, ...]
    cut: bool = False  # whether the label was cut, so that other lines may have it too

    @property
    def numel(self) -> int:
        """Elements of all rows together."""
        return sum(row.numel for row in self.rows)


def folds(rows: Sequence[PlanRow]) -> Iterator[list[Line]]:
    """The rows folded less, then more and more."""
    yield _fold(rows, None)
    deepest = max((row.name.count(".") for row in rows), default=0)
    for depth in range(deepest, 0, -1):
        yield _fold(rows, depth)


def _fold(rows: Sequence[PlanRow], depth: int | None) -> list[Line]:
    together: dict[object, list[PlanRow]] = {}
    for row in rows:
        stem = _NUMBER.sub("{}", _cut(row.name, depth))
        role = row.role if depth is None else None
        together.setdefault((stem, role, _settings(row)), []).append(row)
    return [line for members in together.values() for line in _lines(members, depth)]


def _cut(name: str, depth: int | None) -> str:
    segments = name.split(".")
    if depth is None or len(segments) <= depth:
        return name
    return ".".join([*segments[:depth], "*"])


def _settings(row: PlanRow) -> object:
    options = tuple(sorted((key, repr(value)) for key, value in row.options.items()))
    rates = (row.algorithm, row.lr, row.weight_decay, row.lr_mult, row.wd_mult)
    return (*rates, row.locked, row.frozen, options)


def _lines(rows: Sequence[PlanRow], depth: int | None) -> Iterator[Line]:
    """One line for rows whose names differ by numbers only; several if they leave gaps."""
    by_name: dict[str, list[PlanRow]] = {}
    for row in rows:
        by_name.setdefault(_cut(row.name, depth), []).append(row)
    names = list(by_name)
    columns = list(zip(*(map(int, _NUMBER.findall(name)) for name in names), strict=True))
    values = [sorted(set(column)) for column in columns]
    if prod(map(len, values)) == len(names):
        texts = iter(_braced(column) for column in values)
        yield _line(_NUMBER.sub(lambda _: next(texts), names[0]), rows, depth)
    else:  # not every combination is there, so braces would say too much
        for name, members in by_name.items():
            yield _line(name, members, depth)


def _line(label: str, rows: Sequence[PlanRow], depth: int | None) -> Line:
    label = printable(label)
    if depth is None or not label.endswith(".*"):
        return Line(label, tuple(rows))
    numbers = _common_numbers([row.name.split(".")[depth:-1] for row in rows])
    return Line(f"{label[:-2]}{numbers}.*", tuple(rows), cut=True)


def _common_numbers(paths: Sequence[Sequence[str]]) -> str:
    """The numbers with which all paths begin, and stars for the words between."""
    text = ""
    gap = False
    for segments in zip(*paths, strict=False):
        if len(set(segments)) > 1:
            break
        if segments[0].isdecimal():
            text += f"{'.*' * gap}.{segments[0]}"
        gap = not segments[0].isdecimal()
    return text


def _braced(values: Sequence[int]) -> str:
    """Numbers in braces, runs as ranges: ``{0..3,7}``."""
    if len(values) == 1:
        return str(values[0])
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    texts = (str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)
    return "{" + ",".join(texts) + "}"
