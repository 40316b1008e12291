"""One base rate, for schedulers to work on, and its way into the groups.

A scheduler is given a *proxy*, an optimizer with one group, and what it makes of that
group's rate is multiplied into the real ones. Schedulers of one optimizer share the proxy,
as they would share the optimizer. Only torch is needed: this works with anyone's groups.
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
    """An optimizer that only schedulers see: it has groups, and its steps do nothing."""

    # Whether a step was taken is asked of the real optimizer.
    _opt_called = True

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Nothing to do."""

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


class BaseRate:
    """A base rate that schedulers change and groups follow.

    Args:
        optimizer: The real optimizer; it is read here, and not kept.
        key: ``"lr"`` or ``"weight_decay"``.

    Attributes:
        key: The same.
        mult: The groups' key for the multiplier.
        base: Where the schedule starts.
        scale: Factor on the whole curve.
        by_default: Whether that is the optimizer's default.
        proxy: The optimizer that schedulers see; its ``lr`` is the rate, whatever ``key`` is.
    """

    def __init__(self, optimizer: Optimizer, key: str) -> None:
        self.key, self.mult = key, MULTIPLIERS[key]
        self.base = _base(optimizer, key, self.mult)
        self.scale = 1.0
        self.by_default = as_float(optimizer.defaults.get(key)) == self.base
        self.proxy = Proxy([torch.zeros(0)], {**optimizer.defaults, "lr": self.base})
        # What was last written of each setting that has been cycled.
        self._cycled: dict[str, Any] = {}

    @property
    def group(self) -> Group:
        """The group of the proxy."""
        return self.proxy.param_groups[0]

    def value(self) -> float:
        """The base rate now."""
        return float(self.group["lr"]) * self.scale

    def move(self, old: float | None, new: float | None) -> None:
        """Scale the curve from one base rate of the optimizer to another."""
        if old and new is not None:
            self.scale *= new / old if new != old else 1.0
        elif new:  # a curve at 0 has no height to scale
            self.scale = new / self.base

    def write(self, groups: Iterable[Group]) -> None:
        """Put the present base rate, times its multiplier, into each group."""
        now, filled = self.value(), set()
        for group in groups:
            if self.mult not in group:
                continue
            wanted, held = now * group[self.mult], group.get(self.key)
            if isinstance(held, Tensor) and id(held) not in filled:
                held.fill_(wanted)  # compiled steps hold on to it
            elif isinstance(held, Tensor):  # one tensor in several groups
                group[self.key] = held = torch.full_like(held, wanted)
            else:
                group[self.key] = wanted
            filled.add(id(held))

    def cycle(self, groups: Iterable[Group]) -> None:
        """Hand on momentum, or betas, to the groups that had the optimizer's own.

        Which those are is noted in the groups, and travels with the optimizer's state: in
        the middle of a cycle it cannot be seen.
        """
        for key in _CYCLED:
            if key not in self.group:
                continue
            now, start = _first(self.group[key]), _first(self.proxy.defaults[key])
            if now == start and key not in self._cycled:
                continue
            usual = {start, self._cycled.get(key, start)}
            for group in groups:
                if key in group and group.setdefault(f"cycles_{key}", _first(group[key]) in usual):
                    rest = group[key][1:] if key == "betas" else None
                    group[key] = now if rest is None else (now, *rest)
            self._cycled[key] = now

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        held = {
            key: value
            for key, value in self.group.items()
            if key == "lr" or key in self._cycled or key not in self.proxy.defaults
        }
        held.pop("params")
        return {"group": held, "base": self.base, "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Read what :meth:`state_dict` gave."""
        self.group.update(state["group"])
        self.base, self.scale = state["base"], state["scale"]
        self._cycled = {
            key: _first(value) for key, value in state["group"].items() if key in _CYCLED
        }


# The rates of the optimizers that are scheduled.
_RATES: Final[WeakKeyDictionary[Optimizer, dict[str, BaseRate]]] = WeakKeyDictionary()


def base_rate(optimizer: Optimizer, key: str) -> BaseRate:
    """The base rate that an optimizer's schedulers share, or a new one."""
    return scheduled(optimizer).get(key) or BaseRate(optimizer, key)


def remember(optimizer: Optimizer, rates: Iterable[BaseRate]) -> None:
    """Note that an optimizer follows these."""
    _RATES[optimizer] = {**scheduled(optimizer), **{rate.key: rate for rate in rates}}


def scheduled(optimizer: Optimizer) -> Mapping[str, BaseRate]:
    """The base rates that an optimizer follows."""
    return _RATES.get(optimizer, {})


def rebase(optimizer: Optimizer, before: Mapping[str, Any]) -> None:
    """Scale the schedules of a regrouped optimizer to its new base rates, and write.

    Args:
        optimizer: The optimizer, with the new bases in its ``defaults``.
        before: Its ``defaults`` as they were.
    """
    for key, rate in scheduled(optimizer).items():
        old, new = (as_float(bases.get(key)) for bases in (before, optimizer.defaults))
        rate.move(old, new)
        rate.write(optimizer.param_groups)
        if key == "lr":
            rate.cycle(optimizer.param_groups)


def runs_step_hooks(optimizer: Optimizer) -> bool:
    """Whether step hooks of an optimizer are run.

    A wrapper that skips torch's constructor has none, or some that nobody calls; what forwards
    to the hooks of the optimizer inside has them.
    """
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        return False
    own = "_optimizer_step_pre_hooks" in vars(optimizer)
    return not own or hasattr(type(optimizer).step, "hooked")


def as_float(value: object) -> float:
    """A rate as a float, be it in a tensor or not."""
    return value.item() if isinstance(value, Tensor) else cast(float, value)


def _first(value: Any) -> Any:  # noqa: ANN401 - momentum or betas
    return value[0] if isinstance(value, tuple | list) else value


def _base(optimizer: Optimizer, key: str, mult: str) -> float:
    """The rate that multipliers refer to; writes them where there are none."""
    groups = optimizer.param_groups
    start = f"initial_{key}"
    rates = [_rate(group, key, position) for position, group in enumerate(groups)]
    marked = any(mult in group for group in groups)
    if marked:
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
    """The base of groups with multipliers: the optimizer's, or what the groups agree on."""
    marked = [group for group in optimizer.param_groups if mult in group]
    starts = [as_float(group.get(f"initial_{key}", group[key])) for group in marked]
    largest = max(range(len(marked)), key=lambda at: marked[at][mult])
    agreed = starts[largest] / (marked[largest][mult] or 1.0)
    for base in (as_float(optimizer.defaults.get(key)), agreed):
        if base is not None and all(
            isclose(rate, base * group[mult], rel_tol=1e-6)
            for group, rate in zip(marked, starts, strict=True)
        ):
            return base
    pairs = ", ".join(
        f"{rate:g} with {mult}={group[mult]:g}"
        for group, rate in list(zip(marked, starts, strict=True))[:3]
    )
    raise ConfigError(
        f"The groups do not start at one base rate: {key} is {pairs}. Write {key} = base * "
        f"{mult} into every group, as plan.optimizer does, or leave {mult} out."
    )


def _rate(group: Group, key: str, position: int) -> float:
    if key not in group:
        raise NnlrError(f"Group {position} of the optimizer has no {key!r} to schedule.")
    return as_float(group[key])
