"""A finding: something legal that is probably not what was meant."""

from dataclasses import dataclass
from typing import Literal

from nnlr.errors import listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about a plan that its author should look at.

    Attributes:
        severity: ``"warning"`` for a probable mistake, ``"note"`` for a consequence.
        kind: A short name, the same for every finding of this sort.
        names: The parameters or modules concerned; none if it is the model as a whole.
        cause: What was found and why it matters.
        fix: What to do.
    """

    severity: Literal["warning", "note"]
    kind: str
    names: tuple[str, ...]
    cause: str
    fix: str

    def __str__(self) -> str:
        """One paragraph: severity, cause, names, fix."""
        names = f" ({listed(self.names)})" if self.names else ""
        return f"{self.severity}: {self.cause}{names}. {self.fix}"
