"""A plan, and whether the optimizer and the model still are what it says."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnlr._apply.locate import locate_slots
from nnlr._checks.subject import Group, Subject, rate, start
from nnlr._findings import Finding, error, note
from nnlr._model.describe import describe
from nnlr._model.names import nodes
from nnlr._rows.row import PlanRow
from nnlr._text import plural
from nnlr.errors import PlanMismatchError

# What is compared of a row and a group.
_COMPARED: Final = ("lr", "weight_decay", "lr_mult")

# Roles that most recipes do not decay.
_UNDECAYED: Final = ("norm", "bias")


def resolved(subject: Subject) -> Iterator[Finding]:
    """What was found when the plan was made, as far as it still holds."""
    if subject.plan is None:
        return
    off = {slot.name for slot in subject.slots.values() if not slot.tensor.requires_grad}
    for finding in subject.plan.findings:
        if finding.kind == "restored" and off.isdisjoint(finding.names):
            continue
        if finding.kind == "running-statistics" and not _in_training(subject, finding):
            continue
        yield finding


def _in_training(subject: Subject, finding: Finding) -> bool:
    """Whether a BatchNorm that a finding names would update its statistics now."""
    if not isinstance(subject.source, nn.Module):
        return True
    return any(
        node.module.training
        for node in nodes(subject.source)
        if isinstance(node.module, _BatchNorm) and node.path in finding.names
    )


def mismatched(subject: Subject) -> Iterator[Finding]:
    """A model that is not the one that was resolved."""
    if subject.plan is None:
        return
    try:
        locate_slots(subject.plan.rows, subject.places, "It", partial=subject.partial)
    except PlanMismatchError as refusal:
        first, _, rest = str(refusal).partition("\n")
        yield error(
            "plan-mismatch",
            (str(refusal.name),),
            cause=f"the model is not the one that the plan was made for: {first}".rstrip("."),
            fix=rest.strip() or "Resolve it anew: plan = nnlr.resolve(model, scheme, ...)",
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
    progress = _progress(subject, pairs)
    held = {id(group): _held(group) for _, group in subject.groups}
    found = {
        row.name: said
        for row, group in pairs
        if (said := _said(row, group, held[id(group)], progress))
    }
    if found:
        first, said = next(iter(found.items()))
        yield error(
            "plan-differs",
            found,
            cause=f"{plural(len(found), 'parameter', 'are')} not trained as the plan says: "
            f"{first!r} has {said}",
            fix="Give the optimizer the groups of this plan: nnlr.regroup(optimizer, plan)",
        )


def _progress(subject: Subject, pairs: Sequence[tuple[PlanRow, Group]]) -> float:
    """How far a schedule has brought the fastest row, if there is one.

    Where the groups began can be hidden: a scheduler writes over it at its construction, a
    plateau or a loop by hand notes nothing. Of groups with multipliers the optimizer's
    default then tells whether they have the plan's base.
    """
    if subject.plan is None or not pairs:
        return 1.0
    row, group = max(pairs, key=lambda pair: pair[0].lr)
    now = start(group)
    if not row.lr or now is None:  # only kept locks, or an optimizer without rates
        return 1.0
    moving = subject.schedulers or not group.keys().isdisjoint(("initial_lr", "max_lr"))
    if "lr_mult" in group:
        moving = moving or any(each.state for each in subject.optimizers)
        defaults = [rate(each.defaults, "lr") for each in subject.optimizers]
        moving = moving and subject.plan.lr in defaults
    return now / row.lr if moving else 1.0


_Held = tuple[float | None, float | None, float | None]


def _held(group: Group) -> _Held:
    """What a group has of a row's rate, decay and multiplier."""
    return start(group), start(group, "weight_decay"), rate(group, "lr_mult")


def _said(row: PlanRow, group: Group, held: _Held, progress: float) -> str:
    """What a group has and the plan does not say, or ``""``."""
    wanted = (row.lr * progress, row.weight_decay, row.lr_mult)
    for key, due, found in zip(_COMPARED, wanted, held, strict=True):
        if found is None:
            if due and key != "lr_mult":
                return f"no {key}, not {due:g}"
        elif found != due and not math.isclose(due, found, rel_tol=1e-5):
            return f"{key} {found:g}, not {due:g}"
    for key, option in row.options.items():
        scaled = key == "eps" and row.eps_mult != 1
        if not scaled and group.get(key) != option:
            return f"{key} {group.get(key)!r}, not {option!r}"
    return ""


def decays(subject: Subject) -> Iterator[Finding]:
    """Weight decay on norms and biases."""
    plan = subject.plan
    if subject.optimizers:
        decayed = [
            member.name
            for member in subject.members
            if member.tensor.requires_grad and rate(member.group, "weight_decay")
        ]
    else:
        rows = plan.rows if plan else ()
        decayed = [row.name for row in rows if row.trainable and row.weight_decay]
    if not decayed:
        return
    known = plan.rows if plan else describe(subject.source).params
    vectors = {each.name for each in known if each.role in _UNDECAYED}
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
