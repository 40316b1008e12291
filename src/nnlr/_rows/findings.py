"""Findings: what is legal, and probably not what was meant."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnlr._declare.factor import Factor
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Node, Slot, nodes
from nnlr._rows.row import PlanRow

# A relative rate at or below this was probably meant as an absolute one.
LOOKS_ABSOLUTE: Final = 1e-4

# Each multiplier, what would set it absolutely, and what to call it.
_RELATIVE: Final = (
    ("lr_mult", "lr", "rate"),
    ("wd_mult", "weight_decay", "weight decay"),
)


def plan_findings(rows: Sequence[PlanRow], model: ModelInfo) -> tuple[Finding, ...]:
    """Look a plan over, and the model it was made for."""
    statements = _statements(rows)
    return (
        *_only_frozen(statements),
        *_absolute_looking(statements),
        *_restored(rows, model.places),
        *(_running_statistics(rows, model.module) if model.module is not None else ()),
    )


# For each explicit source, such as a rule: the factors it gives, and to which rows.
Statements = Mapping[str, list[tuple[Factor, list[PlanRow]]]]


def _statements(rows: Iterable[PlanRow]) -> Statements:
    """What the explicit sources say; a recipe may well come to tiny multipliers."""
    sharing: dict[int, list[PlanRow]] = {}
    for row in rows:
        if row.trace:
            sharing.setdefault(id(row.trace), []).append(row)
    said: dict[str, list[tuple[Factor, list[PlanRow]]]] = {}
    for members in sharing.values():
        for step in members[0].trace:
            if step.explicit:
                said.setdefault(step.source, []).append((step.factor, members))
    return said


def _only_frozen(statements: Statements) -> list[Finding]:
    return [
        warning(
            "rule-on-frozen",
            tuple(row.name for _, members in said for row in members),
            cause=f"{source} reaches only parameters that are frozen, so it does nothing",
            fix="Unfreeze them before resolve, or drop it.",
        )
        for source, said in statements.items()
        if all(row.frozen for _, members in said for row in members)
    ]


def _absolute_looking(statements: Statements) -> list[Finding]:
    found = []
    for source, said in statements.items():
        for mult, absolute, what in _RELATIVE:
            small = [
                (value, members)
                for factor, members in said
                if 0 < (value := getattr(factor, mult)) <= LOOKS_ABSOLUTE
            ]
            if small:
                found.append(
                    warning(
                        "looks-absolute",
                        tuple(row.name for _, rows in small for row in rows),
                        cause=f"{source} gives the relative {what} {small[0][0]:g}, which looks "
                        "like an absolute one",
                        fix=f"A multiplier of 1 is the base {what}; use rule(..., "
                        f"{absolute}=) to set a {what}.",
                    )
                )
    return found


def _restored(rows: Iterable[PlanRow], places: Iterable[tuple[Slot, ...]]) -> list[Finding]:
    """What an earlier plan locked and this one trains; others may rely on the lock."""
    names = tuple(
        row.name
        for row, (slot, *_) in zip(rows, places, strict=True)
        if not slot.tensor.requires_grad and row.trainable
    )
    if not names:
        return []
    return [
        note(
            "restored",
            names,
            cause="nnlr locked these for an earlier plan, and applying this one switches "
            "their gradients on again, whoever may have frozen them since",
            fix="Give them lr_mult=0 if they must stay as they are.",
        )
    ]


def _running_statistics(rows: Sequence[PlanRow], model: nn.Module) -> list[Finding]:
    """BatchNorms whose own parameters are locked and whose statistics go on moving."""
    locked = {name for row in rows if row.locked for name in (row.name, *row.aliases)}
    if not locked:
        return []
    moving = [
        node.path
        for node in nodes(model)
        if isinstance(node.module, _BatchNorm)
        and node.module.track_running_stats
        and (own := _governing(node, rows))
        and own <= locked
    ]
    if not moving:
        return []
    return [
        note(
            "running-statistics",
            dict.fromkeys(moving),
            cause="locked BatchNorm layers still update their running statistics in train mode, "
            "so the layers under them change what they compute",
            fix="Call .eval() on them after model.train() if they must stay as they are.",
        )
    ]


def _governing(node: Node, rows: Sequence[PlanRow]) -> set[str]:
    """The parameters that say whether a BatchNorm is locked: its own, else its parent's."""
    prefix = f"{node.path}." if node.path else ""
    own = {prefix + key for key, tensor in node.module._parameters.items() if tensor is not None}
    if own or node.parent is None:
        return own
    around = f"{node.parent.path}." if node.parent.path else ""
    return {row.name for row in rows if row.name.startswith(around)}
