"""Findings about the ends of epochs, of which moves have to be told."""

from collections.abc import Iterator

from nnlr._attach.attach import attachment_of
from nnlr._checks.subject import Subject
from nnlr._findings import Finding, note
from nnlr._text import listed, plural


def untold(subject: Subject) -> Iterator[Finding]:
    """Moves that go by epochs, of which none has ended so far."""
    for optimizer in subject.optimizers:
        attached = attachment_of(optimizer)
        sources = [] if attached is None else attached.by_epochs
        if attached is None or not sources or attached.progress.epoch or not attached.progress.step:
            continue
        yield note(
            "no-epoch-ended",
            (),
            cause=f"{listed(sources)} goes by epochs, and in "
            f"{plural(attached.progress.step, 'step')} none has ended: nothing begins before",
            fix="In the first epoch nothing is wrong. Else tell it after each, with the metric if "
            "one is followed: attached.end_epoch()",
        )
