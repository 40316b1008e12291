"""From rows to parameter groups: merged, named, in an order that loggers can rely on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal

from nnlr._rows.row import PlanRow

Locked = Literal["drop", "keep"]

# Digits that numbers in group names start with; more are added until all differ.
_DIGITS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A parameter group as a plan sees it: names, not tensors.

    Attributes:
        name: Unique among the groups of a plan, such as ``"lr0.0751_wd0"``.
        lr: Learning rate.
        weight_decay: Weight decay.
        lr_mult: Learning rate relative to the base.
        wd_mult: Weight decay relative to the base.
        eps_mult: Factor on the optimizer's ``eps``.
        options: Other settings.
        tag: Name of the optimizer that should take it.
        names: Canonical names of its parameters, in model order.
        numel: Number of elements in all of them.
    """

    name: str
    lr: float
    weight_decay: float
    lr_mult: float
    wd_mult: float
    eps_mult: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    tag: str | None = None
    names: tuple[str, ...]
    numel: int


def make_groups(rows: Iterable[PlanRow], *, locked: Locked = "drop") -> tuple[Group, ...]:
    """Merge rows with equal settings into groups.

    The reference group comes first, because some trainers and optimizers read only that:
    ``lr_mult`` 1, else the largest; then ``wd_mult`` 1; then the most elements. A group kept
    at learning rate 0 comes last.
    """
    merged: dict[object, list[PlanRow]] = {}
    for row in rows:
        if row.trainable or (row.locked and locked == "keep"):
            merged.setdefault(_settings(row), []).append(row)
    unnamed = [_group(members) for members in merged.values()]
    unnamed.sort(key=_rank)
    return tuple(
        Group(**{**group, "name": name})
        for group, name in zip(unnamed, _names(unnamed), strict=True)
    )


def _settings(row: PlanRow) -> object:
    options = _hashable(tuple(sorted(row.options.items()))) if row.options else ()
    return row.lr, row.weight_decay, row.eps_mult, options, row.tag


def _hashable(value: object) -> object:
    # 1, 1.0 and True are equal but not the same setting of a group.
    if isinstance(value, tuple):
        return tuple(map(_hashable, value))
    return type(value).__name__, value


def _group(members: Sequence[PlanRow]) -> dict[str, Any]:
    first = members[0]
    return {
        "lr": first.lr,
        "weight_decay": first.weight_decay,
        "lr_mult": first.lr_mult,
        # With a base decay of 0, rows of any wd_mult are alike.
        "wd_mult": max(row.wd_mult for row in members),
        "eps_mult": first.eps_mult,
        "options": first.options,
        "tag": first.tag,
        "names": tuple(row.name for row in members),
        "numel": sum(row.numel for row in members),
    }


def _rank(group: Mapping[str, Any]) -> tuple[object, ...]:
    lr_mult, wd_mult = group["lr_mult"], group["wd_mult"]
    return (
        lr_mult != 1,
        -lr_mult,
        wd_mult != 1,
        -group["numel"],
        -wd_mult,
    )


def _names(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    lr_text = _short([group["lr_mult"] for group in groups])
    wd_text = _short([group["wd_mult"] for group in groups])
    names = [f"lr{lr_text[g['lr_mult']]}_wd{wd_text[g['wd_mult']]}" for g in groups]
    if len(set(names)) < len(names):
        names = [name + _suffix(group) for name, group in zip(names, groups, strict=True)]
    unique: dict[str, None] = {}
    for name in names:
        spellings = (name if n == 1 else f"{name}_{n}" for n in count(1))
        unique[next(text for text in spellings if text not in unique)] = None
    return list(unique)


def _suffix(group: Mapping[str, Any]) -> str:
    settings = dict(sorted(group["options"].items()))
    if group["eps_mult"] != 1:
        settings["epsx"] = group["eps_mult"]
    if group["tag"] is not None:
        settings["tag"] = group["tag"]
    return "".join(f"_{key}{_plain(value)}" for key, value in settings.items())


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(values: Sequence[float]) -> dict[float, str]:
    """The shortest texts that tell the values apart."""
    distinct = set(values)
    for digits in range(_DIGITS, 17):
        texts = {value: f"{value:.{digits}g}" for value in distinct}
        if len(set(texts.values())) == len(distinct):
            return texts
    return {value: f"{value:.17g}" for value in distinct}  # tells any two floats apart
