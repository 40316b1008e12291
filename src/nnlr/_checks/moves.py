"""Findings about multipliers that move while training."""

from collections.abc import Iterator

from nnlr._attach.attach import attachment_of
from nnlr._checks.schedule_call import call_of, class_of
from nnlr._checks.subject import Subject, is_ours
from nnlr._findings import Finding, error, warning
from nnlr._schedule.moved import MOVED
from nnlr._text import plural


def not_attached(subject: Subject) -> Iterator[Finding]:
    """Optimizers of a plan that moves, where nothing moves."""
    rows = () if subject.plan is None else subject.plan.rows
    planned = {row.name for row in rows if row.moves and row.trainable}
    for optimizer in subject.optimizers:
        groups = {id(group) for group in optimizer.param_groups}
        still = [
            member.name
            for member in subject.members
            if id(member.group) in groups and (MOVED in member.group or member.name in planned)
        ]
        if still and attachment_of(optimizer) is None:
            yield error(
                "not-attached",
                still,
                cause=f"multipliers of {plural(len(still), 'parameter')} move while training by "
                "the plan, and nothing moves them: a step is refused, or trains at the rates of "
                "the start if the optimizer was built by hand",
                fix="Attach the plan, with the steps of the whole run in place of 1000: "
                "attached = nnlr.attach(optimizer, plan, total_steps=1000)",
            )


def without_base(subject: Subject) -> Iterator[Finding]:
    """Schedulers of others on groups that all move."""
    for scheduler in subject.schedulers:
        optimizer = subject.optimizer_of(scheduler)
        if optimizer is None or is_ours(scheduler) or subject.is_scheduled_by_us(optimizer):
            continue
        if all(MOVED in group for group in optimizer.param_groups):
            yield error(
                "moves-without-base",
                (),
                cause=f"{class_of(scheduler)} writes rates into groups that all move, so that "
                "nothing tells which base rate it means: the step after its next one is refused",
                fix=f"Schedule the base rate: {call_of(scheduler)}",
            )


def other_length(subject: Subject) -> Iterator[Finding]:
    """Moves of a run that is longer or shorter than the schedule's."""
    for scheduler in subject.schedulers:
        optimizer = subject.optimizer_of(scheduler)
        attached = None if optimizer is None else attachment_of(optimizer)
        inner = getattr(scheduler, "scheduler", scheduler)  # of ours
        steps = getattr(inner, "total_steps", None)
        if attached is not None and attached.total_steps and isinstance(steps, int):
            if abs(steps - attached.total_steps) <= 1:  # some count the start as one
                continue
            yield warning(
                "other-length",
                (),
                cause=f"{class_of(inner)} is built for {steps:,} steps, and what moves by the "
                f"part of the run that is done for {attached.total_steps:,}",
                fix="If they count the same steps, attach the plan for as many: "
                f"attached = nnlr.attach(optimizer, plan, total_steps={steps})",
            )


def unlocked(subject: Subject) -> Iterator[Finding]:
    """Parameters whose gradients somebody switched on while a move locks them."""
    for optimizer in subject.optimizers:
        attached = attachment_of(optimizer)
        units = [] if attached is None else attached.locked_units
        on = [p.row.name for unit in units for p in unit.params if p.tensor.requires_grad]
        if attached is not None and on:
            total = f", total_steps={attached.total_steps}" if attached.total_steps else ""
            yield warning(
                "move-unlocked",
                on,
                cause=f"a move locks {plural(len(on), 'parameter')} at this step, and something "
                "has switched the gradients on: they are computed, and dropped before each step",
                fix="Switch them off again, by the move: "
                f"attached = nnlr.attach(optimizer, plan{total})",
            )
