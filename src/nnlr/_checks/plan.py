"""Findings about a plan: whether the model and the optimizer are still what it says."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnlr._apply.locate import locate_slots
from nnlr._checks.subject import SettingsOfGroup, Subject, rate, start
from nnlr._findings import Finding, error, note
from nnlr._model.describe import describe
from nnlr._model.names import nodes
from nnlr._plan import Plan
from nnlr._rows.row import PlanRow
from nnlr._text import plural
from nnlr.errors import PlanMismatchError

# Roles that most recipes do not decay.
_UNDECAYED: Final = ("norm", "bias")


def resolved(subject: Subject) -> Iterator[Finding]:
    """The findings of the plan itself, as far as they still hold."""
    if subject.plan is None:
        return
    off = {slot.name for slot in subject.slots.values() if not slot.tensor.requires_grad}
    for finding in subject.plan.findings:
        if finding.kind == "restored" and off.isdisjoint(finding.names):
            continue
        if finding.kind == "running-statistics" and isinstance(subject.source, nn.Module):
            norms = [node for node in nodes(subject.source) if node.path in finding.names]
            if not any(isinstance(n.module, _BatchNorm) and n.module.training for n in norms):
                continue
        yield finding


def mismatched(subject: Subject) -> Iterator[Finding]:
    """A model that is not the one that was resolved."""
    if subject.plan is None:
        return
    try:
        locate_slots(subject.plan.rows, subject.places, "It", partial=subject.partial)
    except PlanMismatchError as refusal:
        first, _, advice = str(refusal).partition("\n")
        yield error(
            "plan-mismatch",
            (str(refusal.name),),
            cause=f"the model is not the one that the plan was made for: {first}".rstrip("."),
            fix=advice.strip() or "Resolve it again: plan = nnlr.resolve(model, scheme, ...)",
        )


def differing(subject: Subject) -> Iterator[Finding]:
    """Groups that do not train parameters as the plan says."""
    if subject.plan is None:
        return
    rows = {row.name: row for row in subject.plan.rows if not row.frozen}
    pairs = [
        (rows[member.name], member.group)
        for member in subject.members
        if member.name in rows and member.tensor.requires_grad
    ]
    progress = _progress(subject, subject.plan, pairs)
    differences = {
        row.name: text
        for row, group in pairs
        if (text := _difference(row, group, progress)) is not None
    }
    if differences:
        first, text = next(iter(differences.items()))
        yield error(
            "plan-differs",
            differences,
            cause=f"{plural(len(differences), 'parameter', 'are')} not trained as the plan says: "
            f"{first!r} has {text}",
            fix="Give the optimizer the groups of this plan: nnlr.regroup(optimizer, plan)",
        )


def _progress(
    subject: Subject, plan: Plan, pairs: Sequence[tuple[PlanRow, SettingsOfGroup]]
) -> float:
    """How far a schedule has brought the fastest row, if there is one.

    Where the groups began can be hidden: a scheduler writes over it at its construction, a
    plateau or a loop by hand notes nothing. Of groups with multipliers the optimizer's
    default then tells whether they have the plan's base.
    """
    row, group = max(pairs, key=lambda pair: pair[0].lr, default=(None, {}))
    now = start(group)
    if row is None or not row.lr or now is None:  # only kept locks, or no rates
        return 1.0
    moving = subject.schedulers or not group.keys().isdisjoint(("initial_lr", "max_lr"))
    if "lr_mult" in group:
        moving = moving or any(optimizer.state for optimizer in subject.optimizers)
        defaults = [rate(optimizer.defaults, "lr") for optimizer in subject.optimizers]
        moving = moving and plan.lr in defaults
    return now / row.lr if moving else 1.0


def _difference(row: PlanRow, group: SettingsOfGroup, progress: float) -> str | None:
    """What a group has instead of what the plan says; ``None`` if they agree."""
    for key, due, value in (
        ("lr", row.lr * progress, start(group)),
        ("weight_decay", row.weight_decay, start(group, "weight_decay")),
        ("lr_mult", row.lr_mult, rate(group, "lr_mult")),
    ):
        if value is None:
            if due and key != "lr_mult":
                return f"no {key}, not {due:g}"
        elif value != due and not math.isclose(due, value, rel_tol=1e-5):
            return f"{key} {value:g}, not {due:g}"
    for key, option in row.options.items():
        scaled = key == "eps" and row.eps_mult != 1
        if not scaled and group.get(key) != option:
            return f"{key} {group.get(key)!r}, not {option!r}"
    return None


def decayed_norms(subject: Subject) -> Iterator[Finding]:
    """Weight decay on norms and biases."""
    plan = subject.plan
    if subject.optimizers:
        decayed = [
            member.name
            for member in subject.members
            if member.tensor.requires_grad and rate(member.group, "weight_decay")
        ]
    else:
        decayed = [row.name for row in plan or () if row.trainable and row.weight_decay]
    if not decayed:
        return
    params = plan.rows if plan else describe(subject.source).params
    vectors = {param.name for param in params if param.role in _UNDECAYED}
    if names := [name for name in decayed if name in vectors]:
        yield note(
            "decayed-norm",
            names,
            cause=f"decay reaches norms and biases ({len(names)} of them), which most recipes "
            "leave out: it pulls a norm's gain to 0, and not to 1",
            fix="Multiply a scheme in: scheme = scheme * nnlr.no_weight_decay()"
            if plan
            else "Build the optimizer from a plan: plan = nnlr.resolve(model, "
            "nnlr.no_weight_decay(), lr=lr, weight_decay=wd)",
        )
