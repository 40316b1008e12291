"""Findings about a plan: what is legal, and probably not what was meant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnlr._declare.factor import Factor
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Node, Slot, nodes
from nnlr._rows.rates import Bases
from nnlr._rows.row import PlanRow

# A relative rate at or below this was probably meant as an absolute one.
LOOKS_ABSOLUTE: Final = 1e-4

# Each multiplier, what would set it absolutely, and what to call it.
_RELATIVE: Final = (
    ("lr_mult", "lr", "rate"),
    ("wd_mult", "weight_decay", "weight decay"),
)


# For each explicit source, such as a rule: the factors it gives, and to which rows.
Statements = Mapping[str, list[tuple[Factor, PlanRow]]]


def plan_findings(rows: Sequence[PlanRow], model: ModelInfo) -> tuple[Finding, ...]:
    """Findings about a plan and the model it was made for."""
    statements = _statements(rows)
    return (
        *_only_frozen(statements),
        *_absolute_looking(statements),
        *_restored(rows, model.places),
        *(_running_statistics(rows, model.module) if model.module is not None else ()),
    )


def _statements(rows: Iterable[PlanRow]) -> Statements:
    """The factors of explicit sources; a recipe may well come to tiny multipliers."""
    statements: dict[str, list[tuple[Factor, PlanRow]]] = {}
    for row in rows:
        for step in row.trace:
            if step.explicit:
                statements.setdefault(step.source, []).append((step.factor, row))
    return statements


def _only_frozen(statements: Statements) -> Iterator[Finding]:
    """Sources that reach frozen parameters only."""
    for source, factors in statements.items():
        if all(row.frozen for _, row in factors):
            yield warning(
                "rule-on-frozen",
                (row.name for _, row in factors),
                cause=f"{source} reaches only parameters that are frozen, so it does nothing",
                fix="Unfreeze them before resolve, or drop it.",
            )


def _absolute_looking(statements: Statements) -> Iterator[Finding]:
    """Relative rates so small that they were probably meant as absolute ones."""
    for source, factors in statements.items():
        for relative, absolute, rate in _RELATIVE:
            small = [
                (value, row.name)
                for factor, row in factors
                if 0 < (value := getattr(factor, relative)) <= LOOKS_ABSOLUTE
            ]
            if small:
                yield warning(
                    "looks-absolute",
                    (name for _, name in small),
                    cause=f"{source} gives the relative {rate} {small[0][0]:g}, which looks "
                    "like an absolute one",
                    fix=f"A multiplier of 1 is the base {rate}; use rule(..., "
                    f"{absolute}=) to set a {rate}.",
                )


def _restored(rows: Iterable[PlanRow], places: Iterable[tuple[Slot, ...]]) -> Iterator[Finding]:
    """Parameters that an earlier plan locked and this one trains; others may rely on the lock."""
    names = [
        row.name
        for row, (slot, *_) in zip(rows, places, strict=True)
        if not slot.tensor.requires_grad and row.trainable
    ]
    if names:
        yield note(
            "restored",
            names,
            cause="nnlr locked these for an earlier plan, and applying this one switches "
            "their gradients on again, whoever may have frozen them since",
            fix="Give them lr_mult=0 if they must stay as they are.",
        )


def _running_statistics(rows: Sequence[PlanRow], model: nn.Module) -> Iterator[Finding]:
    """BatchNorms whose own parameters are locked and whose statistics still change."""
    locked = {name for row in rows if row.locked for name in (row.name, *row.aliases)}
    if not locked:
        return
    moving = [
        node.path
        for node in nodes(model)
        if isinstance(node.module, _BatchNorm)
        and node.module.track_running_stats
        and (names := _deciding(node, rows))
        and names <= locked
    ]
    if moving:
        yield note(
            "running-statistics",
            dict.fromkeys(moving),
            cause="locked BatchNorm layers still update their running statistics in train mode, "
            "so the layers under them change what they compute",
            fix="If they must stay as they are, after each model.train(): "
            f"[model.get_submodule(name).eval() for name in {list(dict.fromkeys(moving))}]",
        )


def _deciding(node: Node, rows: Sequence[PlanRow]) -> set[str]:
    """The parameters that decide whether a BatchNorm is locked: its own, else its parent's."""
    prefix = f"{node.path}." if node.path else ""
    params = {prefix + key for key, tensor in node.module._parameters.items() if tensor is not None}
    if params or node.parent is None:
        return params
    around = f"{node.parent.path}." if node.parent.path else ""
    return {row.name for row in rows if row.name.startswith(around)}


def without_parameters(rows: Iterable[PlanRow], bases: Bases) -> Iterator[Finding]:
    """Algorithms with base rates that train nothing in this model."""
    routed = {row.algorithm for row in rows if row.trainable}
    for name in bases.algorithms:
        if name not in routed:
            yield note(
                "algorithm-without-parameters",
                names=(),
                cause=f"the algorithm {name!r} has base rates, and trains no parameter",
                fix="If one recipe serves several models, leave it. Else correct the routing, or "
                f"leave {name!r} out of lr and weight_decay.",
            )
