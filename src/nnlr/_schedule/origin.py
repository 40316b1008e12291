"""The settings of a group as the code built them, noted in the group under ``origin``.

Training moves some settings: a schedule the rate and perhaps betas or momentum, an optimizer
its counters, a hand anything. What differs from the note has been moved since. A new schedule
starts from the note, and a resumed run continues what had moved and takes the rest from the code.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final

from torch import Tensor

from nnlr._schedule.progress import peak
from nnlr.optim._members import ALGORITHM

ORIGIN: Final = "origin"

# The settings that can be scheduled, and the groups' keys for their multipliers.
MULTIPLIERS: Final = {"lr": "lr_mult", "weight_decay": "wd_mult"}

# They say which parameters a group holds, not how these are trained.
_OF_THE_GROUP: Final = {"params", "param_names", "name", ORIGIN}

PLAIN: Final = (bool, int, float, str, type(None))


def as_built(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain settings of a group as copies: numbers for tensors, never the tensors."""
    settings = {key: plain(value) for key, value in group.items() if key not in _OF_THE_GROUP}
    return {
        key: value
        for key, value in settings.items()
        if isinstance(value, PLAIN)
        or (isinstance(value, tuple | list) and all(isinstance(part, PLAIN) for part in value))
    }


def note_origin(groups: Sequence[MutableMapping[str, Any]]) -> None:
    """Note the settings of groups that have no note yet.

    Rates that a schedule moves already are noted as where they started.
    """
    bases = bases_of(group[ORIGIN] for group in groups if ORIGIN in group)
    for group in groups:
        if ORIGIN not in group:
            group[ORIGIN] = as_built(group) | starts(group, bases)


# Base rates, by algorithm (``None`` where there is one) and key.
Bases = dict[tuple[str | None, str], float]


def bases_of(origins: Iterable[Mapping[str, Any]]) -> Bases:
    """Return the base rates of noted groups that have multipliers."""
    bases: Bases = {}
    for origin in origins:
        for key, mult in MULTIPLIERS.items():
            start, factor = number(origin, key), number(origin, mult)
            if factor and start is not None:
                bases.setdefault((origin.get(ALGORITHM), key), start / factor)
    return bases


def starts(
    group: Mapping[str, Any], bases: Mapping[tuple[str | None, str], float]
) -> dict[str, float]:
    """Return where the rates of a group started: where a scheduler noted it, or at a base.

    A group that was added later goes by the base of the others; else the rate is as it started.
    """
    rates: dict[str, float] = {}
    for key, mult in MULTIPLIERS.items():
        if number(group, key) is None:
            continue
        noted = peak(group) if key == "lr" else number(group, f"initial_{key}")
        factor = number(group, mult)
        base = bases.get((group.get(ALGORITHM), key))
        if noted is None and base is not None and factor is not None:
            noted = base * factor
        rates[key] = plain(group[key]) if noted is None else noted
    return rates


def number(group: Mapping[str, Any], key: str) -> float | None:
    """Return a rate or multiplier as a float; ``None`` where a group has none."""
    value = group.get(key)
    return None if value is None else float(value)


def plain(value: object) -> Any:  # noqa: ANN401 - a setting's value
    """Return a small tensor, or the tensors in a tuple, as numbers; another value as it is."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value))
    return value.tolist() if isinstance(value, Tensor) and value.numel() == 1 else value
