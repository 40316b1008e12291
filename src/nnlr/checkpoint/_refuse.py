"""Refuse saved groups with values that no training can make, before anything is changed."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite, isnan
from typing import Any, Final

from torch import Tensor

from nnlr._schedule.moved import MOVED, fault
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN, number, plain
from nnlr._schedule.progress import SCHEDULED
from nnlr._text import shown
from nnlr.checkpoint._sides import NOTE, Group
from nnlr.errors import ConfigError

# Rates and multipliers: finite numbers of at least 0.
_RATES: Final = {*SCHEDULED, *MULTIPLIERS, *MULTIPLIERS.values(), "initial_weight_decay"}

# Other settings that are never negative.
_NOT_NEGATIVE: Final = {*_RATES, "momentum", "betas", "eps", "alpha", "rho"}


def refuse_malformed(state_dict: Mapping[str, Any]) -> None:
    """Refuse what is not built like an optimizer's state dict, by the place that is wrong."""
    groups, state = state_dict["param_groups"], state_dict["state"]
    if not isinstance(state, Mapping):
        raise _malformed("'state'", state, "a dictionary")
    if not isinstance(groups, list | tuple):
        raise _malformed("'param_groups'", groups, "a list of dictionaries")
    for position, group in enumerate(groups):
        place = f"param_groups[{position}]"
        if not isinstance(group, Mapping) or not all(isinstance(key, str) for key in group):
            raise _malformed(place, group, "a dictionary of settings")
        params, names = group.get("params"), group.get("param_names") or []
        if not isinstance(params, list | tuple) or not all(type(p) in {int, str} for p in params):
            raise _malformed(f"{place}['params']", params, "a list of positions or names")
        if not _are_names(names):
            raise _malformed(f"{place}['param_names']", names, "a list of names")
        note = {} if group.get(NOTE) is None else group[NOTE]
        texts = [note.get(key) or "" for key in _TEXTS] if isinstance(note, Mapping) else [None]
        if not _are_names(texts) or not _are_names(note.get("names", [])):
            raise _malformed(f"{place}[{NOTE!r}]", note, "what nnlr noted there")


# What nnlr notes in a group as text.
_TEXTS: Final = ("fitted", "classes", "schemes")


def _are_names(names: object) -> bool:
    """Whether something is a list of strings."""
    return isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)


def _malformed(place: str, value: object, need: str) -> ConfigError:
    """Return the error that names a place in a state dict."""
    return ConfigError(
        f"In the state dict of an optimizer {place} must be {need}, got {shown(value)}. It is "
        "damaged, or something else: pass what optimizer.state_dict() gave. Nothing was loaded.",
        place=place,
    )


def refuse_bad_values(groups: Sequence[Group], present: Sequence[Group]) -> None:
    """Refuse saved groups with rates or settings that are no result of training."""
    for position, group in enumerate(groups):
        origin = group.get(ORIGIN, {})
        if not isinstance(origin, Mapping):
            raise _error(group, position, ORIGIN, origin, "a dictionary of settings")
        moves = group.get(MOVED) is not None
        if moves and (need := fault(group[MOVED])) is not None:
            raise _error(group, position, MOVED, group[MOVED], need)
        for settings in (group, origin):
            for key, value in settings.items():
                if type(value) is float and 0 <= value < inf:
                    continue
                if key in _RATES and not _is_number(value):
                    raise _error(group, position, key, value, "a number")
                for part in _parts(key, value):
                    if not _is_finite(part) and not _is_odd(key, present):
                        raise _error(group, position, key, part, "finite")
                    if key in _NOT_NEGATIVE and isinstance(part, int | float) and part < 0:
                        raise _error(group, position, key, part, "at least 0")
                    if key == "betas" and (part is None or (isinstance(part, float) and part > 1)):
                        raise _error(group, position, key, part, "numbers from 0 to 1")
        for key in MULTIPLIERS if not moves else ():  # 0 is a multiplier as any other then
            _refuse_zero(group, position, groups, key)


def _refuse_zero(group: Group, position: int, groups: Sequence[Group], key: str) -> None:
    """Refuse a rate without its multiplier, or a 0 that no schedule made."""
    mult = MULTIPLIERS[key]
    rate, factor = number(group, key), number(group, mult)
    if factor == 0 and rate:
        raise _error(group, position, mult, 0.0, f"above 0, since {key} is {rate:g}")
    by_scheduler = f"initial_{key}" in group
    start = number(group.get(ORIGIN, {}), key)
    others = any(number(other, key) for other in groups)
    if rate == 0 and factor and others and start != 0 and not by_scheduler:
        if start is None and key == "weight_decay":
            return  # nothing says what it was
        why = f"above 0, since {mult} is {factor:g} and no scheduler was there"
        raise _error(group, position, key, 0.0, why)


def _parts(key: str, value: Any) -> list[Any]:  # noqa: ANN401 - a setting's value
    """The single values of a setting, those in a tuple or list one by one."""
    if key in {"params", "param_names"}:
        return []
    return [plain(part) for part in value] if isinstance(value, list | tuple) else [plain(value)]


def _is_odd(key: str, present: Sequence[Group]) -> bool:
    """Whether an optimizer has a setting that is infinite or NaN from the start."""
    values = (_parts(key, group[key]) for group in present if key in group)
    return not all(_is_finite(part) for parts in values for part in parts)


def _is_finite(value: object) -> bool:
    """Whether a value is no NaN and not infinite."""
    return not isinstance(value, float) or isfinite(value)


def _is_number(value: object) -> bool:
    """Whether a value is a number, a tensor of one, or ``None``."""
    if isinstance(value, Tensor):
        return value.numel() == 1
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _error(group: Group, position: int, key: str, value: Any, need: str) -> ConfigError:  # noqa: ANN401 - anything
    """Return the error that names a saved group and the key."""
    label = repr(group["name"]) if "name" in group else f"{position}"
    is_nan = isinstance(value, float) and isnan(value)
    return ConfigError(
        f"Group {label} of the checkpoint has {key}={'nan' if is_nan else shown(value)}, which "
        f"must be {need}. The checkpoint is damaged or was edited: load an earlier one, or put "
        "the value right in its 'param_groups'. Nothing was loaded.",
        key=key,
        group=group.get("name", position),
    )
