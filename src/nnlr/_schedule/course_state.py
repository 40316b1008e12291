"""Whether a saved state is of a schedule, whole, and of values that training makes."""

from collections.abc import Mapping
from math import isfinite, isnan
from numbers import Real
from typing import Any, Final

from torch import Tensor

from nnlr._arguments import number
from nnlr._schedule.base_rate import EVERY_GROUP, Share, as_float
from nnlr._schedule.course import Course
from nnlr._schedule.identity import name_of
from nnlr._schedule.origin import plain
from nnlr._text import listed, shown
from nnlr.errors import ConfigError, NnlrError

# The keys of a course's state that version 0.1 saved as well.
_OF_0_1: Final = ("scheduler", "group", "base", "scale")

# What every scheduler of torch counts.
_COUNTERS: Final = {"last_epoch", "_step_count"}


def states_of_courses(
    shares: Mapping[str, Share], state_dict: object
) -> list[tuple[str, Course, dict[str, Any]]]:
    """Return the state of each course; refuse a state that does not fit."""
    if not isinstance(state_dict, Mapping) or shares.keys() != state_dict.keys():
        keys, fix = shown(state_dict), ""
        if isinstance(state_dict, Mapping):
            keys = f"[{listed(sorted(map(shown, state_dict)))}]"
            if type(steps := state_dict.get("last_epoch")) is int:
                at = f"schedule(..., last_epoch={steps - 1})"
                fix = f" To start where this plain scheduler stood build it by {at}."
            elif "weight_decay" in state_dict.keys() ^ shares.keys():
                fix = " Build both with weight_decay=, or both without."
        raise not_its_state(f"it needs {sorted(shares)}, got {keys}.{fix}")
    states = []
    for key, share in shares.items():
        state = state_dict[key]
        if share.is_for_all:
            state = {EVERY_GROUP: state}
        if not isinstance(state, Mapping) or list(state) != list(share.courses):
            got = list(state) if isinstance(state, Mapping) else shown(state)
            patterns = list(share.courses)
            raise not_its_state(f"its courses are for {patterns}, got {got}. Use the same keys")
        for pattern, course in share.courses.items():
            if (course is None) != (state[pattern] is None):
                raise not_its_state(f"one of both has no scheduler at {pattern!r}")
            if course is not None:
                try:
                    _refuse_foreign(course, state[pattern])
                    rates_in(state[pattern])
                except NnlrError as error:
                    raise not_its_state(error) from None
                states.append((key, course, state[pattern]))
    return states


def not_its_state(reason: object) -> ConfigError:
    """Return the error of a state that is not loaded."""
    whole = "This is not the state of such a schedule, or not all of it"
    return ConfigError(f"{whole}: {str(reason).rstrip('.')}. The schedule is as it was.")


def rates_in(state: Mapping[str, Any]) -> tuple[dict[str | None, float], float]:
    """Return the base rates of a state by algorithm, and the factor that was set by hand.

    That on which the scheduler worked is under ``None``.
    """
    base, scale = (number(plain(state[key]), key) for key in ("base", "scale"))
    if "name" not in state and state.get("default"):  # version 0.1 scaled for both reasons
        scale *= base / as_float(state["default"])
        base = as_float(state["default"])
    several = state.get("bases") or {}
    if not isinstance(several, Mapping):
        raise ConfigError(f"'bases' is {shown(several)}, not a dictionary")
    own = {name: number(value, f"the base of {name!r}") for name, value in several.items()}
    return {None: base, **own}, scale


def _refuse_foreign(course: Course, state: object) -> None:
    """Raise if this is not the state of such a course, or not all of it."""
    if not isinstance(state, Mapping):
        raise ConfigError(f"it is {shown(state)}, not a dictionary")
    _refuse_torn(state)
    name, present = name_of(course.scheduler), course.scheduler.state_dict()
    if (saved := state.get("name", name)) != name:
        raise ConfigError(
            f"it is of {saved!r:.200}, and this is {name!r}. If only the name has changed, "
            f"write it into the state: 'name': {name!r}"
        )
    if "name" not in state:  # version 0.1: what can be seen
        if lacking := sorted(_public(present) - _public(state["scheduler"])):
            raise ConfigError(f"{lacking[0]!r} is missing: it is of another scheduler, or torn")
    else:
        _refuse_values(state)
        if wrong := _unlike(course.group, state["group"], "group"):
            raise ConfigError(f"{wrong}, which no training makes")
    if wrong := _unlike(present, state["scheduler"], "scheduler"):
        raise ConfigError(f"{wrong}, which no training makes")


def _refuse_torn(state: Mapping[str, Any]) -> None:
    """Raise if a key is missing, by the state's own inventory."""
    keys = state.get("keys")
    if isinstance(keys, list | tuple):
        if any(not isinstance(key, str) for key in keys):
            raise ConfigError(f"its 'keys' hold something else than names: {shown(keys)}")
        present = inventory({key: value for key, value in state.items() if key != "keys"})
        lacking = sorted({*keys} ^ {*present})
    else:  # version 0.1, or torn
        lacking = [key for key in _OF_0_1 if key not in state]
        lacking += ["keys"] if "name" in state else []
    if lacking:
        raise ConfigError(f"{listed(map(repr, lacking), 3)} is missing: it is torn")


def _refuse_values(state: Mapping[str, Any]) -> None:
    """Raise for values of a course's own that no training makes."""
    steps, begun, group = state["steps"], state["begun"], state["group"]
    if steps is not None and (type(steps) is not int or steps < 0):
        raise ConfigError(f"'steps' is {shown(steps)}, no number of steps")
    if type(begun) is not bool:
        raise ConfigError(f"'begun' is {shown(begun)}, not True or False")
    for key in ("start", "unit"):
        number(state[key], f"{key!r}")
    for key in ("group", "settings"):
        if not isinstance(state[key], Mapping):
            raise ConfigError(f"{key!r} is {shown(state[key])}, not a dictionary")
    for key, value in group.items():
        if type(value) is float and not isfinite(value):
            raise ConfigError(f"{key!r} of the group is {value:g}")


def _unlike(present: Any, saved: Any, path: str) -> str | None:  # noqa: ANN401 - any state
    """Return what is wrong with a value of a scheduler's state, compared with one of its own."""
    if isinstance(present, Mapping):
        if not isinstance(saved, Mapping):
            return f"{path} is {shown(saved)}"
        inside = [
            _unlike(present[key], saved[key], f"{path}.{key}") for key in present if key in saved
        ]
        return next(filter(None, inside), None)
    if isinstance(present, list | tuple):
        if not isinstance(saved, list | tuple) or (present and not saved):
            return f"{path} is {shown(saved)}"
        pairs = enumerate(zip(present, saved, strict=False))
        return next(filter(None, (_unlike(*both, f"{path}.{at}") for at, both in pairs)), None)
    if path.rpartition(".")[2] in _COUNTERS:
        fits = isinstance(saved, int) and saved >= -1
    elif isinstance(present, Real):
        real = isinstance(saved, Real) or (isinstance(saved, Tensor) and saved.numel() == 1)
        fits = real and (not isnan(saved) or isnan(present))
    else:
        fits = isinstance(saved, str) or not isinstance(present, str)
    return None if fits else f"{path} is {shown(saved)}"


def _public(state: object) -> set[str]:
    """Return the keys of a scheduler's state that mean something to users, at every level."""
    paths = inventory(state)
    return {path for path in paths if not path.rpartition(".")[2].startswith("_")}


def inventory(state: object, path: str = "") -> list[str]:
    """Return the paths of all keys in nested dictionaries and lists.

    Examples:
        >>> inventory({"a": 1, "b": [{"c": 2}]})
        ['a', 'b', 'b.0.c']
    """
    paths: list[str] = []
    if isinstance(state, Mapping):
        for key, value in state.items():
            paths += [f"{path}{key}", *inventory(value, f"{path}{key}.")]
    elif isinstance(state, list | tuple):
        for position, value in enumerate(state):
            paths += inventory(value, f"{path}{position}.")
    return paths
