"""A course: one scheduler on a proxy of its own, an optimizer with one group.

The scheduler moves the rate of the proxy. Nothing of it reaches the real optimizer from here;
``base_rate`` writes the rates of courses into the groups.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from inspect import signature
from math import isfinite
from typing import Any, Final, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnlr._schedule.identity import Attributes, entries, name_of, objects, other_python, same
from nnlr._text import shown
from nnlr.errors import ConfigError, NnlrError

Factory = Callable[..., LRScheduler]

_Recipe = tuple[Factory, dict[str, Any], dict[str, Any]]

# Settings that a scheduler may cycle beside the rate; of betas the first is meant.
CYCLED: Final = ("momentum", "betas")

# What to write for a function of the step, which is not one of an optimizer.
_OF_STEPS: Final = (
    " A function of the step is for torch's LambdaLR, as factors of the base rate: "
    "functools.partial(LambdaLR, lr_lambda=function)."
)

# A rate that is negative by less, relative to where its course starts, is 0 but for round-off.
_ROUND_OFF: Final = 1e-6


class Proxy(Optimizer):
    """An optimizer for schedulers only: it has one group, and its steps do nothing."""

    # Stops torch's warning about the order of steps: the real optimizer is watched instead.
    _opt_called = True

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Do nothing."""

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


# What a course, the proxy's group and the scheduler hold at one moment, in this order.
Moment = list[Attributes]


class Course:
    """A scheduler, the proxy that it moves, and how far it has come."""

    def __init__(
        self,
        factory: Factory,
        kwargs: Mapping[str, Any],
        defaults: Mapping[str, Any],
        start: float,
        *,
        what: str,
        waits: bool = False,
    ) -> None:
        self.what = what  # the setting that it moves, in messages
        self.unit = start  # the base rate on which the proxy's rate is based
        self.begun = not waits  # a course after another one begins at its first step
        # It is built again when it begins, from the rate that stands then.
        self._recipe = (factory, dict(kwargs), dict(defaults)) if waits else None
        self.start = start
        self._build(factory, kwargs, defaults)

    def _build(
        self, factory: Factory, kwargs: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> None:
        """Have the scheduler built on a new proxy at ``start``."""
        factory, kwargs = _apart(factory, kwargs)
        steps = _steps_before(kwargs)
        proxy = Proxy([torch.zeros(0)], {**defaults, "lr": self.start})
        self.proxy, self.scheduler = proxy, built(factory, proxy, kwargs)
        first = next(iter(signature(self.scheduler.step).parameters.values()), None)
        self.takes_metric = (
            first is not None
            and first.default is first.empty
            and first.kind is not first.VAR_POSITIONAL
        )
        self._objects = list(objects(self.scheduler))
        self.steps: int | None = 0  # None where it was sent to positions of the caller's
        self.cycled: tuple[str, ...] = ()  # settings that it has cycled
        self._see_cycles()
        self._check()
        settings = entries(self.scheduler, self.group, self.proxy.defaults)
        # The base rate then is among them: a state that is loaded may be of another.
        self.settings = {"unit": self.unit, **{entry.label: entry.value for entry in settings}}
        self._as_built = self.moment()
        if steps:
            if self.takes_metric:
                raise ConfigError(
                    f"{type(self.scheduler).__name__} follows a metric: last_epoch does not say "
                    "where it stands. Load the state that it saved: load_state_dict.",
                    argument="last_epoch",
                )
            self._replay(steps)

    @property
    def group(self) -> Attributes:
        """The group of the proxy."""
        return self.proxy.param_groups[0]

    @property
    def rate(self) -> float:
        """The rate of the proxy; what is below 0 by round-off is 0."""
        return max(float(self.group["lr"]), 0.0)

    def cycle(self) -> dict[str, Any]:
        """Return the momentum, or first beta, that it cycles, by each key that is to have it.

        Where classes are scheduled of which one has momentum and another betas, it has one key.
        """
        return {
            key: first_of(self.group[own])
            for own in self.cycled
            for key in CYCLED
            if key == own or key not in self.proxy.defaults
        }

    def begin(self, start: float, unit: float) -> None:
        """Begin after another course, from the rate that stands now."""
        self.start, self.unit, self.begun = start, unit, True
        self._build(*cast(_Recipe, self._recipe))

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Step the scheduler, and refuse a rate that no training can use."""
        self.advance(self.scheduler.step, *args, **kwargs)

    def advance(self, step: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Step the scheduler by one of its methods."""
        step(*args, **kwargs)
        self.steps = None if args or kwargs or self.steps is None else self.steps + 1
        self._see_cycles()
        self._check()

    def moment(self) -> Moment:
        """Return what has to be put back to undo steps and loads."""
        return [holder.copy() for holder in self._holders()]

    def put_back(self, moment: Moment) -> None:
        """Return to a moment."""
        as_built = self._as_built
        for holder, attributes in zip(self._holders(moment[0]), moment, strict=True):
            holder.clear()
            holder.update(attributes)
        self._as_built = as_built if moment is as_built else moment[0]["_as_built"]

    def _holders(self, attributes: Attributes | None = None) -> list[Attributes]:
        """Return the dictionaries that steps and loads may change."""
        attributes = vars(self) if attributes is None else attributes
        group = attributes["proxy"].param_groups[0]
        return [vars(self), group, *map(vars, attributes["_objects"])]

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as plain values, with an inventory of its keys."""
        unchanged = ("params", *self.proxy.defaults.keys() - {"lr", *self.cycled})
        state: dict[str, Any] = {
            "name": name_of(self.scheduler),
            "settings": dict(self.settings),
            "scheduler": self.scheduler.state_dict(),
            "group": {key: value for key, value in self.group.items() if key not in unchanged},
            "steps": self.steps,
            "start": self.start,
            "unit": self.unit,
            "begun": self.begun,
        }
        return state

    def load(
        self, state: Mapping[str, Any], *, by_code: bool, base_differs: bool
    ) -> dict[str, tuple[Any, Any]]:
        """Continue where a state was taken, and return the settings that differ.

        ``by_code``: the settings of the code count, at the position of the state. A course that
        counts steps is then run again up to there; of one that follows a metric the settings
        are put back. Else, and where nothing differs, all is as in the state.
        """
        begun, steps = bool(state.get("begun", True)), state.get("steps")
        if self._recipe is not None and begun:
            self.begin(float(state["start"]), float(state["unit"]))
        elif self._recipe is not None and self.begun:
            self.begin(self.unit, self.unit)  # it has begun here, and had not begun there
        changes = self._changes(state)
        if by_code and (changes or base_differs) and steps is not None and not self.takes_metric:
            self.put_back(self._as_built)
            self._replay(steps)
        else:
            self.scheduler.load_state_dict(deepcopy(state["scheduler"]))
            defaults = {key: self.proxy.defaults[key] for key in self.cycled}
            self.group.update({**defaults, **state["group"]})
            self.cycled = tuple(key for key in CYCLED if key in state["group"])
            unit, saved_unit = self.unit, float(state.get("unit", state["base"]))
            self.unit, self.start = saved_unit, float(state.get("start", saved_unit))
            self.steps = steps
            if by_code and (changes or base_differs):
                self._take_own(state)
                # The rate is where it was, relative to the base; floors are the code's.
                self.group["lr"] *= unit / saved_unit
                self.unit, self.start = unit, self.start * unit / saved_unit
            self._check()
        self.begun = begun
        return changes

    def _changes(self, state: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return the settings that differ: in the state, and in the code."""
        saved = state.get("settings")
        if not saved or not self.settings:  # of version 0.1
            return {}
        units = (float(saved.get("unit") or 1.0), float(self.settings["unit"] or 1.0))
        pairs = {
            label: (saved.get(label), self.settings.get(label))
            for label in dict.fromkeys([*saved, *self.settings])
        }
        return {
            label: pair
            for label, pair in pairs.items()
            if not same(*pair, units=units) and not other_python(*pair)
        }

    def _take_own(self, state: Mapping[str, Any]) -> None:
        """Put settings that a state has otherwise back as they were built, but for the rate."""
        saved = state.get("settings") or self.settings  # version 0.1 saved none
        built_with = dict(zip(map(id, self._holders()), self._as_built, strict=True))
        for label, _, holder, key in entries(self.scheduler, self.group, self.proxy.defaults):
            differs = saved.get(label) != self.settings.get(label)
            if differs and holder is not None and key not in {"lr", "_last_lr"}:
                holder[key] = built_with[id(holder)][key]

    def of_0_1(self) -> tuple[Any, "Course"]:
        """Return the base rate and the course of what version 0.1 pickled as a curve."""
        old = dict(vars(self))
        rate = old.pop("rate")
        vars(self).clear()
        vars(self).update(old, what=rate.key, unit=rate.base, start=rate.base, begun=True)
        self._recipe, self.proxy = None, cast(Proxy, self.scheduler.optimizer)
        self._objects, self.steps = list(objects(self.scheduler)), None
        self.cycled, self.settings = (), {}
        self._see_cycles()
        self._as_built = self.moment()
        return rate, self

    def _replay(self, steps: int) -> None:
        """Take so many steps from the beginning."""
        try:
            for _ in range(steps):
                self.step()
        except Exception as error:
            raise ConfigError(
                f"{type(self.scheduler).__name__} cannot be at step {steps}: {error}"
            ) from error

    def _see_cycles(self) -> None:
        """Note which settings the scheduler cycles; in the middle it cannot be seen."""
        group, defaults = self.group, self.proxy.defaults
        for key in CYCLED:
            moved = key in group and first_of(group[key]) != first_of(defaults[key])
            if moved and key not in self.cycled:
                self.cycled = (*self.cycled, key)

    def _check(self) -> None:
        """Refuse a rate that is NaN, infinite or negative by more than round-off."""
        rate = float(self.group["lr"])
        scale = max(abs(self.start), abs(self.unit))
        if not isfinite(rate) or rate < -_ROUND_OFF * scale:
            when = f"at its step {self.steps}" if self.steps else "as it was built"
            raise ConfigError(
                f"{type(self.scheduler).__name__} made the {self.what} {rate:g} {when}. It has to "
                "be finite and not negative; look at the arguments of the scheduler. The "
                "schedule and the groups are as they were.",
                rate=rate,
            )


def built(factory: Factory, proxy: Optimizer, kwargs: dict[str, Any]) -> LRScheduler:
    """Build the user's scheduler on the proxy, and check it."""
    for name, value in kwargs.items():
        if isinstance(value, list | tuple) and ("lr" in name or "momentum" in name):
            raise NnlrError(
                f"{name}={shown(value)} is a list with one entry for each group. The scheduler "
                "works on the base rate alone, and groups differ by their multipliers: pass "
                f"one value. To change a group's ratio set group['lr_mult'].",
                argument=name,
            )
    try:
        made = factory(proxy, **kwargs)
    except TypeError as error:
        if "Proxy" not in str(error):
            raise
        raise NnlrError(f"{shown(factory)} cannot take an optimizer.{_OF_STEPS}") from error
    except KeyError as error:  # torch, of a last_epoch inside the function
        if "initial_lr" not in str(error):
            raise
        raise ConfigError(
            "The scheduler is to start at a last_epoch of its own. Pass that to schedule, which "
            "runs the course up to there: schedule(optimizer, factory, last_epoch=...).",
            argument="last_epoch",
        ) from error
    if not isinstance(getattr(made, "optimizer", None), Optimizer) or not hasattr(made, "step"):
        fix = _OF_STEPS if isinstance(made, int | float) else ""
        raise NnlrError(f"{shown(factory)} returned {shown(made)}, which is no scheduler.{fix}")
    if hasattr(type(made), "set_base_lr"):
        raise NnlrError(
            f"{shown(factory)} returned {shown(made)}, which works on a base rate already. "
            f"Return the plain scheduler: {type(made.scheduler).__name__}(opt, ...)."  # type: ignore[attr-defined]
        )
    if made.optimizer is not proxy:
        raise NnlrError(
            f"{shown(factory)} scheduled another optimizer than the one it was called with. "
            "Use its argument: lambda opt: StepLR(opt, 10)."
        )
    return made


def _steps_before(kwargs: dict[str, Any]) -> int:
    """Take ``last_epoch`` out of the arguments, and return how many steps it stands for."""
    last_epoch = kwargs.pop("last_epoch", -1)
    if not isinstance(last_epoch, int) or isinstance(last_epoch, bool) or last_epoch < -1:
        raise NnlrError(
            f"last_epoch must be a whole number >= -1, got {shown(last_epoch)}: the number of "
            "steps that were taken, less one, as in torch.",
            argument="last_epoch",
        )
    return last_epoch + 1


def _apart(factory: Factory, kwargs: Mapping[str, Any]) -> tuple[Factory, dict[str, Any]]:
    """Take the arguments of a partial function out of it."""
    if isinstance(factory, partial) and not factory.args:
        return factory.func, {**factory.keywords, **kwargs}
    return factory, dict(kwargs)


def first_of(value: Any) -> Any:  # noqa: ANN401 - momentum or betas
    """Return momentum, or the first of the betas."""
    return value[0] if isinstance(value, (tuple, list)) else value
