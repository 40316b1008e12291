"""Findings about a plan: whether the model and the optimizer are still what it says."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnlr._apply.locate import locate_slots
from nnlr._checks.fixes import frozen, regrouped, resolve_again
from nnlr._checks.schedule_call import arguments_of, call_of, class_of
from nnlr._checks.subject import (
    SettingsOfGroup,
    Subject,
    is_ours,
    rate,
    start,
    takes_over,
    with_origin,
)
from nnlr._findings import Finding, error, note
from nnlr._model.names import nodes
from nnlr._plan import Plan
from nnlr._rows.row import PlanRow
from nnlr._schedule.origin import ORIGIN
from nnlr._text import plural
from nnlr.errors import PlanMismatchError
from nnlr.optim._members import ALGORITHM

# Roles that most recipes do not decay.
_UNDECAYED: Final = ("norm", "bias")

# What is compared of a group and the rows of its parameters, beside options.
_COMPARED: Final = ("lr", "weight_decay", "lr_mult")

# Relative rates under this are as good as none.
_TINY: Final = 1e-3


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
            fix=(
                "If it is one stage or shard of that model, pass partial=True. Else resolve it "
                if "partial" in f"{first}{advice}"
                else "Resolve it "
            )
            + f"again: {resolve_again(subject)}",
        )


def differing(subject: Subject) -> Iterator[Finding]:
    """Groups that do not train parameters as the plan says."""
    if subject.plan is None:
        return
    rows = {row.name: row for row in subject.plan.rows if not row.frozen}
    continued = {
        id(group)
        for optimizer in subject.optimizers
        if takes_over(optimizer)
        for group in optimizer.param_groups
    }  # whose rates and options are those of a checkpoint, as was asked for
    pairs = [
        (rows[member.name], member.group)
        for member in subject.members
        if member.name in rows and member.tensor.requires_grad and id(member.group) not in continued
    ]
    progress = _progress(subject, subject.plan, pairs)
    built = {id(group): _built(group, progress) for _, group in subject.groups}
    differences = {
        row.name: text
        for row, group in pairs
        if (text := _difference(row, built[id(group)])) is not None
    }
    if differences:
        first, text = next(iter(differences.items()))
        yield error(
            "plan-differs",
            differences,
            cause=f"{plural(len(differences), 'parameter', 'are')} not trained as the plan says: "
            f"{first!r} has {text}",
            fix=_mended(subject, pairs),
        )


def _mended(subject: Subject, pairs: Sequence[tuple[PlanRow, SettingsOfGroup]]) -> str:
    """How to give an optimizer the groups of a plan, in the form that its scheduler reads."""
    others = [scheduler for scheduler in subject.schedulers if not is_ours(scheduler)]
    if any(_timm(group) for _, group in pairs):
        cls = type(subject.optimizers[0]).__name__
        calls = (f"{class_of(o)}({', '.join(['optimizer', *arguments_of(o, '')])})" for o in others)
        schedulers = "".join(f"; scheduler = {call}" for call in islice(calls, 1))
        return (
            "Build the optimizer on the plan's groups for timm, whose schedulers multiply "
            f"lr_scale in, and the scheduler again: optimizer = {cls}(nnlr.integrations.timm."
            f"to_timm(plan), lr=plan.lr, weight_decay=plan.weight_decay){schedulers}"
        )
    if others:
        return (
            "Give the optimizer the groups of this plan, and build the scheduler again: "
            f"{regrouped(subject)}; {call_of(others[0])}"
        )
    return f"Give the optimizer the groups of this plan: {regrouped(subject)}"


def _timm(group: SettingsOfGroup) -> bool:
    """Whether a group is for timm's schedulers, which multiply a base rate by ``lr_scale``."""
    return "lr_scale" in group and "lr_mult" not in group


def _progress(
    subject: Subject, plan: Plan, pairs: Sequence[tuple[PlanRow, SettingsOfGroup]]
) -> float:
    """How far a schedule has brought the fastest row, where no note of its origin tells.

    Where the groups began can be hidden: a scheduler writes over it at its construction, a
    plateau or a loop by hand notes nothing. Of groups with multipliers the optimizer's
    default then tells whether they have the plan's base.
    """
    row, group = max(pairs, key=lambda pair: pair[0].lr, default=(None, {}))
    now = _built(group, 1.0)["lr"]
    if row is None or not row.lr or now is None or ORIGIN in group:
        return 1.0  # only kept locks, no rates, or nothing to tell
    moving = subject.schedulers or not group.keys().isdisjoint(("initial_lr", "max_lr"))
    if "lr_mult" in group:
        moving = moving or any(optimizer.state for optimizer in subject.optimizers)
        defaults = [rate(optimizer.defaults, "lr") for optimizer in subject.optimizers]
        moving = moving and plan.lr in defaults
    return now / row.lr if moving else 1.0


def _built(group: SettingsOfGroup, progress: float) -> SettingsOfGroup:
    """The settings that a group started with, its rate without what a schedule has done to it."""
    began = start(group)
    if began is not None:
        scale = (rate(group, "lr_scale") or 0.0) if _timm(group) else 1.0
        began *= scale / (1.0 if ORIGIN in group else progress or 1.0)
    settings = with_origin(group)
    decay, lr_mult = start(group, "weight_decay"), rate(settings, "lr_mult")
    compared = zip(_COMPARED, (began, decay, lr_mult), strict=True)
    return {**settings, **{key: value if key in group else None for key, value in compared}}


def _difference(row: PlanRow, built: SettingsOfGroup) -> str | None:
    """What a group has instead of what the plan says; ``None`` if they agree."""
    algorithm = built.get(ALGORITHM, row.algorithm)
    if algorithm != row.algorithm:
        return f"algorithm {algorithm!r}, not {row.algorithm!r}"
    for key in _COMPARED:
        due, value = getattr(row, key), built[key]
        if value is None:
            if due and key != "lr_mult":
                return f"no {key}, not {due:g}"
        elif not math.isclose(due, value, rel_tol=1e-5):
            return f"{key} {value:g}, not {due:g}"
    for key, option in row.options.items():
        scaled = key == "eps" and row.eps_mult != 1
        if not scaled and built.get(key) != option:
            return f"{key} {built.get(key)!r}, not {option!r}"
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
    vectors = {name for name, param in subject.described.items() if param.role in _UNDECAYED}
    if names := [name for name in decayed if name in vectors]:
        yield note(
            "decayed-norm",
            names,
            cause=f"decay reaches norms and biases ({len(names)} of them), which most recipes "
            "leave out: it pulls a norm's gain to 0, and not to 1",
            fix="If that is not meant, multiply a scheme in: "
            f"{resolve_again(subject, 'nnlr.no_weight_decay()')}",
        )


def tiny_rates(subject: Subject) -> Iterator[Finding]:
    """Layers that a recipe by depth leaves with next to no rate."""
    deep = {}
    for row in subject.plan or ():
        slowed = [step for step in row.trace if step.factor.lr_mult < 1]
        by_layer = [step for step in slowed if step.factor.layer is not None]
        factor = math.prod(step.factor.lr_mult for step in by_layer if not step.explicit)
        if row.trainable and row.lr_mult < _TINY and 0 < factor < _TINY:
            deep[row.name] = row, by_layer[-1].source
    named = {name: pair for name, pair in deep.items() if "min_mult" not in pair[1]}
    if named:
        row, source = min(named.values(), key=lambda pair: pair[0].lr_mult)
        yield note(
            "tiny-rate",
            named,
            cause=f"{source} trains {plural(len(named), 'parameter')} at less than {_TINY:g} of "
            f"the base rate, down to {row.lr_mult:.2g}: they cost gradients and state, and hardly "
            "move",
            fix=_shallower(subject, source, [row for row, _ in named.values()]),
        )


def _shallower(subject: Subject, source: str, rows: Sequence[PlanRow]) -> str:
    """How to end a decay by depth earlier, or freeze what it leaves with next to no rate."""
    code = resolve_again(subject)
    if source.startswith("layer_decay("):
        return (
            f"If that is not meant, end the decay there: scheme = nnlr.{source[:-1]}, "
            f"min_mult={_TINY:g}); {code}"
        )
    freeze = frozen([row.name for row in rows], [row.name for row in subject.plan or ()])
    return f"If that is not meant, decay less, or freeze them: scheme = scheme * {freeze}; {code}"
