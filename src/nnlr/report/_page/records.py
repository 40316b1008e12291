"""The rows of a plan as data for the page's script: what rows have in common stands once."""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, Final

from nnlr._declare.moves import Setting
from nnlr._rows.rates import Bases
from nnlr._rows.row import PlanRow
from nnlr._text import printable
from nnlr.report._explain import explain_lines
from nnlr.report._moves import moves_by
from nnlr.report._page.scale import scales_of
from nnlr.report._text import options_text, rate

# A factor as `explain` writes it: what it multiplies by, then who said so.
_FACTOR: Final = re.compile(r"x (\S+(?: = \S+ / \S+)?)\s+(.*)", re.DOTALL)


class _Shared(dict[Any, int]):
    """A table that gives each of its entries a number at its first use."""

    def __missing__(self, key: object) -> int:
        """The next number."""
        self[key] = len(self)
        return self[key]


def records(rows: Sequence[PlanRow], bases: Bases) -> dict[str, Any]:
    """Names, shapes, roles and rates of all rows.

    Names share the segments that they begin with: ``shared`` says how many of the name before,
    ``rest`` has the others. ``of`` has, row by row, the positions in ``kinds``, ``shapes`` and
    ``roles``. Rows of one kind have equal rates, layer, group and explanation.
    """
    kinds: list[dict[str, Any]] = []
    kind_of: dict[object, int] = {}
    lines, shapes, roles = _Shared(), _Shared(), _Shared()
    shared, rest, of = [], [], []
    aliases = {}
    before: list[str] = []
    for at, row in enumerate(rows):
        shape = row.shape if row.algorithm is not None else ()  # Muon's update goes by it
        key = (row.state, row.group, row.algorithm, shape, *map(id, row.trace))
        if key not in kind_of:
            kind_of[key] = len(kinds)
            kinds.append(_kind(row, bases, lines))
        of.append([kind_of[key], shapes[row.shape], roles[row.role, row.role_basis]])
        segments = printable(row.name).split(".")
        same = len(
            list(takewhile(lambda two: two[0] == two[1], zip(before, segments[:-1], strict=False)))
        )
        shared.append(same)
        rest.append(".".join(segments[same:]))
        before = segments[:-1]
        if row.aliases:
            aliases[at] = [printable(alias) for alias in row.aliases]
    return {
        "shared": shared,
        "rest": rest,
        "of": [list(column) for column in zip(*of, strict=True)] or [[], [], []],
        "kinds": kinds,
        "lines": list(lines),
        "shapes": list(shapes),
        "roles": list(roles),
        "aliases": aliases,
        "scales": scales_of(rows)._asdict(),
    }


def _kind(row: PlanRow, bases: Bases, lines: _Shared) -> dict[str, Any]:
    """What rows of one kind have in common."""
    record: dict[str, Any] = {
        "lr": row.lr,
        "wd": row.weight_decay,
        "texts": [rate(row.lr), rate(row.weight_decay), rate(row.lr_mult), rate(row.wd_mult)],
        "state": row.state,
        "why": [lines[line] for line in _why(row, bases)],
    }
    settings: dict[str, Setting] = {"lr": "lr", "wd": "weight_decay"}
    if moves := [key for key, setting in settings.items() if moves_by(row, setting)]:
        record["moves"] = moves
    if row.group is not None:
        record["group"] = printable(row.group)
    if row.algorithm is not None:
        record["algorithm"] = printable(row.algorithm)
    if row.options:
        record["options"] = options_text(row.options)
    if row.depth is not None:
        record |= {"layer": row.depth[0], "last": row.depth[1], "tower": printable(row.tower or "")}
    return record


def _why(row: PlanRow, bases: Bases) -> Iterator[tuple[str, str]]:
    """The explanation from the state on: a title and a text each.

    Factors have the title ``"x 0.75"``, other lines below a title have an empty one. What comes
    before, such as the shape, is not shared by rows of one kind.
    """
    every = explain_lines(row, bases)
    start = next(at for at, line in enumerate(every) if line.startswith("  state "))
    for line in every[start:]:
        title, text = line[2:16].strip(), line[16:]
        if line.startswith(" " * 6):
            factor = _FACTOR.fullmatch(line.strip())
            title, text = (f"x {factor[1]}", factor[2]) if factor else ("", line.strip())
        yield title, printable(text)
