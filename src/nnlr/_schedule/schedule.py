"""Schedulers that keep the ratios between parameter groups.

A scheduler of torch writes rates into groups, and one with an absolute floor or peak writes
the same rate into all of them. Here it works on one base rate, and

    group["lr"] = base_lr(t) * group["lr_mult"]

Only torch is needed: this works with anyone's groups.
"""

import weakref
from collections.abc import Callable
from copy import deepcopy
from inspect import signature
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.hooks import RemovableHandle

from nnlr._arguments import number
from nnlr._schedule.base_rate import as_float, base_rate, remember, runs_step_hooks
from nnlr._text import shown, warn
from nnlr.errors import ConfigError, NnlrError

Factory = Callable[..., LRScheduler]

# Schedulers of timm step after every update by this method, and after every epoch by step.
_ALSO_STEPS: Final = {"step_update"}


class _Curve:
    """A scheduler and the base rate that it works on."""

    def __init__(
        self, key: str, optimizer: Optimizer, factory: Factory, kwargs: dict[str, Any]
    ) -> None:
        self.rate = base_rate(optimizer, key)
        self.scheduler = _built(factory, self.rate.proxy, kwargs)
        first = next(iter(signature(self.scheduler.step).parameters.values()), None)
        self.takes_metric = (
            first is not None
            and first.default is first.empty
            and first.kind is not first.VAR_POSITIONAL
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both, as plain values."""
        return {"scheduler": self.scheduler.state_dict(), **self.rate.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.scheduler.load_state_dict(state["scheduler"])
        self.rate.load_state_dict(state)


def _built(factory: Factory, proxy: Optimizer, kwargs: dict[str, Any]) -> LRScheduler:
    """Build the user's scheduler on the proxy, and check it."""
    if not callable(factory):
        raise NnlrError(
            f"schedule needs a scheduler class or a function of an optimizer, got {shown(factory)}."
        )
    if kwargs.get("last_epoch", -1) != -1:
        raise NnlrError(
            "last_epoch is not passed here: the schedule starts at its beginning. To resume, "
            "load the state that the scheduler saved: load_state_dict.",
            argument="last_epoch",
        )
    for name, value in kwargs.items():
        if isinstance(value, list | tuple) and ("lr" in name or "momentum" in name):
            raise NnlrError(
                f"{name}={shown(value)} is a list with one entry for each group. The scheduler "
                "works on the base rate alone, and groups differ by their multipliers: pass "
                f"one value. To change a group's ratio set group['lr_mult'].",
                argument=name,
            )
    made = factory(proxy, **kwargs)
    if not isinstance(getattr(made, "optimizer", None), Optimizer) or not hasattr(made, "step"):
        raise NnlrError(f"{shown(factory)} returned {shown(made)}, which is no scheduler.")
    if isinstance(made, _Ratios):
        raise NnlrError(
            f"{shown(factory)} returned {shown(made)}, which works on a base rate already. "
            f"Return the plain scheduler: {type(made.scheduler).__name__}(opt, ...)."
        )
    if made.optimizer is not proxy:
        raise NnlrError(
            f"{shown(factory)} scheduled another optimizer than the one it was called with. "
            "Use its argument: lambda opt: StepLR(opt, 10)."
        )
    return made


class _Ratios:
    """Base of both kinds of scheduler: it steps curves and writes their rates into groups."""

    optimizer: Optimizer
    _curves: tuple[_Curve, ...]
    _warned: bool = False  # whether groups without a multiplier have been reported
    _stepped: bool  # whether the optimizer has taken a step
    _watching: RemovableHandle | None  # the hook that waits for it

    def __init__(self, optimizer: Optimizer, curves: tuple[_Curve, ...]) -> None:
        # Not super().__init__: it would step, and overwrite the groups' initial rates.
        self.__setstate__({"optimizer": optimizer, "_curves": curves, "_stepped": False})
        self._write()

    def __getstate__(self) -> dict[str, Any]:
        """Return all attributes except the hook in the optimizer, which cannot be copied."""
        return {key: value for key, value in self.__dict__.items() if key != "_watching"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes, of a new scheduler too, and hook into the optimizer."""
        self.__dict__.update(state, _watching=None)
        remember(self.optimizer, [curve.rate for curve in self._curves])
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
        """The user's scheduler; it works on the base rate."""
        return self._curves[0].scheduler

    @property
    def base_lr(self) -> float:
        """The base learning rate now."""
        return self._curves[0].rate.value()

    def set_base_lr(self, lr: float) -> None:
        """Scale the whole curve so that it starts at another base rate, from now on.

        Args:
            lr: New base learning rate, finite, > 0.
        """
        rate = self._curves[0].rate
        rate.scale = number(lr, "lr", above=0) / rate.base
        self._write()

    @property  # read at every call: groups may have been added, merged or loaded
    def base_lrs(self) -> list[float]:
        """The rates of the groups at the start of the schedule; others as they are."""
        rate = self._curves[0].rate
        return [
            rate.base * rate.scale * group["lr_mult"]
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
        """Step the scheduler, then write the rates of all groups."""
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
        metric = isinstance(self, ReduceLROnPlateau)
        for position, curve in enumerate(self._curves):
            if curve.takes_metric or (position == 0 and not metric):
                curve.scheduler.step(*args, **kwargs)
            else:
                curve.scheduler.step()
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, none per group: they fit after regrouping too."""
        return {
            curve.rate.key: {**curve.state_dict(), "default": self._default(curve)}
            for curve in self._curves
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken, and write the rates of that moment.

        If the optimizer loads by name under the policy ``"code"``, as those of
        ``plan.optimizer`` do, and its base rates are others than they were then, they count;
        else those in the state.
        """
        keys = {curve.rate.key for curve in self._curves}
        if not isinstance(state_dict, dict) or keys != state_dict.keys():
            got = sorted(state_dict) if isinstance(state_dict, dict) else shown(state_dict)
            raise ConfigError(
                f"This is not the state of such a schedule: it needs {sorted(keys)}, got "
                f"{got}. A state saved by a plain scheduler fits schedule(...).scheduler."
            )
        before = deepcopy(self.state_dict())
        try:
            self._load(state_dict)
        except Exception as error:
            self._load(before)
            raise ConfigError(
                "This is not the state of such a schedule, or not all of it: "
                f"{type(error).__name__}: {error}. The schedule is as it was."
            ) from error
        self._stepped = True
        self._write()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the inner one has
        # Trainers read total_steps, _step_count, last_epoch and the like.
        if name.startswith("__") or "_curves" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        value = getattr(self.scheduler, name)
        if name not in _ALSO_STEPS:
            return value

        def step(*args: Any, **kwargs: Any) -> None:
            value(*args, **kwargs)
            self._write()

        return step

    def __setattr__(self, name: str, value: object) -> None:
        # Accelerate counts steps itself, and users set `patience`: the scheduler must see it.
        ours = name in self.__dict__ or hasattr(type(self), name)
        inner = not ours and hasattr(self.scheduler, name)
        object.__setattr__(self.scheduler if inner else self, name, value)

    def __repr__(self) -> str:
        return f"schedule({type(self.scheduler).__name__}, base_lr={self.base_lr:g})"

    def _load(self, state: dict[str, Any]) -> None:
        """Load a state; follow the optimizer's base rates if it loads by the code's policy."""
        # nnlr.checkpoint leaves a hook in the optimizer that says whose rates count.
        hooks = getattr(self.optimizer, "_optimizer_load_state_dict_pre_hooks", {}).values()
        by_code = any(getattr(hook, "policy", None) == "code" for hook in hooks)
        for curve in self._curves:
            key = curve.rate.key
            curve.load_state_dict(state[key])
            if by_code:
                old, new = state[key].get("default"), self._default(curve)
                if old is not None and new is not None:
                    curve.rate.move(old, new)

    def _default(self, curve: _Curve) -> float | None:
        """Return the optimizer's default, if that is where the curve starts."""
        rate = curve.rate
        return as_float(self.optimizer.defaults[rate.key]) if rate.by_default else None

    def _write(self) -> None:
        """Write the rates of all groups; warn once about groups without a multiplier."""
        groups = self.optimizer.param_groups
        for curve in self._curves:
            mult = curve.rate.mult
            unmarked = sum(mult not in group for group in groups)
            if unmarked and not self._warned:
                self._warned = True
                warn(
                    f"{unmarked} of {len(groups)} groups have no {mult!r} and are not scheduled. "
                    f"Give them one: group[{mult!r}] = 1.0."
                )
            curve.rate.write(groups)
        self._curves[0].rate.cycle(groups)


class RatioScheduler(_Ratios, LRScheduler):  # type: ignore[misc, override] # properties for attributes
    """A scheduler that keeps ratios; made by :func:`schedule`."""


class RatioPlateau(_Ratios, ReduceLROnPlateau):  # type: ignore[misc, override] # likewise
    """The same around a scheduler that takes a metric; made by :func:`schedule`."""


def schedule(
    optimizer: Optimizer,
    factory: Factory,
    *,
    weight_decay: Factory | None = None,
    **kwargs: Any,
) -> RatioScheduler | RatioPlateau:
    """Schedule the base learning rate; every group follows by its multiplier.

    ``group["lr"] = base_lr(t) * group["lr_mult"]``, where ``base_lr(t)`` is what the scheduler
    makes of one rate. Absolute floors, peaks and minimum rates therefore speak of the base
    rate and no ratio is ever lost. The result is a real ``LRScheduler`` (a real
    ``ReduceLROnPlateau`` where ``factory`` takes a metric), for any loop or trainer.

    The base rate is ``optimizer.defaults["lr"]`` where groups carry ``lr_mult``, as those of
    ``plan.optimizer`` do (or what those groups agree on, if it is another); else it is the
    largest rate among the groups, and ``lr_mult`` is written. Momentum or betas that the
    scheduler cycles reach the groups that have the optimizer's own. Several schedules of one
    optimizer share the base rate, as torch's share the optimizer.

    Change ``group["lr_mult"]`` or call ``set_base_lr``: a rate written into
    ``group["lr"]`` by hand lasts until the next step. Groups without ``lr_mult`` that are
    added later are left alone, with one warning.

    Args:
        optimizer: Any torch optimizer.
        factory: A scheduler class of torch or transformers, or a function of an optimizer
            that returns a scheduler, for chains: ``lambda opt: SequentialLR(opt, ...)``.
        weight_decay: A second such function, of which the "rate" is the base weight decay;
            ``group["weight_decay"] = base(t) * group["wd_mult"]``.
        **kwargs: Arguments of ``factory`` other than the optimizer.

    Raises:
        NnlrError: If ``factory`` makes no scheduler, or an argument is a list with one entry
            for each group.
        ConfigError: If the groups' rates and multipliers do not belong to one base rate.

    Examples:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1)
        >>> groups = [{"params": [layer.weight], "lr": 0.1}, {"params": [layer.bias], "lr": 0.01}]
        >>> optimizer = torch.optim.SGD(groups)
        >>> cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        >>> scheduler = schedule(optimizer, cosine, T_max=10, eta_min=0.05)
        >>> for _ in range(10):
        ...     optimizer.step()
        ...     scheduler.step()
        >>> [round(rate, 4) for rate in scheduler.get_last_lr()]
        [0.05, 0.005]
    """
    if not isinstance(optimizer, Optimizer):
        raise NnlrError(
            f"schedule needs a torch optimizer, got {shown(optimizer)}. Of an optimizer that a "
            "trainer has wrapped, pass the inner one."
        )
    curves = [_Curve("lr", optimizer, factory, kwargs)]
    if weight_decay is not None:
        curves.append(_Curve("weight_decay", optimizer, weight_decay, {}))
    metric = any(curve.takes_metric for curve in curves)
    kind = RatioPlateau if metric else RatioScheduler
    return kind(optimizer, tuple(curves))
