"""The report on loaded optimizer state, and the one warning about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any, Final

from nnlr._schedule.origin import MULTIPLIERS, plain
from nnlr._text import listed, plural, warn
from nnlr.checkpoint._names import ALGORITHM, FROZEN, GONE, KIND, SHAPE, TIED
from nnlr.checkpoint._sides import KERNELS


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
        """Return one sentence."""
        return (
            f"{self.setting} is {short(self.old)} in the checkpoint and {short(self.new)} "
            f"in the code: {short(self.new if self.winner == 'code' else self.old)} counts "
            f"({self.winner}), for {plural(len(self.names), 'parameter')}: {listed(self.names, 3)}"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """Which saved optimizer state was used, and which settings differed.

    Attributes:
        moved: Parameters that continue with their saved state.
        fresh: Parameters of the optimizer that start afresh: new ones, and those of another
            shape.
        unused: What was saved and is not used: name and reason. ``"gone"``: no such
            parameter; ``"frozen"``: the optimizer does not train it; ``"shape"``: it has
            another shape now; ``"algorithm"``: another of several algorithms trained it;
            ``"tied"``: it is one tensor now with another that was saved.
        differences: Settings that checkpoint and code disagree about, and who won.
        partly: Parameters that go on and of whose state a part starts afresh, such as that of a
            setting that the code switches on: name and the keys of that part.
        made_by: The class that saved the state, if it is another one than ``optimizer``.
        optimizer: The class that the state is for.
        scheme: What the plan's schemes were and are, where plans of both are known and differ.
    """

    moved: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    partly: Mapping[str, Sequence[str]] = field(default_factory=dict)
    made_by: str = ""
    optimizer: str = ""
    scheme: str = ""

    def __str__(self) -> str:
        """Return all of it, names capped, in lines of at most 80 columns."""
        counts = (
            f"Optimizer state: {len(self.moved)} moved, {len(self.fresh)} fresh, "
            f"{len(self.unused)} unused."
        )
        return "\n".join([counts, *map(_wrapped, self._details(only_troubles=False))])

    def troubles(self) -> str:
        """Return the lines of the warning, or ``""`` if there is nothing to warn about.

        New parameters start afresh and frozen ones need no state: these are left out.
        """
        return "\n".join(map(_wrapped, self._details(only_troubles=True)))

    def _details(self, *, only_troubles: bool) -> list[str]:
        """Return what to print below the counts, an entry each."""
        lines = [f"fresh: {listed(self.fresh)}"] if self.fresh and not only_troubles else []
        words = dict(_UNUSED)
        if self.made_by:
            words[KIND] = f"the state that {self.made_by} saved does not fit {self.optimizer}"
            if KIND not in self.unused.values():
                lines.append(self._of_another_class())
        for reason in dict.fromkeys(self.unused.values()):
            names = [name for name, why in self.unused.items() if why == reason]
            if not (only_troubles and reason == FROZEN):
                afresh = ", so these start afresh" if reason in {ALGORITHM, KIND, SHAPE} else ""
                lines.append(f"{words[reason]}{afresh}: {listed(names)}")
        for keys in dict.fromkeys(map(tuple, self.partly.values())):
            names = [name for name, begun in self.partly.items() if tuple(begun) == keys]
            lines.append(f"{', '.join(keys)} starts afresh: {listed(names)}")
        silent = KERNELS if only_troubles else set()  # they change no result
        return lines + self._settings([d for d in self.differences if d.setting not in silent])

    def _of_another_class(self) -> str:
        """Return the line on state of another class of which nothing was refused."""
        if self.moved:
            goes_on = f"{self.optimizer} keeps the same of each parameter, so it goes on"
            return f"{self.made_by} saved this state; {goes_on}"
        nothing = f"{self.made_by} saved no state of parameters that {self.optimizer} could go on"
        return f"{nothing} with, so these start afresh: {listed(self.fresh)}"

    def _settings(self, differences: Sequence[Difference]) -> list[str]:
        """Return a line for each setting that differs, and for who won."""
        lines = []
        for setting, winner in dict.fromkeys((d.setting, d.winner) for d in differences):
            several = [d for d in differences if (d.setting, d.winner) == (setting, winner)]
            by_scheme = self.scheme and setting in MULTIPLIERS.values() and winner == "code"
            if len(several) == 1 and not by_scheme:
                lines.append(str(several[0]))
                continue
            count = plural(sum(len(d.names) for d in several), "parameter")
            values = [f"{short(d.old)} -> {short(d.new)} ({listed(d.names, 1)})" for d in several]
            what = self.scheme if by_scheme else listed(values, 3)
            whose = "those of the code count" if winner == "code" else "the checkpoint's count"
            lines.append(f"{setting} of {count}: {what}; {whose}")
        return lines


# Why saved state is not used, in words.
_UNUSED: Final = {
    GONE: "saved, and the optimizer has no parameter of that name",
    FROZEN: "saved, and not trained now",
    SHAPE: "the saved state is of another shape",
    KIND: "the saved state is torn, or another optimizer made it",
    ALGORITHM: "another algorithm trained them",
    TIED: "saved, and one tensor now with another, whose state counts",
}


def warn_about(report: Report) -> None:
    """Warn of saved state that is not used and of settings that differ, if there are any."""
    if troubles := report.troubles():
        warn(f"The optimizer and its checkpoint differ:\n{troubles}")


def _wrapped(line: str) -> str:
    """Indent an entry, in lines of at most 80 columns."""
    layout: Any = {"break_long_words": False, "break_on_hyphens": False}
    return fill(line, 80, initial_indent="  ", subsequent_indent="    ", **layout)


def short(value: object) -> str:
    """Write a setting's value for a message."""
    value = plain(value)
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
