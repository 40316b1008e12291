"""The difference of two plans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnlr._rows.row import PlanRow
from nnlr._rows.to_dict import plain
from nnlr.report._diff_text import COMPARED, diff_markdown, diff_text, settings, steps
from nnlr.report._plot_style import WIDTH as PICTURE_WIDTH
from nnlr.report._plot_style import as_width
from nnlr.report._text import preformatted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """The difference of two plans; ``print`` it, or read its parts.

    Attributes:
        added: Rows that only the new plan has.
        removed: Rows that only the old plan has.
        changed: Pairs of old and new rows whose rates, settings or state differ.
        same: Rows that are equal in both.
    """

    added: tuple[PlanRow, ...]
    removed: tuple[PlanRow, ...]
    changed: tuple[tuple[PlanRow, PlanRow], ...]
    same: tuple[PlanRow, ...] = ()

    @property
    def unchanged(self) -> int:
        """How many rows are equal in both."""
        return len(self.same)

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        """Changes of one cause together, old and new, with names folded; at most 60 lines."""
        return diff_text(self) if self else "no difference"

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
        return diff_markdown(self)

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

    def _repr_html_(self) -> str:
        """What a notebook shows: the same text."""
        return preformatted(str(self))


def _facts(row: PlanRow) -> dict[str, Any]:
    """A row as plain values."""
    names = ("name", "shape", "numel", *(name for name in COMPARED if name != "shape"))
    values = {"name": row.name, "numel": row.numel, **settings(row)}
    facts: dict[str, Any] = plain({name: values[name] for name in names})
    return {**facts, "options": plain(row.options)}


def _change_facts(old: PlanRow, new: PlanRow) -> dict[str, Any]:
    """What changed between two rows, and the factors behind it, as plain values."""
    before, after = settings(old), settings(new)
    changes = {
        name: [before.get(name), after.get(name)]
        for name in (*COMPARED, *sorted({*old.options, *new.options}))
        if before.get(name) != after.get(name)
    }
    no_longer, now = ([text for _, text in each] for each in steps(old, new))
    return {"name": new.name, "changes": plain(changes), "no_longer": no_longer, "now": now}


def diff(old: Sequence[PlanRow], new: Sequence[PlanRow]) -> PlanDiff:
    """Compare rows by name."""
    before = {row.name: row for row in old}
    after = {row.name: row for row in new}
    added = tuple(row for row in new if row.name not in before)
    changed = tuple(
        (before[row.name], row)
        for row in new
        if row.name in before and settings(before[row.name]) != settings(row)
    )
    others = {row.name for _, row in changed}
    return PlanDiff(
        added=added,
        removed=tuple(row for row in old if row.name not in after),
        changed=changed,
        same=tuple(row for row in new if row.name in before and row.name not in others),
    )
