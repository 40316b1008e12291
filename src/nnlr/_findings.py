"""Findings: what is legal, but probably not what was meant."""

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import wrap
from typing import Final, Literal

from nnlr._arguments import choice
from nnlr._text import listed, plural

Severity = Literal["error", "warning", "note"]

# From worst to least.
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")

_WIDTH: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about a plan, or a run, that its author should look at.

    Attributes:
        severity: ``"error"`` for what trains wrongly or fails later, ``"warning"`` for a
            probable mistake, ``"note"`` for a consequence.
        kind: A short name, the same for every finding of this sort.
        names: The parameters, groups or modules concerned; none if it is the whole.
        cause: What was found and why it matters.
        fix: What to do; code to paste stands behind the last colon and space.
    """

    severity: Severity
    kind: str
    names: tuple[str, ...]
    cause: str
    fix: str

    def __str__(self) -> str:
        """One paragraph: severity, cause, names, fix."""
        names = f" ({listed(self.names)})" if self.names else ""
        return f"{self.severity}: {self.cause}{names}. {self.fix}"


def error(kind: str, names: Iterable[str], cause: str, fix: str) -> Finding:
    """A finding about what trains wrongly or fails later."""
    return Finding(severity="error", kind=kind, names=tuple(names), cause=cause, fix=fix)


def warning(kind: str, names: Iterable[str], cause: str, fix: str) -> Finding:
    """A finding about a probable mistake."""
    return Finding(severity="warning", kind=kind, names=tuple(names), cause=cause, fix=fix)


def note(kind: str, names: Iterable[str], cause: str, fix: str) -> Finding:
    """A finding about a consequence worth knowing."""
    return Finding(severity="note", kind=kind, names=tuple(names), cause=cause, fix=fix)


class Findings(tuple[Finding, ...]):
    """Findings, the worst first; they print themselves, 80 columns wide.

    Examples:
        >>> print(Findings())
        nothing found
    """

    __slots__ = ()

    def __new__(cls, findings: Iterable[Finding] = ()) -> "Findings":
        """Sort them; those of one severity stay in their order."""
        return super().__new__(cls, sorted(findings, key=lambda f: SEVERITIES.index(f.severity)))

    def __str__(self) -> str:
        """Each as a paragraph with its kind, and the fix on lines of its own."""
        return "\n".join(map(_paragraph, self)) or "nothing found"

    def __repr__(self) -> str:
        """How many there are of each severity."""
        counts = [
            plural(number, severity)
            for severity in SEVERITIES
            if (number := sum(finding.severity == severity for finding in self))
        ]
        return f"Findings({', '.join(counts) or 'nothing found'})"

    def at_least(self, severity: Severity) -> "Findings":
        """Those that are as severe as this, or more.

        Args:
            severity: ``"error"``, ``"warning"`` or ``"note"``.

        Raises:
            NnlrError: If it is another word.
        """
        choice(severity, "severity", SEVERITIES)
        worst = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return Findings(finding for finding in self if finding.severity in worst)


def _paragraph(finding: Finding) -> str:
    """A finding in lines of 80 columns, the fix indented."""
    names = f" ({listed(finding.names)})" if finding.names else ""
    cause = f"{finding.severity} [{finding.kind}]: {finding.cause}{names}."
    return "\n".join([*_wrapped(cause, indent=""), *_wrapped(finding.fix, indent="  ")])


def _wrapped(text: str, indent: str) -> list[str]:
    """Lines of a text, all but the first indented by two columns more."""
    return wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
