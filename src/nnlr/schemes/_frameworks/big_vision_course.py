"""big_vision's learning rate schedules, as functions of the step.

    s(t) = mult * shape(t) * min(1, t / warmup) * min(1, (total - t) / cooldown)

with progress p(t) from the end of the warm-up to the last step, ``shape`` is

    cosine   (1 + cos(pi p)) / 2            linear, polynomial   e + (1 - e) (1 - p)^power
    rsqrt    1 / sqrt(1 + (t + shift - warmup) / timescale)      stair   mults, from steps on

where ``e = end / mult``: ends are absolute. After ``create_learning_rate_schedule`` of
``big_vision/utils.py`` (Beyer, Zhai, Kolesnikov 2022).
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nnlr._arguments import choice, flag, is_listing, number
from nnlr._text import shown
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import Watch, mapping

SHAPES: Final = ("stair", "linear", "polynomial", "cosine", "rsqrt")

# How a duration may be written.
_UNITS: Final = ("steps", "examples", "epochs", "percent")

_DURATIONS: Final = tuple(f"{phase}_{unit}" for phase in ("warmup", "cooldown") for unit in _UNITS)

_NUMBERS: Final = ("power", "end", "linear_end", "timescale", "timescale_examples", "shift")

_KEYS: Final = (
    *("decay_type", "mult", "scale_with_batchsize", "steps", "mults"),
    *_DURATIONS,
    *_NUMBERS,
)


def as_schedule(value: object, watch: Watch) -> dict[str, Any] | None:
    """A schedule of a configuration, checked; ``None`` freezes."""
    if value is None:
        return None
    schedule = mapping(value, "a schedule")
    if strays := {"base", "total_steps", "batch_size", "data_size"} & schedule.keys():
        stray = min(strays)
        fix = "Write mult." if stray == "base" else f"Pass it later: courses({stray}=...)."
        raise ConfigError(f"a schedule has no {stray!r}. {fix}", key=stray)
    for key in watch.misspelt_keys(schedule, _KEYS, "a schedule"):
        del schedule[key]
    # big_vision has the value None for what is not set.
    schedule = {key: item for key, item in schedule.items() if item is not None}
    choice(schedule.get("decay_type", "stair"), "decay_type of a schedule", SHAPES)
    number(schedule.get("mult", 1.0), "mult of a schedule", above=0)
    flag(schedule.get("scale_with_batchsize", False), "scale_with_batchsize of a schedule")
    for key in schedule.keys() & {*_DURATIONS, *_NUMBERS}:
        above = 0 if "timescale" in key else None
        most = 1 if "percent" in key else math.inf
        number(schedule[key], f"{key} of a schedule", above=above, maximum=most)
    for phase in ("warmup", "cooldown"):
        units = [key for key in _DURATIONS if key in schedule and key.startswith(phase)]
        if len(units) > 1:
            raise ConfigError(f"a schedule has {units[0]} and {units[1]}: drop one of them.")
    lists = [schedule.get(key, ()) for key in ("steps", "mults")]
    if not all(map(is_listing, lists)) or len(list(lists[0])) != len(list(lists[1])):
        raise ConfigError(
            "steps and mults of a schedule must be lists of equal length, got "
            f"{shown(lists[0])} and {shown(lists[1])}."
        )
    steps = [number(step, "each of steps of a schedule") for step in lists[0]]
    for mult in lists[1]:
        number(mult, "each of mults of a schedule")
    if steps != sorted(steps):
        raise ConfigError(f"steps of a schedule must rise, got {shown(steps)}.", key="steps")
    return schedule


def ends_above_zero(schedule: Mapping[str, Any]) -> bool:
    """Whether a schedule ends at an absolute value, whatever its ``mult``."""
    is_linear = schedule.get("decay_type") in {"linear", "polynomial"}
    return is_linear and bool(schedule.get("end", schedule.get("linear_end", 0)))


@dataclass(frozen=True)
class Course:
    """A schedule relative to its ``mult``: a function from a step to a factor on the rate."""

    shape: str
    total: int  # steps
    warmup: float
    cooldown: float
    scale: float  # factor on the whole, by the batch
    power: float
    end: float  # relative to mult
    timescale: float
    shift: float
    steps: tuple[float, ...]
    mults: tuple[float, ...]

    def __call__(self, step: float) -> float:
        """The factor at a step, from 0."""
        factor = self.scale * self._at(step)
        if self.warmup:
            factor *= min(1.0, step / self.warmup)
        if self.cooldown:
            factor *= max(0.0, min(1.0, (self.total - step) / self.cooldown))
        return factor

    def _at(self, step: float) -> float:
        """The factor without warm-up and cool-down."""
        progress = min(max((step - self.warmup) / max(self.total - self.warmup, 1.0), 0.0), 1.0)
        if self.shape in {"linear", "polynomial"}:
            # An end counts after the scale: it is absolute.
            end = self.end / self.scale
            return float(end + (1.0 - end) * (1.0 - progress) ** self.power)
        if self.shape == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        if self.shape == "rsqrt":
            after = max(step - self.warmup, 0.0)
            return 1.0 / math.sqrt(1.0 + (after + self.shift) / self.timescale)
        return (1.0, *self.mults)[bisect_left(self.steps, step + 1)]


def course_of(
    schedule: Mapping[str, Any],
    *,
    total_steps: int,
    batch_size: int | None,
    data_size: int | None,
) -> Course:
    """The course of a checked schedule in a run of so many steps.

    Examples:
        >>> course = course_of(
        ...     {"decay_type": "linear", "warmup_percent": 0.2, "linear_end": 0.5},
        ...     total_steps=10, batch_size=None, data_size=None,
        ... )
        >>> [course(step) for step in (0, 1, 2, 6, 10)]
        [0.0, 0.5, 1.0, 0.75, 0.5]
    """
    sizes = {"batch_size": batch_size, "data_size": data_size}

    def size(name: str, key: str) -> int:
        if (value := sizes[name]) is None:
            raise ConfigError(f"{key} needs the {name}: pass courses({name}=...).", key=key)
        return value

    def duration(phase: str) -> float:
        for unit in _UNITS:
            key = f"{phase}_{unit}"
            if key not in schedule:
                continue
            value = float(schedule[key])
            if unit == "steps":
                return value
            if unit == "percent":
                return _at_least_one(value * total_steps)
            batches = 1 / size("batch_size", key)
            if unit == "epochs":
                batches = size("data_size", key) / size("batch_size", key)
            return _at_least_one(value * batches)
        return 0

    warmup = duration("warmup")
    if total_steps > 1 and warmup >= total_steps:
        raise ConfigError(
            f"a warm-up of {warmup:g} steps is no shorter than the {total_steps} of the run."
        )
    mult = schedule.get("mult", 1.0)
    timescale = schedule.get("timescale", 10_000)
    if "timescale_examples" in schedule:
        key = "timescale_examples"
        timescale = schedule[key] / size("batch_size", key)
    by_batch = schedule.get("scale_with_batchsize", False)
    return Course(
        shape=schedule.get("decay_type", "stair"),
        total=total_steps,
        warmup=warmup,
        cooldown=duration("cooldown"),
        scale=size("batch_size", "scale_with_batchsize") / 256 if by_batch else 1.0,
        power=schedule.get("power", 1),
        end=schedule.get("end", schedule.get("linear_end", 0)) / mult,
        timescale=timescale,
        shift=schedule.get("shift", 0),
        steps=tuple(schedule.get("steps", ())),
        mults=tuple(schedule.get("mults", ())),
    )


def _at_least_one(steps: float) -> int:
    """A number of steps, rounded; what is not 0 is at least one step."""
    return max(1, round(steps)) if steps else 0
