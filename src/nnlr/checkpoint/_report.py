"""What became of saved optimizer state: said in a report, and in one warning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

from torch import Tensor

from nnlr._text import listed, plural
from nnlr.checkpoint._names import FROZEN


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that the checkpoint and the code disagree about.

    Attributes:
        setting: Its key in the groups, such as ``"lr"``; of a scheduled rate the value
            that its schedule starts from is meant.
        names: The parameters concerned.
        old: Its value in the checkpoint.
        new: Its value in the code.
        winner: ``"code"`` or ``"checkpoint"``.
    """

    setting: str
    names: tuple[str, ...]
    old: Any
    new: Any
    winner: str

    def __str__(self) -> str:
        """One sentence."""
        return (
            f"{self.setting} is {short(self.old)} in the checkpoint and {short(self.new)} "
            f"in the code: {short(self.new if self.winner == 'code' else self.old)} counts "
            f"({self.winner}), for {_some(self.names)}"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What became of saved optimizer state.

    Attributes:
        moved: Parameters that go on with what was saved of them.
        fresh: Parameters of the optimizer that start afresh: new ones, and those of another
            shape.
        unused: What was saved and is not used: name and reason. ``"gone"``: no such
            parameter; ``"frozen"``: the optimizer does not train it; ``"shape"``: it has
            another shape now; ``"tied"``: it is one tensor now with another that was saved.
        differences: Settings that checkpoint and code disagree about, and who won.
    """

    moved: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()

    def __str__(self) -> str:
        """All of it, names capped, in lines of at most 80 columns."""
        counts = (
            f"Optimizer state: {len(self.moved)} moved, {len(self.fresh)} fresh, "
            f"{len(self.unused)} unused."
        )
        return "\n".join([counts, *map(_wrapped, self._details(told=False))])

    def troubles(self) -> str:
        """What the user has to hear about, or ``""``.

        That new parameters start afresh and frozen ones need no state goes without saying.
        """
        return "\n".join(map(_wrapped, self._details(told=True)))

    def _details(self, *, told: bool) -> list[str]:
        lines = [] if told or not self.fresh else [f"fresh: {listed(self.fresh)}"]
        reasons = list(dict.fromkeys(self.unused.values()))
        for reason in reasons:
            names = [name for name, why in self.unused.items() if why == reason]
            if not (told and reason == FROZEN):
                lines.append(f"unused ({reason}): {listed(names)}")
        shown = [str(each) for each in self.differences[:_SHOWN]]
        if more := self.differences[_SHOWN:]:
            shown.append(f"and {plural(len(more), 'difference')} more")
        return lines + shown


_SHOWN = 8


def _wrapped(line: str) -> str:
    return fill(
        line,
        80,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def short(value: object) -> str:
    """A setting's value for a message."""
    if isinstance(value, Tensor):
        value = value.tolist()
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _some(names: Sequence[str]) -> str:
    return f"{plural(len(names), 'parameter')}: {listed(names, 3)}"
