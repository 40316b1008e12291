"""What pictures draw of a plan: where its rows stand, and which of them share a line."""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural

# Modules with names: more cannot be read.
_MODULES: Final = 40

# Lines with colours of their own.
SERIES: Final = 7

# Kinds of parameters that a label lists.
_LISTED: Final = 3

OUTSIDE: Final = "outside"
LAYER: Final = "layer, from the input on"
MODULE: Final = "module, in the order of the model"

Value = Callable[[PlanRow], Hashable]


class Place(NamedTuple):
    """A layer of a tower, or a module."""

    part: str
    at: int


@dataclass(frozen=True)
class Part:
    """Places that stand in one panel: the layers of a tower, or modules by name.

    Attributes:
        key: What its places name; ``""`` of the only one.
        size: The number of its places.
        names: Of modules; empty of layers, and of modules that are too many to be named.
    """

    key: str
    size: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Where the rows of a plan stand.

    Attributes:
        parts: The panels.
        place_of: The place of each row, by name.
        numel: The number of elements of each part.
        unit: What a place is: a layer or a module.
    """

    parts: tuple[Part, ...]
    place_of: Mapping[str, Place]
    numel: Mapping[str, int]
    unit: str

    @property
    def is_named(self) -> bool:
        """Whether every place has a name; else they are numbered."""
        return self.unit == MODULE and bool(self.parts[0].names)

    def largest(self, most: int) -> tuple[Part, ...]:
        """At most so many parts, the largest ones, in their order."""
        ranked = sorted(self.parts, key=lambda part: -self.numel[part.key])
        return tuple(part for part in self.parts if part in ranked[:most])


def layout_of(rows: Sequence[PlanRow], value: Value) -> Layout:
    """The layers of each tower, or modules where no scheme asked for depth.

    Modules are taken at the highest level at which each has one value for a kind of parameter.
    """
    if not any(row.depth for row in rows):
        return _by_module(rows, value)
    sizes: dict[str, int] = {}
    numel: dict[str, int] = {}
    place_of: dict[str, Place] = {}
    for row in rows:
        key = OUTSIDE if row.depth is None else row.tower or ""
        at, last = row.depth or (0, 0)
        sizes[key] = max(sizes.get(key, 1), last + 1)
        numel[key] = numel.get(key, 0) + row.numel
        place_of[row.name] = Place(key, at)
    order = sorted(sizes, key=lambda key: key == OUTSIDE)
    parts = [Part(key, sizes[key], (OUTSIDE,) if key == OUTSIDE else ()) for key in order]
    return Layout(tuple(parts), place_of, numel, LAYER)


def _by_module(rows: Sequence[PlanRow], value: Value) -> Layout:
    """Modules, at the level that tells enough."""
    names = [row.name for row in rows]
    deepest = max((name.count(".") for name in names), default=0)
    levels = [[_module(name, level) for name in names] for level in range(1, deepest + 1)]
    levels = levels or [[""] * len(names)]
    chosen = next((level for level in levels if _is_uniform(rows, level, value)), levels[-1])
    modules = list(dict.fromkeys(chosen))
    at = {module: position for position, module in enumerate(modules)}
    place_of = {name: Place("", at[module]) for name, module in zip(names, chosen, strict=True)}
    labels = tuple(module or "the model" for module in modules)
    part = Part("", len(modules), labels if len(modules) <= _MODULES else ())
    return Layout((part,), place_of, {"": _numel(rows)}, MODULE)


def _module(name: str, level: int) -> str:
    """The module that a parameter is in, at a level; a parameter of a higher one in its own."""
    parts = name.split(".")[:-1]
    return ".".join(parts[:level])


def _is_uniform(rows: Sequence[PlanRow], modules: Sequence[str], value: Value) -> bool:
    """Whether each module has one value for each role, and there are two modules."""
    values: dict[object, object] = {}
    for row, module in zip(rows, modules, strict=True):
        if values.setdefault((module, row.role, row.algorithm), value(row)) != value(row):
            return False
    return len(set(modules)) > 1


@dataclass
class Series:
    """Parameters that one line stands for: at each place they have the same value.

    Attributes:
        label: What they are; ``""`` where there is no other series.
        algorithm: What trains them.
        values: The value at each place; several of a kind that cannot be told apart further.
        numel: The number of their elements.
    """

    label: str
    algorithm: str | None
    values: dict[Place, tuple[Hashable, ...]]
    numel: int

    def accepts(self, values: Mapping[Place, tuple[Hashable, ...]]) -> bool:
        """Whether other values are these, at the places that both have."""
        return all(len(v) == 1 and self.values.get(p, v) == v for p, v in values.items())


def series_of(rows: Iterable[PlanRow], layout: Layout, value: Value) -> list[Series]:
    """The lines of a plan, those of most elements first.

    Roles with the same values share a line; a role that differs within a place is divided by
    the names of its parameters.
    """
    kinds: dict[tuple[str | None, str], list[PlanRow]] = {}
    for row in rows:
        kinds.setdefault((row.algorithm, row.role), []).append(row)
    units: list[tuple[str | None, str, dict[Place, tuple[Hashable, ...]], int]] = []
    for (algorithm, role), members in kinds.items():
        for kind, alike in _divided(role, members, layout, value):
            units.append((algorithm, kind, _values(alike, layout, value), _numel(alike)))
    units.sort(key=lambda unit: -unit[3])
    merged: list[tuple[Series, list[str]]] = []
    for algorithm, kind, values, numel in units:
        for series, names in merged:
            if series.algorithm == algorithm and series.accepts(values):
                series.values = {**series.values, **values}
                series.numel += numel
                names.append(kind)
                break
        else:
            merged.append((Series("", algorithm, values, numel), [kind]))
    for position, (series, names) in enumerate(merged):
        series.label = _label(series, names, first=position == 0, alone=len(merged) == 1)
    return _capped([series for series, _ in merged])


def _divided(
    role: str, members: Sequence[PlanRow], layout: Layout, value: Value
) -> Iterable[tuple[str, list[PlanRow]]]:
    """The rows of a role, or of each name in it where they differ within a place."""
    if all(len(values) == 1 for values in _values(members, layout, value).values()):
        return [(role, list(members))]
    by_name: dict[str, list[PlanRow]] = {}
    for row in members:
        by_name.setdefault(_kind(row.name), []).append(row)
    return by_name.items()


def _kind(name: str) -> str:
    """The end of a name, without numbers.

    Examples:
        >>> _kind("blocks.3.attn.q_proj.weight"), _kind("blocks.3.0.weight")
        ('q_proj.weight', 'blocks.weight')
    """
    return ".".join([part for part in name.split(".") if not re.fullmatch(r"\d+", part)][-2:])


def _values(
    rows: Iterable[PlanRow], layout: Layout, value: Value
) -> dict[Place, tuple[Hashable, ...]]:
    """The different values at each place."""
    values: dict[Place, dict[Hashable, None]] = {}
    for row in rows:
        values.setdefault(layout.place_of[row.name], {})[value(row)] = None
    return {place: tuple(distinct) for place, distinct in values.items()}


def _numel(rows: Iterable[PlanRow]) -> int:
    return sum(row.numel for row in rows)


def _label(series: Series, kinds: Sequence[str], *, first: bool, alone: bool) -> str:
    """What a line stands for, in few words."""
    if alone:
        return series.algorithm or ""
    many = first and len(kinds) > _LISTED
    words = "all others" if many else listed(kinds, _LISTED + (len(kinds) == _LISTED + 1))
    return f"{series.algorithm}: {words}" if series.algorithm else words


def _capped(series: list[Series]) -> list[Series]:
    """At most as many series as there are colours; the smallest become one."""
    if len(series) <= SERIES:
        return series
    rest = series[SERIES - 1 :]
    values: dict[Place, dict[Hashable, None]] = {}
    for each in rest:
        for place, distinct in each.values.items():
            values.setdefault(place, {}).update(dict.fromkeys(distinct))
    together = Series(
        plural(len(rest), "other kind"),
        None,
        {place: tuple(distinct) for place, distinct in values.items()},
        sum(each.numel for each in rest),
    )
    return [*series[: SERIES - 1], together]
