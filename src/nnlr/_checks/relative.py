"""Rates that are a relative change (``nnlr.relative``): too high, or shared with other rates."""

from collections.abc import Iterator
from typing import Final

from nnlr._checks.fixes import resolve_again, selector
from nnlr._checks.subject import Member, Subject, highest_lr
from nnlr._findings import Finding, note, warning
from nnlr._text import listed, plural

# A step that turns a matrix by more than this forgets it; published rates are below 0.05.
_HIGH: Final = 0.5

# A usual ratio between the rates of vectors under Adam and relative changes of matrices.
_SLOWER: Final = 0.1


def high_rates(subject: Subject) -> Iterator[Finding]:
    """Rates at which one step changes most of a matrix."""
    rates = {
        member.name: lr
        for member in subject.members
        if id(member.tensor) in subject.relative
        and (lr := highest_lr(member.group)) is not None
        and lr > _HIGH
    }
    if rates:
        highest = max(rates.values())
        yield warning(
            "high-relative-rate",
            rates,
            cause=f"under nnlr.relative the rate of {plural(len(rates), 'parameter')} is the "
            f"relative change in a step, and is up to {highest:g}: that is {highest:.0%} of the "
            "matrix",
            fix="Lower the base rate, or their multiplier. Rates of 0.001 to 0.05 are usual.",
        )


def shared_groups(subject: Subject) -> Iterator[Finding]:
    """Groups of which some parameters change by the rate, and others by the class's own step."""
    others: list[Member] = []
    if subject.relative:
        for _, group in subject.groups:
            own = [member for member in subject.members if member.group is group]
            absolute = [member for member in own if id(member.tensor) not in subject.relative]
            if len(absolute) < len(own):
                others += absolute
    if others:
        names = [member.name for member in others]
        lr = highest_lr(others[0].group)
        rule = f"nnlr.rule({selector(names, subject.names)}, lr_mult={_SLOWER})"
        yield note(
            "two-kinds-of-rate",
            names,
            cause=f"{plural(len(names), 'parameter')} that nnlr.relative leaves to the optimizer "
            f"share the rate, {lr:g} of {listed(names, 1)}, with matrices of which it is the "
            "relative change",
            fix=f"Give them a rate of their own: {resolve_again(subject, rule)}",
        )
