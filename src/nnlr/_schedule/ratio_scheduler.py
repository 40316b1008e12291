"""The schedule that :func:`nnlr.schedule` makes: a scheduler, for any loop or trainer."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.hooks import RemovableHandle

from nnlr._arguments import number
from nnlr._schedule.base_rate import (
    EVERY_GROUP,
    BaseRate,
    Share,
    as_float,
    cycle,
    follow,
    put,
    runs_step_hooks,
    settle,
    undoing,
)
from nnlr._schedule.course import Course
from nnlr._schedule.course_state import inventory, not_its_state, rates_in, states_of_courses
from nnlr._schedule.start import GivenBack, note_groups
from nnlr._text import listed, warn
from nnlr.errors import ConfigError

# Schedulers of timm step after every update by this method, and after every epoch by step.
_ALSO_STEPS: Final = {"step_update"}


class _Ratios:
    """Base of both kinds of schedule: it steps courses and writes their rates into groups."""

    optimizer: Optimizer
    _rates: dict[str, BaseRate]  # what the groups follow, by key
    _shares: dict[str, Share]  # this schedule's courses
    _adopts: bool  # whether groups that are added later get multipliers
    _given_back: GivenBack | None = None  # what is said if the run is not a resumed one
    _warned: bool = False  # whether groups without a multiplier have been reported
    _stepped: bool  # whether the optimizer has taken a step
    _watching: RemovableHandle | None  # the hook that waits for it

    def __init__(
        self,
        optimizer: Optimizer,
        rates: dict[str, BaseRate],
        shares: dict[str, Share],
        *,
        adopts: bool,
        given_back: GivenBack | None,
    ) -> None:
        # Not super().__init__: it would step, and overwrite the groups' initial rates.
        self.__setstate__(
            {
                "optimizer": optimizer,
                "_rates": rates,
                "_shares": shares,
                "_adopts": adopts,
                "_stepped": False,
            }
        )
        self._given_back = given_back
        self._write()

    def __getstate__(self) -> dict[str, Any]:
        """Return all attributes except the hook in the optimizer, which cannot be copied."""
        state = dict(self.__dict__)
        del state["_watching"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes, of a new schedule too, and hook into the optimizer."""
        if "_curves" in state:
            state = _of_0_1(state)
        self.__dict__.update(state, _watching=None)
        if not self._over():
            follow(self.optimizer, self._rates)
        if not runs_step_hooks(self.optimizer):
            self._stepped = True  # unknown of a wrapper without hooks: no warning
            return
        this = weakref.ref(self)  # the optimizer must not keep its scheduler alive

        def stepped(*_: object) -> None:
            if (scheduler := this()) is not None:
                scheduler._stepped = True

        self._watching = self.optimizer.register_step_post_hook(stepped)

    @property
    def scheduler(self) -> LRScheduler:
        """The user's scheduler, the first of several; it works on the base rate."""
        return self._shares["lr"].each[0].scheduler

    @property
    def base_lr(self) -> float:
        """The base learning rate now; of a schedule by groups, that of groups without a name."""
        return self._rates["lr"].value()

    def set_base_lr(self, lr: float) -> None:
        """Scale the whole curve so that it starts at another base rate, from now on.

        Args:
            lr: New base learning rate, finite, > 0.

        Raises:
            ConfigError: If another schedule has taken the place of this one.
        """
        self._refuse_to_go_on()
        rate = self._rates["lr"]
        rate.scale = number(lr, "lr", above=0) / (rate.base or 1.0)
        self._write()

    @property  # read at every call: groups may have been added, merged or loaded
    def base_lrs(self) -> list[float]:
        """The rates of the groups at the start of the schedule; others as they are."""
        rate = self._rates["lr"]
        return [
            rate.base_of(group) * rate.scale * group["lr_mult"]
            if "lr_mult" in group
            else as_float(group["lr"])
            for group in self.optimizer.param_groups
        ]

    def get_last_lr(self) -> list[float | Tensor]:
        """The learning rate of each group, as the optimizer will use it."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]

    get_lr = get_last_lr

    @property
    def _last_lr(self) -> list[float | Tensor]:
        return self.get_last_lr()

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Step the scheduler, then write the rates of all groups.

        Raises:
            ConfigError: If another schedule has taken the place of this one, or if a rate
                would be NaN, infinite or negative: nothing is changed then.
        """
        self._refuse_to_go_on()
        self._adopt()
        self._watch_order()
        if self._given_back is not None:
            warn(self._given_back.words)
            self._given_back = None
        metric = isinstance(self, ReduceLROnPlateau)

        def advance() -> None:
            for key, share in self._shares.items():
                for course in share.each:
                    if not course.begun:
                        self._rates[key].begin(course)
                    if course.takes_metric or (key == "lr" and not metric):
                        course.step(*args, **kwargs)
                    else:
                        course.step()

        self._change(advance)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, none per group: they fit after regrouping too."""
        return {key: self._state_of(key) for key in self._shares}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken, and write the rates of that moment.

        Positions, counters and what was set by hand are those of the state. Base rates and
        settings of the code count if the optimizer loads by name under the policy ``"code"``,
        as those of ``plan.optimizer`` do; else those of the state. Settings that differ are one
        warning.

        Raises:
            ConfigError: If it is the state of another scheduler, or not all of it, or a new
                schedule has replaced this one: nothing is changed then.
        """
        if any(rate.replaced_by is not None for rate in self._rates.values()):
            self._refuse_to_go_on()
        states = states_of_courses(self._shares, state_dict)
        # nnlr.checkpoint leaves a hook in the optimizer that says whose rates count.
        hooks = getattr(self.optimizer, "_optimizer_load_state_dict_pre_hooks", {}).values()
        by_code = any(getattr(hook, "policy", None) == "code" for hook in hooks)
        changes: dict[str, tuple[Any, Any]] = {}

        if self._given_back is not None:
            self._given_back.undo(self.optimizer)
            self._given_back = None

        def load() -> None:
            for key, course, state in states:
                rate = self._rates[key]
                bases, scale = rates_in(state)
                tells = "name" in state or state.get("default")
                saved = {name: bases.get(name, base) for name, base in rate.bases.items()}
                if not (by_code and tells):
                    rate.bases = saved
                rate.scale = scale
                differs = rate.bases != saved
                changes.update(course.load(state, by_code=by_code, base_differs=differs))

        cycled = {key for course in self._shares["lr"].each for key in course.cycle()}
        try:
            self._change(load)
        except Exception as error:
            raise not_its_state(error) from error
        settle(self.optimizer, self._rates["lr"], cycled)
        self._stepped = True
        if changes:
            _warn_about(changes, by_code=by_code)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the inner one has
        # Trainers read total_steps, _step_count, last_epoch and the like.
        if name.startswith("__") or "_shares" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        value = getattr(self.scheduler, name)
        if name not in _ALSO_STEPS:
            return value

        def step(*args: Any, **kwargs: Any) -> None:
            self._refuse_to_go_on()
            self._adopt()
            course = self._shares["lr"].each[0]
            self._change(lambda: course.advance(value, *args, **kwargs))

        return step

    def __setattr__(self, name: str, value: object) -> None:
        # Accelerate counts steps itself, and users set `patience`: the scheduler must see it.
        ours = name in self.__dict__ or hasattr(type(self), name)
        inner = not ours and hasattr(self.scheduler, name)
        object.__setattr__(self.scheduler if inner else self, name, value)

    def __repr__(self) -> str:
        return f"schedule({_kinds(self._shares['lr'])}, base_lr={self.base_lr:g})"

    def _watch_order(self) -> None:
        """Warn where the schedule is stepped before the optimizer."""
        if self._watching:
            self._watching.remove()  # not in the hook itself: torch iterates over hooks then
            self._watching = None
        if not self._stepped:
            self._stepped = True
            warn(
                "The scheduler was stepped before the optimizer, so the first rate is never "
                "used. Call optimizer.step() first. (If a gradient scaler skipped that step, "
                "all is well.)"
            )

    def _adopt(self) -> None:
        """Give groups that were added, or written into, the multipliers that they show."""
        if self._adopts:
            for rate in self._rates.values():
                rate.adopt(self.optimizer.param_groups)

    def _change(self, change: Callable[[], None]) -> None:
        """Change courses and write what is due now, or leave everything as it was."""
        courses = [course for share in self._shares.values() for course in share.each]
        undo = undoing(self._rates.values(), courses)
        try:
            change()
            self._write()
        except BaseException:
            undo()
            raise

    def _write(self) -> None:
        """Write the rates of all groups; warn once about groups without a multiplier."""
        groups, cycles = self.optimizer.param_groups, self._rates["lr"].cycles
        if cycles:
            note_groups(self.optimizer)
        due = {key: rate.rates(groups) for key, rate in self._rates.items()}
        for key, rate in self._rates.items():
            unmarked = len(groups) - len(due[key])
            if unmarked and not self._warned and not self._adopts:
                self._warned = True
                warn(
                    f"{unmarked} of {len(groups)} groups have no {rate.mult!r} and are not "
                    f"scheduled. Give them one: group[{rate.mult!r}] = 1.0. To have it told from "
                    "their rates: nnlr.schedule(..., adopt=True)."
                )
            put(key, due[key])
        if cycles:
            cycle(self.optimizer, self._rates["lr"].current)

    def _over(self) -> str | None:
        """The schedule that has taken the place of this one, in words."""
        for key, share in self._shares.items():
            rate = self._rates[key]
            if rate.replaced_by is not None:
                return f"was replaced by a later schedule, {rate.replaced_by}"
            if rate.now and rate.turn_of(share) < rate.now:
                return f"was followed by the schedule after it, {_kinds(rate.current[0])}"
        return None

    def _refuse_to_go_on(self) -> None:
        """Raise if another schedule has taken the place of this one."""
        if over := self._over():
            raise ConfigError(
                f"This schedule, {_kinds(self._shares['lr'])}, {over}. Use that one. A new "
                "schedule is a new course; to have both multiply, build it with beside=this "
                "one; to have it take over later, with after=this one; for a chain pass one "
                "function: lambda opt: SequentialLR(opt, [...], milestones=[...])."
            )

    def _state_of(self, key: str) -> dict[str, Any]:
        """Return the state of this schedule's courses for one key."""
        rate, share = self._rates[key], self._shares[key]
        bases: dict[str, Any] = {"base": rate.base, "scale": rate.scale}
        if len(rate.bases) > 1:
            bases["bases"] = rate.bases

        def state(course: Course | None) -> dict[str, Any] | None:
            if course is None:
                return None
            result = {**course.state_dict(), **bases}
            return {**result, "keys": inventory(result)}

        if share.is_for_all:
            return cast("dict[str, Any]", state(share.courses[EVERY_GROUP]))
        return {pattern: state(course) for pattern, course in share.courses.items()}


def _warn_about(changes: Mapping[str, tuple[Any, Any]], *, by_code: bool) -> None:
    """Warn once about settings that differ between a state and the code."""
    public = {
        label: pair
        for label, pair in changes.items()
        if not label.startswith("_") and label not in ("group: lr", "group: initial_lr")
    }
    lines = listed([f"{key} {old} -> {new}" for key, (old, new) in (public or changes).items()])
    counts = "of the code count, from the position of the state on"
    if not by_code:
        counts = "of the state count, as its optimizer is not loaded by the code's policy"
    warn(f"The schedule was saved with other settings, and those {counts}: {lines}.")


def _kinds(share: Share) -> str:
    """The classes of a share's schedulers."""
    return listed([type(course.scheduler).__name__ for course in share.each])


def _of_0_1(state: dict[str, Any]) -> dict[str, Any]:
    """Turn the attributes of a schedule that version 0.1 pickled into those of today."""
    state = dict(state)
    rates, shares = {}, {}
    for curve in state.pop("_curves"):
        rate, course = curve.of_0_1()
        rates[rate.key], shares[rate.key] = rate, Share({EVERY_GROUP: course})
        rate.turns = [[shares[rate.key]]]
    return {**state, "_rates": rates, "_shares": shares, "_adopts": False}


class RatioScheduler(_Ratios, LRScheduler):  # type: ignore[misc, override] # properties for attributes
    """A scheduler that keeps ratios; made by :func:`schedule`."""


class RatioPlateau(_Ratios, ReduceLROnPlateau):  # type: ignore[misc, override] # likewise
    """The same around a scheduler that takes a metric; made by :func:`schedule`."""
