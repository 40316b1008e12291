"""The settings of groups after loading: which are the checkpoint's, and which the code's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from nnlr._schedule.base_rate import MULTIPLIERS
from nnlr._schedule.origin import ORIGIN
from nnlr._schedule.progress import SCHEDULED, filled
from nnlr.checkpoint._hook import Policy
from nnlr.checkpoint._names import Names
from nnlr.checkpoint._rates import NOTE, Group, Rate, plain, same
from nnlr.checkpoint._report import Difference, short
from nnlr.errors import ConfigError

# The key of a group that lists its multipliers that move during training.
MOVING: Final = "moving"

# Which class and kernels run: those of the checkpoint need not exist on this machine.
_OF_THE_CODE: Final = {
    *("foreach", "fused", "capturable", "differentiable", "triton"),
    "decoupled_weight_decay",  # what makes an AdamW of an Adam
}

# Arguments of schedulers, kept in groups: they are those of the code's scheduler.
_OF_SCHEDULERS: Final = {"max_momentum", "base_momentum", "swa_lr"}

# Multipliers that others than nnlr keep in groups (timm, DINOv2): they are the code's too.
_SCALES: Final = {"lr_scale", "lr_multiplier", "wd_multiplier"}

# Settings that decide which state there is: they are the checkpoint's, like the state.
_OF_STATE: Final = {"amsgrad", "centered"}

_CYCLED: Final = ("momentum", "betas")

_RATES: Final = {
    *SCHEDULED,
    *("weight_decay", "initial_weight_decay", "lr_mult", "wd_mult"),
}

# Settings that are handled elsewhere.
_OURS: Final = {"params", "param_names", "name", MOVING, NOTE, ORIGIN, *_RATES}


@dataclass(frozen=True, slots=True)
class Present:
    """An optimizer as it is now, with names and base rates."""

    optimizer: Optimizer
    names: Names  # of its tensors
    bases: Mapping[str, float]  # from which its groups start, as far as known
    now: Mapping[str, float]  # the present base rates of its schedules


@dataclass(frozen=True, slots=True)
class Target:
    """A group of the code, and the saved groups of its parameters."""

    group: Group
    label: str  # its name in messages
    names: Mapping[int, Sequence[str]]  # of its parameters, by the position of their saved group


class Fitting:
    """Decides the settings of all groups, and collects the differences."""

    def __init__(
        self, targets: Sequence[Target], saved: Sequence[Group], present: Present, policy: Policy
    ) -> None:
        self.targets, self.saved, self.policy = targets, saved, policy
        self.defaults = present.optimizer.defaults
        self.counters = _counters(present.optimizer)
        groups = [target.group for target in targets]
        self.rates = [
            Rate(
                *(key, mult, groups, saved),
                default=self.defaults.get(key),
                now=present.now.get(key),
            )
            for key, mult in MULTIPLIERS.items()
        ]
        self.uniform: dict[str, bool] = {}
        # The names and the facts of each difference.
        self.merged: dict[object, tuple[list[str], tuple[str, Any, Any, str]]] = {}

    def group(self, position: int) -> dict[str, Any]:
        """Return the settings of one group."""
        target = self.targets[position]
        sources = [self.saved[at] for at in target.names]
        settings = dict(target.group)
        for key in ("params", "param_names", NOTE):
            settings.pop(key, None)
        moving = sorted(
            {name for group in (target.group, *sources) for name in group.get(MOVING, ())}
        )
        if moving:
            settings[MOVING] = tuple(moving)
        for rate in self.rates:
            if rate.key in target.group:
                self._rate(rate, position, settings, rate.mult in moving)
        keys = dict.fromkeys(key for group in (target.group, *sources) for key in group)
        for key in keys:
            if key not in _OURS and not key.startswith("cycles_"):
                self._setting(key, target, sources, settings)
        for key in _CYCLED:
            self._note(key, target, sources, settings)
        return {key: _own(value) for key, value in settings.items()}

    def _rate(self, rate: Rate, position: int, settings: dict[str, Any], moves: bool) -> None:
        """Decide a rate and its multiplier; ``moves`` if this moves during training."""
        target = self.targets[position]
        mult = rate.mults[position]
        moved = self._agreed(rate.mult, target) if moves else None
        if mult is not None:
            settings[rate.mult] = mult
        if moved is not None:
            settings[rate.mult] = moved
        if self.policy == "code":
            sources = [self.saved[at] for at in target.names if rate.key in self.saved[at]]
            settings |= rate.coded(position, target.group, sources, moved)
        else:
            self._saved_rate(rate, target, settings)
        if moved is None:
            start = rate.start(target.group)
            for at, names in target.names.items():
                group = self.saved[at]
                if rate.key in group:
                    self._differ(rate.key, names, rate.start(group), start, self.policy)
                if rate.mult in group and mult is not None:
                    self._differ(rate.mult, names, group[rate.mult], mult, self.policy)

    def _saved_rate(self, rate: Rate, target: Target, settings: dict[str, Any]) -> None:
        """Take a rate and its multiplier from the checkpoint."""
        from_saved = {
            key: value
            for key in (*rate.keys, rate.mult)
            if (value := self._agreed(key, target)) is not None
        }
        for key, value in from_saved.items():
            like = target.group.get(key, target.group[rate.key])
            tensor = isinstance(like, Tensor) and (key in target.group or isinstance(value, Tensor))
            settings[key] = filled(float(value), like if tensor else None)
        base = self.defaults.get(rate.key)
        unmarked = rate.mult in settings and rate.mult not in from_saved
        if rate.key in from_saved and unmarked and base:
            start = rate.start({**settings, **from_saved})
            settings[rate.mult] = start / float(base)

    def _agreed(self, key: str, target: Target) -> Any:  # noqa: ANN401 - a setting's value
        """Return the one value that the saved groups of a target have, or ``None``."""
        values = [(at, self.saved[at][key]) for at in target.names if key in self.saved[at]]
        for at, value in values[1:]:
            if not same(values[0][1], value):
                first, other = target.names[values[0][0]][0], target.names[at][0]
                way_out = (
                    ", or let the rates of the code count: policy='code' "
                    "(plan.optimizer(..., resume='code'))"
                    if self.policy == "checkpoint"
                    else ""
                )
                raise ConfigError(
                    f"{target.label} can have one {key}, and its parameters were saved with "
                    f"two: {first!r} with {short(values[0][1])}, {other!r} with "
                    f"{short(value)}. Give them groups of their own{way_out}.",
                    key=key,
                    names=[first, other],
                )
        return values[0][1] if values else None

    def _setting(
        self, key: str, target: Target, sources: Sequence[Group], settings: dict[str, Any]
    ) -> None:
        """Decide whose setting counts; ``settings`` holds the code's."""
        values = [group[key] for group in sources if key in group]
        if not values:
            return
        agree = _all_same(values)
        if agree and key in self.counters:
            settings[key] = values[0]  # it has moved in training: no difference to report
            return
        if key not in target.group:
            if agree and not self._is_option(key, target, sources):
                settings[key] = values[0]
            return
        if key in _OF_SCHEDULERS:
            return
        if _moved(key, target.group):
            saved = [group[key] for group in self.saved if key in group]
            cycled = any(_moved(key, group) for group in self.saved)
            if cycled or not _all_same(saved) or same(saved[0], self.defaults.get(key)):
                return  # the schedule writes it itself
            self._as_saved(key, target, sources, settings)  # one value, not the default
        winner = "code"
        if agree and key not in _OF_THE_CODE and not self._is_option(key, target, sources):
            winner = "checkpoint"
            settings[key] = values[0]
            self._as_saved(key, target, sources, settings)
            if isinstance(target.group[key], tuple) and isinstance(values[0], list):
                settings[key] = tuple(values[0])
        # None leaves the choice to the optimizer, and some then write it into the group.
        chosen = key in _OF_THE_CODE and target.group[key] is None
        if not chosen and not _cycles(key, (target.group, *sources)):
            for at, names in target.names.items():
                if key in self.saved[at]:
                    self._differ(key, names, self.saved[at][key], target.group[key], winner)

    @staticmethod
    def _as_saved(
        key: str, target: Target, sources: Sequence[Group], settings: dict[str, Any]
    ) -> None:
        """Note a setting that could be cycled as built with the value of the checkpoint."""
        cycled = any(_moved(key, group) for group in sources)
        if key in _CYCLED and ORIGIN in target.group and not cycled:
            settings[ORIGIN] = {**target.group[ORIGIN], key: sources[0][key]}

    def _is_option(self, key: str, target: Target, sources: Sequence[Group]) -> bool:
        """Whether a plan made a setting for some groups, so that the code's value counts.

        Such a value is not the optimizer's default, in the code or in some saved groups. A
        value that a schedule cycles is not the default either, and is no option.
        """
        if self.policy == "code" and key in _SCALES:
            return True
        if (
            self.policy == "checkpoint"
            or key in _OF_STATE
            or not {key} <= self.defaults.keys() & target.group.keys()
            or _cycles(key, [target.group])
        ):
            return False
        if not same(target.group[key], self.defaults[key]):
            return True
        if key not in self.uniform:  # the same for every group
            self.uniform[key] = _all_same([group[key] for group in self.saved if key in group])
        return not self.uniform[key] and not _cycles(key, sources)

    def _note(
        self, key: str, target: Target, sources: Sequence[Group], settings: dict[str, Any]
    ) -> None:
        """Keep a schedule's note on whether it cycles a setting of this group."""
        note = f"cycles_{key}"
        values = [group[note] for group in sources if note in group]
        if not values or note in target.group:
            return
        # Where the code's value counts and is the default, the schedule decides again.
        changed = not same(target.group.get(key), self.defaults.get(key))
        counts = not self._is_option(key, target, sources) or (changed and not values[0])
        if all(value == values[0] for value in values) and counts:
            settings[note] = values[0]

    def _differ(
        self, setting: str, names: Iterable[str], old: object, new: object, winner: str
    ) -> None:
        """Note a difference, with others of the same two values."""
        if not same(old, new):
            old, new = plain(old), plain(new)
            kind = (setting, repr(old), repr(new), winner)
            self.merged.setdefault(kind, ([], (setting, old, new, winner)))[0].extend(names)

    def differences(self) -> tuple[Difference, ...]:
        """Return one entry for each setting and pair of values."""
        return tuple(
            Difference(setting, tuple(names), old, new, winner)
            for names, (setting, old, new, winner) in self.merged.values()
        )


def _counters(optimizer: Optimizer) -> set[str]:
    """Return the defaults that no constructor takes: the optimizer itself counts in them.

    The step of a schedule-free optimizer and the distance that Prodigy estimates are such.
    """
    lineage = type(optimizer).mro()
    # A wrapper may pass on arguments without naming them: usual settings are no counters.
    arguments = {"momentum", "dampening", "nesterov", "betas", "eps", "amsgrad", "maximize"}
    for cls in lineage[: lineage.index(Optimizer)]:
        arguments |= signature(cls.__init__).parameters.keys()  # type: ignore[misc] # of the class
    return optimizer.defaults.keys() - arguments - _OF_THE_CODE


def _cycles(key: str, groups: Iterable[Group]) -> bool:
    """Whether a scheduler cycles a setting of these groups."""
    return key in _CYCLED and any("max_momentum" in group or _moved(key, group) for group in groups)


def _moved(key: str, group: Group) -> bool:
    """Whether a schedule of ours cycles a setting of a group."""
    if key not in _CYCLED or "max_momentum" in group:  # torch's own schedulers note that
        return False
    moved = not same(group.get(key), group.get(ORIGIN, group).get(key))
    return moved or bool(group.get(f"cycles_{key}"))


def _all_same(values: Sequence[object]) -> bool:
    """Whether all values are equal."""
    return all(same(values[0], value) for value in values[1:])


def _own(value: Any) -> Any:  # noqa: ANN401 - a setting's value
    """Copy a tensor, as ``load_state_dict`` would keep one tensor in several groups."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple):
        return tuple(map(_own, value))
    return value
