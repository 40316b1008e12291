"""The difference of two plans as text and as Markdown: a block for each cause, names folded."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nnlr._declare.factor import NEUTRAL, Step
from nnlr._rows.row import PlanRow
from nnlr._text import plural, printable
from nnlr.report._fit import fitted
from nnlr.report._fold import HIDDEN, Folding, Line
from nnlr.report._grid import grid
from nnlr.report._markdown import code, details, markdown_grid
from nnlr.report._moves import moved_by, way, ways
from nnlr.report._text import amount, rate, wrapped

if TYPE_CHECKING:
    from nnlr.report._diff import PlanDiff

# What is compared of two rows, beside their options.
COMPARED: Final = (
    *("algorithm", "shape", "state", "lr", "lr_mult", "weight_decay", "wd_mult"),
    *("eps_mult", "init_mult", "moves"),
)

# A multiplier says nothing that its rate does not.
_SAID_BY: Final = {"lr_mult": "lr", "wd_mult": "weight_decay"}

# Lines of the text, and of a table of Markdown that is not folded away.
_LIMIT: Final = 60
_SHOWN: Final = 16

_TITLES: Final = {"weight_decay": "decay"}

# Columns with words and numbers of ours only.
_OURS: Final = {*COMPARED, "decay", "tensors"} - {"algorithm", "moves"}

# A row of the old plan and of the new one.
_Pair = tuple[PlanRow | None, PlanRow | None]


def settings(row: PlanRow) -> dict[str, Any]:
    """What is compared of a row, by name."""
    values = {name: getattr(row, name) for name in COMPARED} | {"moves": moved_by(row)}
    return values | dict(row.options)


# A factor: who said it, and what, in words.
_Told = tuple[str, str]

# What is behind changes: a word -> the sources of factors -> the factors as text.
Causes = dict[str, dict[str, dict[str, None]]]


def steps(old: PlanRow, new: PlanRow) -> tuple[list[_Told], list[_Told]]:
    """The factors that are no longer behind a row, and those that are now."""
    before, after = (Counter(_told(step, repr) for step in row.trace) for row in (old, new))
    gone, come = before - after, after - before
    if not gone and not come:
        return [], []
    brief = {_told(step, repr): _told(step, rate) for step in (*old.trace, *new.trace)}
    short = [[brief[told] for told in each.elements()] for each in (gone, come)]
    # Where four digits do not tell them apart, all of them do.
    return (
        (list(gone.elements()), list(come.elements()))
        if short[0] == short[1]
        else (short[0], short[1])
    )


def _told(step: Step, number: Callable[[float], str]) -> _Told:
    """A factor and its source in one line."""
    factor = step.factor
    parts = [
        f"{name} {value if isinstance(value, str) else number(value)}"
        for name in (
            *("lr_mult", "wd_mult", "lr", "weight_decay"),
            *("eps_mult", "init_mult", "algorithm"),
        )
        if (value := getattr(factor, name)) != getattr(NEUTRAL, name)
    ]
    parts += [f"{key}={value!r}" for key, value in sorted(factor.options.items())]
    if factor.moves is not None:
        parts.append(f"moves the {way(factor.moves)}")
    why = f" ({factor.why})" if factor.why else ""
    return step.source, f"{step.source}: {', '.join(parts) or 'no change'}{why}"


@dataclass(slots=True)
class _Block:
    """Rows that changed for one cause."""

    word: str
    pairs: list[_Pair] = field(default_factory=list)
    causes: Causes = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What happened to how many parameters."""
        size = amount(sum(_newest(pair).numel for pair in self.pairs))
        return f"{self.word} {plural(len(self.pairs), 'parameter')} ({size})"

    @property
    def columns(self) -> list[str]:
        """What differs of any of its rows; of rows that are new or gone their rates."""
        names: dict[str, None] = {}
        for old, new in self.pairs:
            if old is None or new is None:
                states = ["state"] * any(not _newest(pair).trainable for pair in self.pairs)
                return [*states, "lr", "weight_decay"]
            names |= dict.fromkeys(_differing(old, new))
        return [name for name in names if _SAID_BY.get(name) not in names]


def _newest(pair: _Pair) -> PlanRow:
    """The row of the new plan, or of the old one where that is gone."""
    row = pair[1] or pair[0]
    assert row is not None  # noqa: S101 - a pair has a row
    return row


def _differing(old: PlanRow, new: PlanRow) -> list[str]:
    """The names of the settings that two rows do not share."""
    before, after = settings(old), settings(new)
    names = (*COMPARED, *sorted({*old.options, *new.options}))
    return [name for name in names if before.get(name) != after.get(name)]


def causes_of(old: PlanRow, new: PlanRow) -> Causes:
    """What is behind a change; nothing where the model says it, by its shapes or requires_grad."""
    causes: Causes = {}
    for word, members in zip(("no longer", "now"), steps(old, new), strict=True):
        for source, text in members:
            if not text.startswith(f"{source}: no change"):
                causes.setdefault(word, {}).setdefault(source, {})[text] = None
    by_mult = old.lr_mult != new.lr_mult or old.lr == new.lr
    rates = ("lr", "lr_mult", "weight_decay", "wd_mult")
    differ = any(getattr(old, name) != getattr(new, name) for name in rates)
    if differ and not (causes and by_mult):
        routed = new.algorithm is not None and new.algorithm != old.algorithm
        bases = f"the base rates of {new.algorithm}" if routed else "other base rates"
        causes["with"] = {bases: {bases: None}}
    return causes


def sources_of(causes: Causes) -> Hashable:
    """The sources behind a change: equal ones are one cause, whatever their numbers are."""
    return tuple((word, *sources) for word, sources in causes.items())


def join_causes(causes: Causes, others: Causes) -> None:
    """Take in the causes of another row."""
    for word, sources in others.items():
        for source, texts in sources.items():
            causes.setdefault(word, {}).setdefault(source, {}).update(texts)


def reasons(causes: Causes) -> list[tuple[str, str]]:
    """A word, and a factor or, where its numbers differ, its source."""
    return [
        (word, next(iter(texts)) if len(texts) == 1 else source)
        for word, sources in causes.items()
        for source, texts in sources.items()
    ]


def _blocks(diff: "PlanDiff") -> list[_Block]:
    """The blocks: what is removed, what is added, and what changed, by its cause."""
    blocks: dict[object, _Block] = {}
    for word, rows in (("removed", diff.removed), ("added", diff.added)):
        for row in rows:
            pair = (row, None) if word == "removed" else (None, row)
            blocks.setdefault(word, _Block(word)).pairs.append(pair)
    for old, new in diff.changed:
        word = "changed" if old.algorithm == new.algorithm else "rerouted"
        causes = causes_of(old, new)
        block = blocks.setdefault((word, sources_of(causes)), _Block(word))
        block.pairs.append((old, new))
        join_causes(block.causes, causes)
    return list(blocks.values())


class _Folded:
    """The blocks with their names folded."""

    def __init__(self, diff: "PlanDiff") -> None:
        self.blocks = _blocks(diff)
        self.pairs = {_newest(p).name: (p, at) for at, b in enumerate(self.blocks) for p in b.pairs}
        self._columns = [block.columns for block in self.blocks]
        rows = [*(_newest(pair) for pair, _ in self.pairs.values()), *diff.same]
        keys: list[Hashable] = []
        loose: list[Hashable] = []
        for row in rows:
            if row.name in self.pairs:
                pair, at = self.pairs[row.name]
                names = self._columns[at]
                cells = [_cell([pair], name) for name in names]
                keys.append((at, *cells))
                loose.append((at, *map(bool, cells)))
            else:
                keys.append(HIDDEN)
                loose.append(HIDDEN)
        self.folding = Folding(rows, keys, loose)

    def tables(self, lines: Iterable[Line]) -> list[tuple[list[str], dict[str, list[str]]]]:
        """For each block the labels of its lines, and its columns."""
        of_block: list[list[Line]] = [[] for _ in self.blocks]
        for line in lines:
            of_block[self.pairs[line.rows[0].name][1]].append(line)
        tables = []
        for members, names in zip(of_block, self._columns, strict=True):
            columns = {
                "tensors": [f"{len(ln.rows):,}" if len(ln.rows) > 1 else "" for ln in members]
            }
            for name in names:
                columns[_TITLES.get(name, name)] = [
                    _cell([self.pairs[row.name][0] for row in line.rows], name) for line in members
                ]
            told = {title: cells for title, cells in columns.items() if any(cells)}
            tables.append(([line.label for line in members], told))
        return tables


def _cell(pairs: Sequence[_Pair], name: str) -> str:
    """A setting of some rows, before and after; nothing where it is the same."""
    olds = [_setting(old, name) for old, _ in pairs if old is not None]
    news = [_setting(new, name) for _, new in pairs if new is not None]
    if not olds or not news:
        return _spread(olds or news)
    if olds == news:
        return ""
    before, after = _spread(olds), _spread(news)
    if before == after:  # four digits do not tell them apart
        before, after = (", ".join(dict.fromkeys(map(repr, values))) for values in (olds, news))
    return f"{before} -> {after}"


def _setting(row: PlanRow, name: str) -> Any:  # noqa: ANN401 - a setting
    """One of the settings of a row; nothing where it has no such option."""
    if name == "moves":
        return ", ".join(ways(row)) or "no"
    return getattr(row, name) if name in COMPARED else row.options.get(name)


def _spread(values: Sequence[Any]) -> str:
    """One value, or the least and the largest of numbers."""
    distinct = list(dict.fromkeys(map(_hashable, values)))
    if len(distinct) > 1 and all(isinstance(value, float) for value in distinct):
        return f"{min(distinct):.2g}..{max(distinct):.2g}"
    texts = [rate(value) if isinstance(value, float) else str(value) for value in distinct]
    return printable(texts[0]) if len(texts) == 1 else "several"


def _hashable(value: Any) -> Any:  # noqa: ANN401 - a setting
    return "x".join(map(str, value)) if isinstance(value, list) else value


def diff_text(diff: "PlanDiff") -> str:
    """Blocks of changes of one cause each, on a screen."""
    folded = _Folded(diff)

    def drawn(lines: Iterable[Line]) -> list[str]:
        text: list[str] = []
        for block, (labels, columns) in zip(folded.blocks, folded.tables(lines), strict=True):
            text += [""] * bool(text) + [block.title]
            for word, reason in reasons(block.causes):
                text += wrapped(f"{word} {reason}", "  ")
            text += grid("parameter", labels, columns)
        return text

    lines, fits = fitted(folded.folding, _LIMIT, lambda lines: len(drawn(lines)))
    text = drawn(lines)
    if not fits:
        more = plural(len(text) - _LIMIT + 1, "more line")
        text = [*text[: _LIMIT - 1], f"... and {more}: see PlanDiff.to_dict()"]
    return "\n".join(text)


def diff_markdown(diff: "PlanDiff") -> str:
    """A summary, and a table for each cause."""
    total = len(diff.changed) + len(diff.same)
    parts = [f"{len(diff.changed):,} of {plural(total, 'parameter')} changed"]
    parts += [
        f"{len(rows):,} {word}"
        for word, rows in (("added", diff.added), ("removed", diff.removed))
        if rows
    ]
    text = [f"**{', '.join(parts)}**"]
    folded = _Folded(diff)
    lines, _ = fitted(folded.folding, _LIMIT, len)
    for block, (labels, columns) in zip(folded.blocks, folded.tables(lines), strict=True):
        cells = {"parameter": list(map(code, labels))}
        for title, texts in columns.items():
            # Values that are not ours stand in code spans.
            shown = list(map(code, texts)) if title not in _OURS else texts
            cells[title] = [text.replace(" -> ", " → ") for text in shown]
        table = markdown_grid(cells, left=("parameter",))
        behind = [f"- {word} {code(reason)}" for word, reason in reasons(block.causes)]
        text += ["", f"**{block.title}**", "", *behind, *[""] * bool(behind)]
        if len(labels) > _SHOWN:
            names = [name for name in block.columns if name in _OURS]
            told = [f"{_TITLES.get(name, name)} {_cell(block.pairs, name)}" for name in names]
            summary = f"{', '.join(told)} in {plural(len(labels), 'line')}"
            table = details(summary.replace(" -> ", " → "), table)
        text += table
    return "\n".join([*text, ""])
