"""The difference of two plans."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from nnlr._declare.factor import NEUTRAL, Step
from nnlr._rows.row import PlanRow
from nnlr._rows.to_dict import plain
from nnlr._text import listed, plural
from nnlr.report._markdown import block, code, details, markdown_grid
from nnlr.report._plot_style import WIDTH as PICTURE_WIDTH
from nnlr.report._plot_style import as_width
from nnlr.report._text import WIDTH, rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What is compared of two rows, beside their options.
# Told first, as rates of other algorithms do not compare.
_REROUTED = "  algorithm"

_COMPARED = (
    *("algorithm", "shape", "state", "lr", "lr_mult", "weight_decay", "wd_mult"),
    *("eps_mult", "init_mult"),
)


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """The difference of two plans; ``print`` it, or read its parts.

    Attributes:
        added: Rows that only the new plan has.
        removed: Rows that only the old plan has.
        changed: Pairs of old and new rows whose rates, settings or state differ.
        unchanged: How many rows are the same in both.
    """

    added: tuple[PlanRow, ...]
    removed: tuple[PlanRow, ...]
    changed: tuple[tuple[PlanRow, PlanRow], ...]
    unchanged: int = 0

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        """Changes of one kind together, each with the factors behind it."""
        if not self:
            return "no difference"
        lines: list[str] = []
        for title, rows in (("added", self.added), ("removed", self.removed)):
            if rows:
                lines.append(_heading(title, [row.name for row in rows]))
        alike: dict[str, list[str]] = {}
        for old, new in self.changed:
            alike.setdefault(_change(old, new), []).append(new.name)
        for change, names in alike.items():
            title = "rerouted" if change.startswith(_REROUTED) else "changed"
            lines += [_heading(title, names), change]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What a notebook shows: the same text."""
        return f"<pre>{escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """The difference as plain dicts, lists, strings and numbers, as JSON has them.

        Returns:
            ``added`` and ``removed``: the settings of each row with its name, shape and number of
            elements. ``changed``: for each parameter its name, ``changes`` (a setting ->
            ``[old, new]``), and in words the factors that are ``no_longer`` and those that are
            ``now`` behind it. ``unchanged``: how many are the same.

        Examples:
            >>> import nnlr
            >>> from torch import nn
            >>> net = nn.Linear(1, 1, bias=False)
            >>> old = nnlr.resolve(net, lr=0.1, weight_decay=0)
            >>> new = nnlr.resolve(net, nnlr.rule("*", lr_mult=0.5), lr=0.1, weight_decay=0)
            >>> old.diff(new).to_dict()["changed"][0]["changes"]
            {'lr': [0.1, 0.05], 'lr_mult': [1.0, 0.5]}
        """
        return {
            "added": [_facts(row) for row in self.added],
            "removed": [_facts(row) for row in self.removed],
            "changed": [_change_facts(old, new) for old, new in self.changed],
            "unchanged": self.unchanged,
        }

    def to_markdown(self) -> str:
        """The difference as Markdown for a pull request: what changed, and the factors behind.

        Examples:
            >>> import nnlr
            >>> from torch import nn
            >>> net = nn.Linear(1, 1, bias=False)
            >>> old = nnlr.resolve(net, lr=0.1, weight_decay=0)
            >>> new = nnlr.resolve(net, nnlr.rule("*", lr_mult=0.5), lr=0.1, weight_decay=0)
            >>> print(old.diff(new).to_markdown().splitlines()[0])
            **1 of 1 parameter changed**
        """
        total = len(self.changed) + self.unchanged + len(self.added)
        parts = [f"{len(self.changed):,} of {plural(total, 'parameter')} changed"]
        parts += [f"{len(rows):,} {word}" for word, rows in self._moved() if rows]
        lines = [f"**{', '.join(parts)}**"]
        kinds: dict[str, list[str]] = {}
        for old, new in self.changed:
            kinds.setdefault(_change(old, new), []).append(new.name)
        if kinds:
            cells = {
                "parameters": [", ".join(map(code, names[:3])) for names in kinds.values()],
                "tensors": [f"{len(names):,}" for names in kinds.values()],
                "change": ["<br>".join(map(code, kind.splitlines())) for kind in kinds],
            }
            lines += ["", *markdown_grid(cells, left=("parameters", "change"))]
        for word, rows in self._moved():
            if rows:
                names = block([row.name for row in rows])
                lines += ["", *details(plural(len(rows), f"{word} parameter"), names)]
        return "\n".join([*lines, ""])

    def to_html(self) -> str:
        """The difference as a page: one HTML file of ASCII text that loads nothing from elsewhere.

        Changes of one kind stand together, each with old and new rates and the declarations
        behind, and can be searched. It needs jinja2: ``pip install "nnlr[page]"``.

        Raises:
            NnlrError: If jinja2 is not installed.

        Examples:
            >>> import nnlr, torch
            >>> old = nnlr.resolve(torch.nn.Linear(2, 1), lr=0.1, weight_decay=0)
            >>> "learning rate" in old.diff(old.with_rates(lr=0.2)).to_html()
            True
        """
        from nnlr.report._page.diff_page import diff_page

        return diff_page(self)

    def plot(self, *, width: float = PICTURE_WIDTH) -> "Figure":
        """Draw the old and the new rate of every layer, and the decay, where these differ.

        The layers are those of the plans, or modules where no scheme asked for depth; what is the
        same in both is not drawn.

        Args:
            width: Width in inches, from 2.5 to 30.

        Returns:
            A figure of matplotlib, made without pyplot.

        Raises:
            NnlrError: If matplotlib is not installed, or the width is none.

        Examples:
            >>> import nnlr
            >>> from torch import nn
            >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
            >>> old = nnlr.resolve(net, lr=0.1, weight_decay=0)
            >>> new = nnlr.resolve(net, nnlr.layer_decay(0.5), lr=0.1, weight_decay=0)
            >>> old.diff(new).plot().get_suptitle()
            '2 parameters changed'
        """
        from nnlr.report._plot_diff import draw_diff

        return draw_diff(self, as_width(width))

    def _moved(self) -> tuple[tuple[str, Sequence[PlanRow]], ...]:
        """The rows that one of the plans lacks."""
        return ("added", self.added), ("removed", self.removed)


def _facts(row: PlanRow) -> dict[str, Any]:
    """A row as plain values."""
    names = ("name", "shape", "numel", *(name for name in _COMPARED if name != "shape"))
    facts: dict[str, Any] = plain({name: getattr(row, name) for name in names})
    return {**facts, "options": plain(row.options)}


def _change_facts(old: PlanRow, new: PlanRow) -> dict[str, Any]:
    """What changed between two rows, and the factors behind it, as plain values."""
    before, after = _settings(old), _settings(new)
    changes = {
        name: [before.get(name), after.get(name)]
        for name in (*_COMPARED, *sorted({*old.options, *new.options}))
        if before.get(name) != after.get(name)
    }
    no_longer, now = _steps(old, new)
    return {"name": new.name, "changes": plain(changes), "no_longer": no_longer, "now": now}


def _steps(old: PlanRow, new: PlanRow) -> tuple[list[str], list[str]]:
    """The factors that are no longer behind a row, and those that are now."""
    before, after = Counter(map(_text, old.trace)), Counter(map(_text, new.trace))
    return list((before - after).elements()), list((after - before).elements())


def _heading(title: str, names: Sequence[str]) -> str:
    """A line that names the parameters."""
    text = f"{title} {plural(len(names), 'parameter')}: {listed(names)}"
    return "\n".join(wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False))


def diff(old: Sequence[PlanRow], new: Sequence[PlanRow]) -> PlanDiff:
    """Compare rows by name."""
    before = {row.name: row for row in old}
    after = {row.name: row for row in new}
    added = tuple(row for row in new if row.name not in before)
    changed = tuple(
        (before[row.name], row)
        for row in new
        if row.name in before and _settings(before[row.name]) != _settings(row)
    )
    return PlanDiff(
        added=added,
        removed=tuple(row for row in old if row.name not in after),
        changed=changed,
        unchanged=len(new) - len(added) - len(changed),
    )


def _settings(row: PlanRow) -> dict[str, object]:
    """What is compared of a row, by name."""
    return {name: getattr(row, name) for name in _COMPARED} | dict(row.options)


def _change(old: PlanRow, new: PlanRow) -> str:
    """What changed between two rows, line by line."""
    before, after = _settings(old), _settings(new)
    lines = []
    for name in (*_COMPARED, *sorted({*old.options, *new.options})):
        values = before.get(name), after.get(name)
        if values[0] != values[1]:
            texts = [rate(v) if isinstance(v, float) else str(v) for v in values]
            if texts[0] == texts[1]:  # four digits do not tell them apart
                texts = [repr(value) for value in values]
            title = "weight decay" if name == "weight_decay" else name
            lines.append(f"  {title:<13}{' -> '.join(texts)}")
    no_longer, now = _steps(old, new)
    lines += [f"  no longer    {text}" for text in no_longer]
    lines += [f"  now          {text}" for text in now]
    return "\n".join(lines)


def _text(step: Step) -> str:
    """A factor and its source in one line."""
    factor = step.factor
    parts = [
        f"{name} {value if isinstance(value, str) else rate(value)}"
        for name in (
            *("lr_mult", "wd_mult", "lr", "weight_decay"),
            *("eps_mult", "init_mult", "algorithm"),
        )
        if (value := getattr(factor, name)) != getattr(NEUTRAL, name)
    ]
    parts += [f"{key}={value!r}" for key, value in sorted(factor.options.items())]
    why = f" ({factor.why})" if factor.why else ""
    return f"{step.source}: {', '.join(parts) or 'no change'}{why}"
