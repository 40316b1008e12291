"""The page of the difference of two plans: changes of one kind together."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nnlr._rows.row import PlanRow
from nnlr._text import printable
from nnlr.report._diff_text import Causes, causes_of, join_causes, reasons, sources_of
from nnlr.report._moves import moved_by, ways
from nnlr.report._page.labels import labels
from nnlr.report._page.render import render
from nnlr.report._page.scale import Scale
from nnlr.report._text import options_text, rate

if TYPE_CHECKING:
    from nnlr.report._diff import PlanDiff

# What is compared of two rows: a title, and the attribute. Multipliers only where the rate that
# they make is the same, as on another base.
_SETTINGS: Final = {
    "algorithm": "algorithm",
    "state": "state",
    "learning rate": "lr",
    "weight decay": "weight_decay",
    "eps_mult": "eps_mult",
    "init_mult": "init_mult",
}
_MULTIPLIERS: Final = {"lr_mult": "lr", "wd_mult": "weight_decay"}


class Change(NamedTuple):
    """One setting, before and after."""

    title: str
    old: str
    new: str
    times: str  # the factor between two rates
    old_share: float = 0.0  # of a bar, if it is a rate
    new_share: float = 0.0
    colour: str = ""


@dataclass
class Alike:
    """Rows that changed in the same way."""

    changes: tuple[Change, ...]
    rows: list[PlanRow] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Their names, folded."""
        return labels(self.rows)


@dataclass
class Kind:
    """Changes of the same settings by the same declarations."""

    titles: tuple[str, ...]
    causes: Causes = field(default_factory=dict)
    alike: dict[tuple[Change, ...], Alike] = field(default_factory=dict)

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """What is behind them."""
        return reasons(self.causes)

    @property
    def count(self) -> int:
        """Tensors."""
        return sum(len(alike.rows) for alike in self.alike.values())


def diff_page(diff: "PlanDiff") -> str:
    """Draw the page; see :meth:`PlanDiff.to_html`."""
    pairs = diff.changed
    scales = {
        name: Scale.of(getattr(row, name) for pair in pairs for row in pair)
        for name in ("lr", "weight_decay")
    }
    kinds: dict[object, Kind] = {}
    for old, new in pairs:
        changes = tuple(_changes(old, new, scales))
        titles = tuple(change.title for change in changes)
        causes = causes_of(old, new)
        kind = kinds.setdefault((titles, sources_of(causes)), Kind(titles))
        join_causes(kind.causes, causes)
        kind.alike.setdefault(changes, Alike(changes)).rows.append(new)
    lists = [Alike((), list(rows)) for rows in (diff.added, diff.removed)]
    facts = {
        "kinds": sorted(kinds.values(), key=lambda kind: -kind.count),
        "moved": [
            (word, rows)
            for word, rows in zip(("added", "removed"), lists, strict=True)
            if rows.rows
        ],
        "counts": {
            "changed": len(pairs),
            "added": len(diff.added),
            "removed": len(diff.removed),
            "unchanged": diff.unchanged,
        },
    }
    return render("diff.html", facts, scripts=("diff.js",))


def _changes(old: PlanRow, new: PlanRow, scales: dict[str, Scale]) -> list[Change]:
    """What changed between two rows."""
    same = {
        mult: mult
        for mult, name in _MULTIPLIERS.items()
        if getattr(old, name) == getattr(new, name)
    }
    changes = [
        _change(title, getattr(old, name), getattr(new, name), scales.get(name))
        for title, name in (_SETTINGS | same).items()
        if getattr(old, name) != getattr(new, name)
    ]
    if old.shape != new.shape:
        changes.append(_change("shape", old.shape, new.shape, None))
    if moved_by(old) != moved_by(new):
        tell = ways if ways(old) != ways(new) else moved_by
        changes.append(_change("moves", ", ".join(tell(old)), ", ".join(tell(new)), None))
    if old.options != new.options:
        changes.append(
            _change("options", options_text(old.options), options_text(new.options), None)
        )
    return changes


def _change(title: str, old: Any, new: Any, scale: Scale | None) -> Change:  # noqa: ANN401 - any setting
    """One setting, before and after."""
    before, after = (
        rate(v) if isinstance(v, float) else printable(str(v or "none")) for v in (old, new)
    )
    if before == after:  # four digits do not tell them apart
        before, after = repr(old), repr(new)
    times = f"\u00d7 {rate(new / old)}" if isinstance(old, float) and old and new else ""
    if scale is None:
        return Change(title, before, after, times)
    colour = scale.colour(new) if title == "learning rate" else "wd"
    return Change(title, before, after, times, scale.share(old), scale.share(new), colour)
