"""The difference of two plans."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap

from nnlr._declare.factor import Step
from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural
from nnlr.report._text import WIDTH, rate


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """The difference of two plans; ``print`` it, or read its parts.

    Attributes:
        added: Rows that only the new plan has.
        removed: Rows that only the old plan has.
        changed: Pairs of old and new rows whose rates, settings or state differ.
    """

    added: tuple[PlanRow, ...]
    removed: tuple[PlanRow, ...]
    changed: tuple[tuple[PlanRow, PlanRow], ...]

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
            lines += [_heading("changed", names), change]
        return "\n".join(lines)


def _heading(title: str, names: Sequence[str]) -> str:
    """A line that names the parameters."""
    text = f"{title} {plural(len(names), 'parameter')}: {listed(names)}"
    return "\n".join(wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False))


def diff(old: Sequence[PlanRow], new: Sequence[PlanRow]) -> PlanDiff:
    """Compare rows by name."""
    before = {row.name: row for row in old}
    after = {row.name: row for row in new}
    return PlanDiff(
        added=tuple(row for row in new if row.name not in before),
        removed=tuple(row for row in old if row.name not in after),
        changed=tuple(
            (before[row.name], row)
            for row in new
            if row.name in before and _facts(before[row.name]) != _facts(row)
        ),
    )


def _facts(row: PlanRow) -> tuple[object, ...]:
    """What is compared of two rows."""
    rates = (row.lr, row.weight_decay, row.lr_mult, row.wd_mult, row.eps_mult, row.init_mult)
    return (*rates, dict(row.options), row.tag, row.locked, row.trainable, row.shape)


def _change(old: PlanRow, new: PlanRow) -> str:
    """What changed between two rows, line by line."""
    settings: dict[str, tuple[object, object]] = {
        "shape": (old.shape, new.shape),
        "state": (old.state, new.state),
        "lr": (old.lr, new.lr),
        "lr_mult": (old.lr_mult, new.lr_mult),
        "weight decay": (old.weight_decay, new.weight_decay),
        "wd_mult": (old.wd_mult, new.wd_mult),
        "eps_mult": (old.eps_mult, new.eps_mult),
        "init_mult": (old.init_mult, new.init_mult),
        "tag": (old.tag, new.tag),
    }
    for key in sorted({*old.options, *new.options}):
        settings[key] = (old.options.get(key), new.options.get(key))
    lines = [
        f"  {name:<13}{_arrow(was, now)}" for name, (was, now) in settings.items() if was != now
    ]
    lines += [f"  no longer    {text}" for text in _only(old.trace, new.trace)]
    lines += [f"  now          {text}" for text in _only(new.trace, old.trace)]
    return "\n".join(lines)


def _only(these: Iterable[Step], those: Iterable[Step]) -> list[str]:
    """Factors of the first trace that the second has not."""
    surplus = Counter(map(_text, these)) - Counter(map(_text, those))
    return list(surplus.elements())


def _text(step: Step) -> str:
    """A factor and its source in one line."""
    factor = step.factor
    parts = [
        f"{name} {rate(value)}"
        for name, value, neutral in (
            ("lr_mult", factor.lr_mult, 1.0),
            ("wd_mult", factor.wd_mult, 1.0),
            ("lr", factor.lr, None),
            ("weight_decay", factor.weight_decay, None),
            ("eps_mult", factor.eps_mult, 1.0),
            ("init_mult", factor.init_mult, 1.0),
        )
        if value is not None and value != neutral
    ]
    parts += [f"{key}={value!r}" for key, value in sorted(factor.options.items())]
    why = f" ({factor.why})" if factor.why else ""
    return f"{step.source}: {', '.join(parts) or 'no change'}{why}"


def _arrow(was: object, now: object) -> str:
    """Old and new, in full where four digits do not tell them apart."""
    short = (_plain(was), _plain(now))
    old, new = short if short[0] != short[1] else (repr(was), repr(now))
    return f"{old} -> {new}"


def _plain(value: object) -> str:
    """A value with four digits, if it is a float."""
    return rate(value) if isinstance(value, float) else str(value)
