"""What stands for the note of a group that has none: torch's, and those of version 0.1.

Rates start where a scheduler noted it, or at the base that version 0.1 added to what it saved;
multipliers are taken as they are. Of everything else nothing is known, so that it is as if
training had moved it: the checkpoint's value counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nnlr._schedule.origin import (
    MULTIPLIERS,
    ORIGIN,
    Bases,
    as_built,
    bases_of,
    number,
    plain,
    starts,
)
from nnlr.checkpoint._sides import NOTE, Group

# Multipliers that others than nnlr keep in groups (timm, DINOv2): they are the code's.
_SCALES: Final = ("lr_scale", "lr_multiplier", "wd_multiplier")


def origins_of_code(groups: Sequence[Group]) -> list[Group]:
    """Return the settings of the code's groups as they were built."""
    bases = bases_of(group.get(ORIGIN, {}) for group in groups)
    return [group.get(ORIGIN) or as_built(group) | starts(group, bases) for group in groups]


def origins(groups: Sequence[Group]) -> list[Mapping[str, Any]]:
    """Return the settings of saved groups as they were built, as far as known."""
    bases = bases_of(group.get(ORIGIN, {}) for group in groups)
    for group in groups:  # version 0.1 noted the base itself
        noted = {key: number(group.get(NOTE) or {}, key) for key in MULTIPLIERS}
        bases |= {(None, key): base for key, base in noted.items() if base is not None}
    return [group.get(ORIGIN) or _assumed(group, bases) for group in groups]


def _assumed(group: Group, bases: Bases) -> dict[str, Any]:
    """Return what is known of the start of a saved group without a note."""
    unmoved = {key: plain(group[key]) for key in _SCALES if key in group}
    for mult in MULTIPLIERS.values():
        if mult in group:
            # Version 0.1 asked schemes to name multipliers that move.
            unmoved[mult] = None if mult in group.get("moving", ()) else plain(group[mult])
    for key in ("momentum", "betas"):
        if key in group and ("max_momentum" in group or group.get(f"cycles_{key}")):
            unmoved[key] = None  # a scheduler cycles it, and it started elsewhere
    return unmoved | starts(group, bases)
