"""The difference of two plans."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from nnlr._declare.factor import NEUTRAL, Step
from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural
from nnlr.report._text import WIDTH, rate

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
            title = "rerouted" if change.startswith(_REROUTED) else "changed"
            lines += [_heading(title, names), change]
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
            if row.name in before and _settings(before[row.name]) != _settings(row)
        ),
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
    steps, new_steps = Counter(map(_text, old.trace)), Counter(map(_text, new.trace))
    lines += [f"  no longer    {text}" for text in (steps - new_steps).elements()]
    lines += [f"  now          {text}" for text in (new_steps - steps).elements()]
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
