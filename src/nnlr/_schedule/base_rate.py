"""The base rate that schedulers change and that groups follow by their multipliers.

A scheduler works on a *proxy*, an optimizer with one group; the rate of that group, times its
multiplier, is written into each real group. Schedulers of one optimizer share the proxy, as
they would share the optimizer. Only torch is needed: this works with anyone's groups.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from math import isclose
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr.errors import ConfigError, NnlrError

Group = MutableMapping[str, Any]

# The settings that can be scheduled, and the groups' keys for their multipliers.
MULTIPLIERS: Final = {"lr": "lr_mult", "weight_decay": "wd_mult"}

# Settings that a scheduler may cycle beside the rate; of betas the first is meant.
_CYCLED: Final = ("momentum", "betas")


class Proxy(Optimizer):
    """An optimizer for schedulers only: it has one group, and its steps do nothing."""

    # Stops torch's warning about the order of steps: the real optimizer is watched instead.
    _opt_called = True

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Do nothing."""

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


class BaseRate:
    """A base rate, ``lr`` or ``weight_decay``, that schedulers change and groups follow."""

    def __init__(self, optimizer: Optimizer, key: str) -> None:
        self.key, self.mult = key, MULTIPLIERS[key]
        self.base = _base(optimizer, key, self.mult)  # where the schedule starts
        self.scale = 1.0  # factor on the whole curve
        self.by_default = as_float(optimizer.defaults.get(key)) == self.base
        # The optimizer that schedulers see; its `lr` is the rate, whatever the key is.
        self.proxy = Proxy([torch.zeros(0)], {**optimizer.defaults, "lr": self.base})
        # The last written value of each setting that has been cycled.
        self._cycled: dict[str, Any] = {}

    @property
    def group(self) -> Group:
        """The group of the proxy."""
        return self.proxy.param_groups[0]

    def value(self) -> float:
        """Return the base rate now."""
        return float(self.group["lr"]) * self.scale

    def move(self, old: float | None, new: float | None) -> None:
        """Scale the curve from one base rate of the optimizer to another."""
        if old and new is not None:
            self.scale *= new / old if new != old else 1.0
        elif new:  # a curve at 0 has no height to scale
            self.scale = new / self.base

    def write(self, groups: Iterable[Group]) -> None:
        """Put the present base rate, times its multiplier, into each group."""
        base, written = self.value(), set()
        for group in groups:
            if self.mult not in group:
                continue
            rate, old = base * group[self.mult], group.get(self.key)
            if not isinstance(old, Tensor):
                group[self.key] = rate
            elif id(old) in written:  # several groups share one tensor: give this one its own
                group[self.key] = torch.full_like(old, rate)
            else:
                old.fill_(rate)  # in place, for compiled steps
            written.add(id(old))

    def cycle(self, groups: Iterable[Group]) -> None:
        """Write momentum, or betas, into the groups that had the optimizer's own value.

        Which groups these are is noted in the groups, and so saved with the optimizer: in the
        middle of a cycle it cannot be seen.
        """
        for key in _CYCLED:
            if key not in self.group:
                continue
            value, start = _first(self.group[key]), _first(self.proxy.defaults[key])
            if value == start and key not in self._cycled:
                continue
            own_values = {start, self._cycled.get(key, start)}
            for group in groups:
                if key in group and group.setdefault(
                    f"cycles_{key}", _first(group[key]) in own_values
                ):
                    group[key] = (value, *group[key][1:]) if key == "betas" else value
            self._cycled[key] = value

    def state_dict(self) -> dict[str, Any]:
        """Return what schedulers have changed, as plain values."""
        changed = {
            key: value
            for key, value in self.group.items()
            if key == "lr" or key in self._cycled or key not in self.proxy.defaults
        }
        changed.pop("params")
        return {"group": changed, "base": self.base, "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.group.update(state["group"])
        self.base, self.scale = state["base"], state["scale"]
        self._cycled = {
            key: _first(value) for key, value in state["group"].items() if key in _CYCLED
        }


# The base rates of each optimizer that has a schedule.
_RATES: Final[WeakKeyDictionary[Optimizer, dict[str, BaseRate]]] = WeakKeyDictionary()


def base_rate(optimizer: Optimizer, key: str) -> BaseRate:
    """Return the base rate that an optimizer's schedulers share, or a new one."""
    return scheduled(optimizer).get(key) or BaseRate(optimizer, key)


def remember(optimizer: Optimizer, rates: Iterable[BaseRate]) -> None:
    """Note that an optimizer follows these base rates."""
    _RATES[optimizer] = {**scheduled(optimizer), **{rate.key: rate for rate in rates}}


def scheduled(optimizer: Optimizer) -> Mapping[str, BaseRate]:
    """Return the base rates that an optimizer follows, by key."""
    return _RATES.get(optimizer, {})


def rebase(optimizer: Optimizer, before: Mapping[str, Any]) -> None:
    """Scale the schedules of a regrouped optimizer from its defaults before, and write."""
    for key, rate in scheduled(optimizer).items():
        old, new = (as_float(bases.get(key)) for bases in (before, optimizer.defaults))
        rate.move(old, new)
        rate.write(optimizer.param_groups)
        if key == "lr":
            rate.cycle(optimizer.param_groups)


def runs_step_hooks(optimizer: Optimizer) -> bool:
    """Whether an optimizer calls its step hooks.

    A wrapper that skips torch's constructor has no hooks, or some that nobody calls; one that
    forwards to the hooks of the optimizer inside has them.
    """
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        return False
    own = "_optimizer_step_pre_hooks" in vars(optimizer)
    return not own or hasattr(type(optimizer).step, "hooked")


def as_float(value: object) -> float:
    """Return a rate as a float, whether it is a tensor or not."""
    return value.item() if isinstance(value, Tensor) else cast(float, value)


def _first(value: Any) -> Any:  # noqa: ANN401 - momentum or betas
    """Return momentum, or the first of the betas."""
    return value[0] if isinstance(value, tuple | list) else value


def _base(optimizer: Optimizer, key: str, mult: str) -> float:
    """Return the rate that multipliers refer to; write multipliers if no group has one."""
    groups = optimizer.param_groups
    start = f"initial_{key}"
    for position, group in enumerate(groups):
        if key not in group:
            raise NnlrError(f"Group {position} of the optimizer has no {key!r} to schedule.")
    rates = [as_float(group[key]) for group in groups]
    if any(mult in group for group in groups):
        base = _agreed(optimizer, key, mult)
    else:
        base = max(rates)
        for group, rate in zip(groups, rates, strict=True):
            group[mult] = rate / base if base else 0.0
            group[start] = rate
    if not base > 0:
        raise NnlrError(f"Every group of the optimizer has {key}=0: nothing to schedule.")
    for group in groups:
        if mult in group:
            group.setdefault(start, base * group[mult])
    return base


def _agreed(optimizer: Optimizer, key: str, mult: str) -> float:
    """Return the base of groups with multipliers: the optimizer's default, or else their own."""
    # Where each group starts, and its multiplier.
    starts = [
        (as_float(group.get(f"initial_{key}", group[key])), group[mult])
        for group in optimizer.param_groups
        if mult in group
    ]
    rate_of_largest, largest = max(starts, key=lambda start: start[1])
    for base in (as_float(optimizer.defaults.get(key)), rate_of_largest / (largest or 1.0)):
        if base is not None and all(
            isclose(rate, base * multiplier, rel_tol=1e-6) for rate, multiplier in starts
        ):
            return base
    pairs = ", ".join(f"{rate:g} with {mult}={multiplier:g}" for rate, multiplier in starts[:3])
    raise ConfigError(
        f"The groups do not start at one base rate: {key} is {pairs}. Write {key} = base * "
        f"{mult} into every group, as plan.optimizer does, or leave {mult} out."
    )
