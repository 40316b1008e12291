"""What is told of multipliers that move: which scheme moves what, and how far it is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch.optim import Optimizer

from nnlr._declare.factor import Step
from nnlr._declare.moves import Moves, Setting
from nnlr._rows.row import PlanRow
from nnlr._rows.units import AtWork, Unit, at_work
from nnlr._schedule.base_rate import as_float
from nnlr._schedule.origin import MULTIPLIERS
from nnlr._text import plural
from nnlr.report._fold import Folding, Line
from nnlr.report._grid import grid
from nnlr.report._text import amount, rate, spread, wrapped

# What has a plan's moves act, in the feet of tables.
ATTACH: Final = "nnlr.attach(optimizer, plan, total_steps=...) moves them; no step is taken before."

_TITLES: Final[dict[Setting, str]] = {"lr": "rate", "weight_decay": "decay"}

# Lines of what moves in the foot of a table.
_SHOWN: Final = 6

# Lines of what is attached, and the fewest of one scheme.
_LIMIT: Final = 60
_LEAST: Final = 8


def moving_steps(row: PlanRow) -> list[tuple[Step, Moves]]:
    """The steps of a row that move it while training; none of one that is not trained."""
    steps = row.trace if row.trainable else ()
    return [(step, step.factor.moves) for step in steps if step.factor.moves is not None]


def moves_by(row: PlanRow, setting: Setting) -> bool:
    """Whether a rate of a row moves, its learning rate or its weight decay."""
    return any(moves.setting == setting for _, moves in moving_steps(row))


def way(moves: Moves) -> str:
    """How something moves, in a phrase.

    Examples:
        >>> way(Moves("lr", "layer3", "by half_cosine"))
        'rate by half_cosine'
    """
    return f"{_TITLES[moves.setting]} {moves.how}"


def ways(row: PlanRow) -> tuple[str, ...]:
    """How a row moves, a phrase for each scheme."""
    return tuple(way(moves) for _, moves in moving_steps(row))


def moved_by(row: PlanRow) -> tuple[str, ...]:
    """How a row moves and with which others, a phrase for each scheme."""
    return tuple(f"{way(moves)}, as unit {moves.unit}" for _, moves in moving_steps(row))


def mark(row: PlanRow) -> str:
    """What a table notes of a row that moves; nothing of others."""
    if moves_by(row, "lr"):
        return "moves"
    return "decay moves" if moves_by(row, "weight_decay") else ""


@dataclass
class _Told:
    """What one move moves."""

    setting: Setting
    sources: dict[str, None] = field(default_factory=dict)
    how_of: dict[str, str] = field(default_factory=dict)  # each unit
    rows: list[PlanRow] = field(default_factory=list)


def moving_lines(rows: Iterable[PlanRow]) -> list[str]:
    """A line for each move, for the foot of a table; few where they are many."""
    moved: dict[object, _Told] = {}
    for row in rows:
        for step, moves in moving_steps(row):
            told = moved.setdefault((_owner(step), moves.setting), _Told(moves.setting))
            told.sources[step.source] = None
            told.how_of[moves.unit] = moves.how
            told.rows.append(row)
    lines = [
        f"{ends(told.sources)} moves the {_TITLES[told.setting]} of "
        f"{plural(len(told.rows), 'parameter')} ({amount(sum(row.numel for row in told.rows))}) in "
        f"{plural(len(told.how_of), 'unit')}: {hows(told.how_of)}"
        for told in moved.values()
    ]
    if len(lines) > _SHOWN:
        rest = plural(len(lines) - _SHOWN, "more line")
        lines = [*lines[:_SHOWN], f"... and {rest} of what moves: see table(columns='+moves')"]
    return lines


def _owner(step: Step) -> object:
    """What moves together: the move, or of a plan from JSON the scheme."""
    return step.source if step.factor.move is None else id(step.factor.move)


def ends(texts: Iterable[str]) -> str:
    """A text, or the first and the last of several.

    Examples:
        >>> ends(["phase 2", "phase 1", "phase 0"])
        'phase 2 ... phase 0'
    """
    first, *rest = texts
    return " ... ".join((first, *rest[-1:]))


def hows(how_of: Mapping[str, str]) -> str:
    """How units move: where that differs how the first and the last do.

    Examples:
        >>> hows({"layer0": "halved", "layer1": "halved"}), hows({"a": "by f", "b": "by g"})
        ('halved', 'by f (a) ... by g (b)')
    """
    if len({*how_of.values()}) < 2:
        return "".join(dict.fromkeys(how_of.values()))
    (first, *_, last) = how_of
    return f"{how_of[first]} ({first}) ... {how_of[last]} ({last})"


def now_of(row: PlanRow, optimizer: Optimizer | None) -> "Now | None":
    """How far what moves a row has come in an optimizer, if it is attached."""
    attached = None if optimizer is None else at_work(optimizer)
    if attached is None or optimizer is None:
        return None
    units = [unit for unit in attached.units if row.name in unit.names]
    if not units:
        return None
    (tensor,) = (param.tensor for param in units[0].params if param.row.name == row.name)
    groups = (g for g in optimizer.param_groups if any(tensor is t for t in g["params"]))
    group = next(groups, None)
    return None if group is None else Now(attached, units, group)


@dataclass(frozen=True)
class Now:
    """The units of a row as they are now."""

    attached: AtWork
    units: list[Unit]
    group: Mapping[str, Any]  # that the row is in

    def mult(self, step: Step) -> str:
        """The multiplier that a step of the row's trace has come to."""
        return next(
            (f"{rate(unit.mult)} now" for unit in self.units if unit.source == step.source), "moves"
        )

    def rate(self, setting: Setting) -> str:
        """The rate of the moment, as base times multiplier."""
        if all(unit.setting != setting for unit in self.units):
            return ""
        value, mult = as_float(self.group[setting]), as_float(self.group[MULTIPLIERS[setting]])
        base = f"{rate(value / mult)} x {rate(mult)}" if mult else f"base x {rate(mult)}"
        return f"{rate(value)} = {base}, at {self.attached.progress!r}"


def _groups_of(unit: Unit, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups of an optimizer that hold tensors of a unit."""
    tensors = {id(tensor) for tensor in unit.tensors}
    return [group for group in groups if not tensors.isdisjoint(map(id, group["params"]))]


def attached_text(attached: AtWork, optimizer: Optimizer, heads: dict[str, str]) -> str:
    """The units that move with their multipliers and rates now, a table for each scheme.

    Args:
        attached: What is at work.
        optimizer: The optimizer that it moves.
        heads: What else to tell of a scheme, by its name.
    """
    moved: dict[object, list[Unit]] = {}
    for unit in attached.units:
        moved.setdefault((*map(_owner, _steps_of(unit)), unit.setting), []).append(unit)
    progress = attached.progress
    epochs = f", {plural(progress.epoch, 'epoch')} ended" if progress.epoch else ""
    lines = [f"{type(optimizer).__name__} at {progress!r}{epochs}"]
    room = max((_LIMIT - 1) // max(len(moved), 1) - 4, _LEAST)
    for units in moved.values():
        setting = units[0].setting
        how_of = {u.name: s.factor.moves.how for u in units for s in _steps_of(u) if s.factor.moves}
        sources = dict.fromkeys(unit.source for unit in units)
        more = "".join(heads.get(source, "") for source in sources)
        lines += wrapped(f"{ends(sources)}: {_TITLES[setting]} {hows(how_of)}{more}")
        lines += _table(units, optimizer.param_groups, setting, room)
    return "\n".join(lines)


def _steps_of(unit: Unit) -> list[Step]:
    """The step of the plan that moves a unit."""
    steps = moving_steps(unit.params[0].row)
    return [step for step, _ in steps if step.source == unit.source][:1]


def _statistics(members: Sequence[Sequence[Unit]]) -> dict[str, list[str]]:
    """The column of what measured multipliers come from, where there are such."""
    values = [[u.memory["value"] for u in each if "value" in u.memory] for each in members]
    return {"statistic": [spread(each) if each else "" for each in values]} if any(values) else {}


def _table(
    units: Sequence[Unit], groups: Sequence[dict[str, Any]], setting: Setting, room: int
) -> list[str]:
    """The table of some units, folded where they are many."""
    rates = {unit.name: [as_float(g[setting]) for g in _groups_of(unit, groups)] for unit in units}
    unit_of = {unit.name: unit for unit in units}
    rows = [
        unit.params[0].row._replace(
            name=unit.name, numel=sum(param.row.numel for param in unit.params)
        )
        for unit in units
    ]

    def drawn(lines: Sequence[Line], gap: int | None = None) -> list[str]:
        members = [[unit_of[row.name] for row in line.rows] for line in lines]
        columns = {
            "tensors": [f"{sum(len(unit.params) for unit in each):,}" for each in members],
            "numel": [amount(line.numel) for line in lines],
            **_statistics(members),
            "multiplier": [spread(unit.mult for unit in each) for each in members],
            setting.replace("weight_", ""): [
                spread(value for unit in each for value in rates[unit.name]) for each in members
            ],
        }
        return grid("unit", [line.label or "all" for line in lines], columns, gap)

    keys = [(unit.mult, *sorted({*rates[unit.name]})) for unit in units]
    folding = Folding(rows, keys, [not unit.mult for unit in units])
    lines = folding.at(1)
    if len(text := drawn(lines)) <= room:
        return text
    first = room // 2
    rest = plural(len(lines) - 2 * first, "more unit")
    return [*drawn([*lines[:first], *lines[-first:]], first), f"... and {rest}: see attached.units"]
