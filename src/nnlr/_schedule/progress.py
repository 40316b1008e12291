"""How far a scheduler has moved the rates of groups, relative to their peak."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from nnlr._schedule.moved import MOVED

# What schedulers keep in a group in proportion to its learning rate.
SCHEDULED: Final = ("lr", "initial_lr", "max_lr", "min_lr")


def rises(group: Mapping[str, Any]) -> bool:
    """Whether a scheduler goes from a low rate, where it starts, to a peak, and noted that.

    A ``max_lr`` alone says nothing of a schedule: an optimizer may have one of its own (AdamC).
    """
    return "min_lr" in group or "max_momentum" in group


def peak(group: Mapping[str, Any]) -> float | None:
    """Return the learning rate that a scheduler's curve is relative to, if it noted one.

    One-cycle schedules note their peak; for the others it is where they started.
    """
    noted = (group.get("max_lr") if rises(group) else None) or group.get("initial_lr")
    return None if noted is None else float(noted)


def progress(groups: Iterable[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return how far a scheduler has moved the reference group, relative to its peak.

    The reference is the first group with a peak above 0, and with a multiplier that does not move
    if there is such a group. ``None`` if there is no note of a scheduler.
    """
    for group in sorted(groups, key=lambda group: MOVED in group):
        if high := peak(group):
            # An optimizer may use one of these keys for itself, and have None there.
            return {
                key: float(group[key]) / high for key in SCHEDULED if group.get(key) is not None
            }
    return None


def filled(value: float, like: object) -> float | Tensor:
    """Return a rate as a float, or as a new tensor if ``like`` is one."""
    if isinstance(like, Tensor):
        return torch.full_like(like.detach(), value)
    return float(value)
