"""The columns of a plan's table: what each tells of a line."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torch.optim import Optimizer

from nnlr._rows.layers import depth_text
from nnlr._rows.row import PlanRow
from nnlr._text import listed, nearest_hint, printable, shown
from nnlr.errors import ConfigError
from nnlr.report._algorithms import size_text, state_bytes, update_sizes
from nnlr.report._fold import Line
from nnlr.report._moves import mark, moving_steps, ways
from nnlr.report._text import amount, options_text, spread

# Most columns for the name of an algorithm.
_WIDEST: Final = 12

# Most values of a line that a cell tells.
_TOLD: Final = 2

# The columns that are shown where none are chosen, if they say anything.
_USUAL: Final = (
    *("layer", "algorithm", "tensors", "numel", "lr_mult", "lr", "wd_mult", "weight_decay"),
)

_RATES: Final = ("lr_mult", "lr", "wd_mult", "weight_decay", "eps_mult", "init_mult")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which columns are wanted: those picked instead of the usual ones, and those added."""

    picked: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def chosen(columns: object, optimizer: Optimizer | None) -> Choice:
    """Check the argument ``columns``: names, those with a plus in front beside the usual ones."""
    if columns is None:
        return Choice()
    listing = columns.split(",") if isinstance(columns, str) else columns
    if not isinstance(listing, list | tuple) or not all(isinstance(word, str) for word in listing):
        raise ConfigError(f"columns must be a list of names, got {shown(columns, typed=True)}.")
    words = [word.strip() for word in listing]
    names = {word: _name(word.removeprefix("+")) for word in words}
    if "bytes" in names.values() and optimizer is None:
        raise ConfigError("The column 'bytes' tells an optimizer's state: pass optimizer= too.")
    if all(word.startswith("+") for word in words):
        return Choice(added=tuple(names.values()))
    return Choice(picked=tuple(dict.fromkeys(names.values())))


def _name(word: str) -> str:
    """The name of a column; its title will do."""
    name = "weight_decay" if word == "decay" else word
    if name not in COLUMNS:
        hint = nearest_hint(word, COLUMNS) or f"There are {listed(COLUMNS, len(COLUMNS))}."
        raise ConfigError(f"columns names {shown(word)}, and there is no such column. {hint}")
    return name


class Cells:
    """The cells of columns of some lines."""

    def __init__(self, rows: Iterable[PlanRow], optimizer: Optimizer | None) -> None:
        texts = dict.fromkeys(options_text(r.options) for r in rows if r.options and r.trainable)
        self.footnotes = {text: number for number, text in enumerate(texts, start=1)}
        self.optimizer = optimizer
        self._bytes: Mapping[str, int | None] | None = None
        self._updates: Callable[[PlanRow], tuple[float, ...]] | None = None

    def columns(self, lines: Sequence[Line], choice: Choice) -> dict[str, list[str]]:
        """Title and cells of each column; the last is the notes, with an empty title."""
        names = choice.picked or tuple(dict.fromkeys((*_USUAL, *choice.added)))
        columns = {name: [COLUMNS[name](self, line) for line in lines] for name in names}
        columns["notes"] = [self._notes(line) for line in lines]
        asked = {*choice.picked, *choice.added}
        for name, dull in (("lr_mult", {1.0}), ("wd_mult", {0.0, 1.0})):
            if {
                getattr(r, name) for line in lines for r in line.rows
            } <= dull and name not in asked:
                columns.pop(name, None)  # the rates say it all
        titles = {"weight_decay": "decay", "notes": ""}
        return {
            titles.get(name, name): cells
            for name, cells in columns.items()
            if name in asked or any(cells)
        }

    def _notes(self, line: Line) -> str:
        """What the numbers do not say: state, roles under a star, options, ties."""
        row = line.rows[0]
        notes = [row.state if not row.trainable else ""]
        if line.kind is not None:
            notes.append(_roles(line))
        if row.options and row.trainable:
            notes.append(f"[{self.footnotes[options_text(row.options)]}]")
        if len(line.rows) == 1 and row.aliases:
            notes.append("tied")
        notes.append(mark(row))
        return ", ".join(filter(None, notes))

    def state(self, line: Line) -> str:
        """The bytes that the state of an optimizer takes, or will take."""
        if self._bytes is None:
            self._bytes = state_bytes(self.optimizer) if self.optimizer is not None else {}
        sizes = [self._bytes.get(row.name) for row in line.rows if row.trainable]
        if not sizes:
            return "-"
        return "?" if None in sizes else size_text(sum(size for size in sizes if size is not None))

    def update(self, line: Line) -> str:
        """How large a step is, where the class or the name of the algorithm tells."""
        if self._updates is None:
            self._updates = update_sizes(self.optimizer)
        sizes = [size for row in line.rows if row.trainable for size in self._updates(row)]
        return spread(sizes) if sizes else "?" if line.rows[0].trainable else "-"


def _rates(name: str) -> Callable[[Cells, Line], str]:
    """A rate or a multiplier; a dash where it does not act."""

    def cell(_: Cells, line: Line) -> str:
        row = line.rows[0]
        acts = row.trainable or (row.locked and name in {"lr_mult", "lr"})
        return spread(_values(line, name)) if acts else "-"

    return cell


def _values(line: Line, name: str) -> set[float]:
    """The values of a rate in a line."""
    return {getattr(row, name) for row in (line.rows if line.mixed else line.rows[:1])}


def _few(values: Iterable[str], more: str) -> str:
    """The values where there are few, or else a word."""
    told = list(dict.fromkeys(values))
    return ", ".join(map(printable, told)) if len(told) <= _TOLD else more


def _roles(line: Line) -> str:
    return _few((row.role for row in line.rows), "mixed")


def _units(row: PlanRow) -> list[str]:
    """The units that a row moves with."""
    return [moves.unit for _, moves in moving_steps(row)]


def _algorithm(_: Cells, line: Line) -> str:
    """The name of an algorithm; its line above the table has the whole of a long one."""
    row = line.rows[0]
    name = printable(row.algorithm or "")
    return name if len(name) <= _WIDEST else f"{name[: _WIDEST - 3]}..."


# Name of a column -> what it tells of a line.
COLUMNS: Final[Mapping[str, Callable[[Cells, Line], str]]] = {
    "layer": lambda _, line: depth_text(line.rows),
    "tower": lambda _, line: _few((r.tower or "" for r in line.rows if r.depth), "several"),
    "algorithm": _algorithm,
    "tensors": lambda _, line: f"{len(line.rows):,}" if len(line.rows) > 1 else "",
    "numel": lambda _, line: amount(line.numel),
    "shape": lambda _, line: _few(("x".join(map(str, r.shape)) for r in line.rows), "several"),
    "role": lambda _, line: _roles(line),
    "state": lambda _, line: line.rows[0].state,
    "group": lambda _, line: _few((r.group or "-" for r in line.rows), "several"),
    "options": lambda _, line: options_text(line.rows[0].options),
    "unit": lambda _, line: _few((name for r in line.rows for name in _units(r)), "several"),
    "moves": lambda _, line: _few((way for r in line.rows for way in ways(r)), "several"),
    **{name: _rates(name) for name in _RATES},
    "update": lambda cells, line: cells.update(line),
    "bytes": lambda cells, line: cells.state(line),
}
