"""The settings of groups after a checkpoint: what comes from it, and what from the code."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from nnlr._schedule.base_rate import MULTIPLIERS
from nnlr._schedule.progress import SCHEDULED, filled
from nnlr.checkpoint._hook import Policy
from nnlr.checkpoint._names import Names
from nnlr.checkpoint._rates import NOTE, Group, Rate, same
from nnlr.checkpoint._report import Difference, short
from nnlr.errors import ConfigError

# A group's key for the names of its multipliers that move during training.
MOVING: Final = "moving"

# Which class and kernels run: those that the checkpoint was saved with need not exist here.
_OF_THE_CODE: Final = {
    *("foreach", "fused", "capturable", "differentiable", "triton"),
    "decoupled_weight_decay",  # what makes an AdamW of an Adam
}

# Arguments of schedulers, kept in groups: those of the scheduler that the code has built.
_OF_SCHEDULERS: Final = {"max_momentum", "base_momentum", "swa_lr"}

# Multipliers that others than nnlr keep in groups (timm, DINOv2): no less the code's.
_SCALES: Final = {"lr_scale", "lr_multiplier", "wd_multiplier"}

# Settings that decide which state there is, so that state and setting go together.
_OF_STATE: Final = {"amsgrad", "centered"}

_CYCLED: Final = ("momentum", "betas")

_RATES: Final = {
    *SCHEDULED,
    *("weight_decay", "initial_weight_decay", "lr_mult", "wd_mult"),
}

# What is never a matter between checkpoint and code.
_OURS: Final = {"params", "param_names", "name", MOVING, NOTE, *_RATES}


@dataclass(frozen=True, slots=True)
class Present:
    """An optimizer as it is now, and what is known of it.

    Attributes:
        optimizer: The optimizer.
        names: The names of its tensors.
        bases: The base rates that its groups start from, if they are known.
        now: The base rates at which its schedules are.
    """

    optimizer: Optimizer
    names: Names
    bases: Mapping[str, float]
    now: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """A group of the code, and where its parameters come from.

    Attributes:
        group: The group.
        label: What to call it.
        names: For each saved group that some of its parameters were in, by its position,
            the names of these.
    """

    group: Group
    label: str
    names: Mapping[int, Sequence[str]]


def fit_groups(
    targets: Sequence[Target], saved: Sequence[Group], present: Present, policy: Policy
) -> tuple[list[dict[str, Any]], tuple[Difference, ...]]:
    """The settings of each group, and what checkpoint and code disagreed about.

    Args:
        targets: The groups of the code.
        saved: The groups of the checkpoint.
        present: The optimizer of the code.
        policy: Who is right about rates and multipliers.

    Raises:
        ConfigError: If a group needs two values of something that has to come from the
            checkpoint.
    """
    fitting = _Fitting(targets, saved, present, policy)
    groups = [fitting.group(position) for position in range(len(targets))]
    return groups, fitting.differences()


class _Fitting:
    def __init__(
        self,
        targets: Sequence[Target],
        saved: Sequence[Group],
        present: Present,
        policy: Policy,
    ) -> None:
        self.targets, self.saved, self.policy = targets, saved, policy
        self.defaults = present.optimizer.defaults
        self.counters = _counters(present.optimizer)
        groups = [target.group for target in targets]
        self.rates = [
            Rate(
                key,
                mult,
                groups,
                saved,
                default=self.defaults.get(key),
                now=present.now.get(key),
            )
            for key, mult in MULTIPLIERS.items()
        ]
        self.one: dict[str, bool] = {}
        self.found: list[tuple[str, Sequence[str], Any, Any, str]] = []

    def group(self, position: int) -> dict[str, Any]:
        """The settings of one group."""
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
            self._note(f"cycles_{key}", key, target, sources, settings)
        return {key: _own(value) for key, value in settings.items()}

    # --- rates

    def _rate(self, rate: Rate, position: int, settings: dict[str, Any], moves: bool) -> None:
        target = self.targets[position]
        mult = rate.multiplier(position)
        held = self._agreed(rate.mult, target) if moves else None
        if mult is not None:
            settings[rate.mult] = mult
        if held is not None:
            settings[rate.mult] = held
        if self.policy == "code":
            sources = [self.saved[at] for at in target.names if rate.key in self.saved[at]]
            settings |= rate.coded(position, target.group, sources, held)
        else:
            self._saved_rate(rate, target, settings)
        if held is None:
            self._compare_rates(rate, target, mult)

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

    def _compare_rates(self, rate: Rate, target: Target, mult: float | None) -> None:
        code = rate.start(target.group)
        for at, names in target.names.items():
            group = self.saved[at]
            if rate.key in group:
                self._differ(rate.key, names, rate.start(group), code, self.policy)
            if rate.mult in group and mult is not None:
                self._differ(rate.mult, names, group[rate.mult], mult, self.policy)

    def _agreed(self, key: str, target: Target) -> Any:  # noqa: ANN401 - a setting's value
        """The one value in the checkpoint of what a group can hold once only.

        ``None`` if the checkpoint does not say.

        Raises:
            ConfigError: If there are two.
        """
        held = [(at, self.saved[at][key]) for at in target.names if key in self.saved[at]]
        for at, value in held[1:]:
            if not same(held[0][1], value):
                first, other = (target.names[each][0] for each in (held[0][0], at))
                way_out = (
                    ", or let the rates of the code count: policy='code' "
                    "(plan.optimizer(..., resume='code'))"
                    if self.policy == "checkpoint"
                    else ""
                )
                raise ConfigError(
                    f"{target.label} can have one {key}, and its parameters were saved with "
                    f"two: {first!r} with {short(held[0][1])}, {other!r} with "
                    f"{short(value)}. Give them groups of their own{way_out}.",
                    key=key,
                    names=[first, other],
                )
        return held[0][1] if held else None

    # --- other settings

    def _setting(
        self,
        key: str,
        target: Target,
        sources: Sequence[Group],
        settings: dict[str, Any],
    ) -> None:
        """Decide who is right about a setting; ``settings`` holds the code's."""
        held = [group[key] for group in sources if key in group]
        if not held:
            return
        one = all(same(held[0], value) for value in held[1:])
        if one and key in self.counters:
            settings[key] = held[0]  # it has moved, and there is nothing to say
            return
        if key not in target.group:
            if one and not self._is_option(key, target, sources):
                settings[key] = held[0]
            return
        if key in _OF_SCHEDULERS:
            return
        if target.group.get(f"cycles_{key}"):
            if not self._held_still(key):
                return  # the schedule writes it itself
            settings[f"cycles_{key}"] = False
        winner = "code"
        if one and key not in _OF_THE_CODE and not self._is_option(key, target, sources):
            winner = "checkpoint"
            settings[key] = _alike(held[0], target.group[key])
        # With None the code has left it open; some optimizers then note what they chose.
        chosen = key in _OF_THE_CODE and target.group[key] is None
        if not chosen and not _cycles(key, (target.group, *sources)):
            for at, names in target.names.items():
                if key in self.saved[at]:
                    self._differ(key, names, self.saved[at][key], target.group[key], winner)

    def _held_still(self, key: str) -> bool:
        """Whether all saved groups had one value of their own, which nothing cycled."""
        saved = [group[key] for group in self.saved if key in group]
        return (
            not any(group.get(f"cycles_{key}") for group in self.saved)
            and all(same(saved[0], value) for value in saved[1:])
            and not same(saved[0], self.defaults.get(key))
        )

    def _is_option(self, key: str, target: Target, sources: Sequence[Group]) -> bool:
        """Whether a setting was made for some groups, by a plan, rather than for all.

        Then the code's plan counts. It shows in a value other than the optimizer's, here or
        among the saved groups; what a schedule cycles differs too, but for another reason.
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
        return not self._is_one(key) and not _cycles(key, sources)

    def _is_one(self, key: str) -> bool:
        """Whether all saved groups that have a setting have the same one."""
        if key not in self.one:  # asked for every group
            held = [group[key] for group in self.saved if key in group]
            self.one[key] = all(same(held[0], value) for value in held[1:])
        return self.one[key]

    def _note(
        self,
        note: str,
        key: str,
        target: Target,
        sources: Sequence[Group],
        settings: dict[str, Any],
    ) -> None:
        """Keep a schedule's note on whether it cycles a setting of this group."""
        held = [group[note] for group in sources if note in group]
        if not held or note in target.group:
            return
        # Where the code counts, a group that has the optimizer's own will be asked anew.
        own = not same(target.group.get(key), self.defaults.get(key))
        counts = not self._is_option(key, target, sources) or (own and not held[0])
        if all(each == held[0] for each in held) and counts:
            settings[note] = held[0]

    # --- differences

    def _differ(
        self, setting: str, names: Iterable[str], old: object, new: object, winner: str
    ) -> None:
        if not same(old, new):
            self.found.append((setting, tuple(names), _plain(old), _plain(new), winner))

    def differences(self) -> tuple[Difference, ...]:
        """One entry for each setting and pair of values."""
        merged: dict[object, list[str]] = {}
        facts: dict[object, tuple[str, Any, Any, str]] = {}
        for setting, names, old, new, winner in self.found:
            kind = (setting, repr(old), repr(new), winner)
            merged.setdefault(kind, []).extend(names)
            facts[kind] = (setting, old, new, winner)
        return tuple(
            Difference(setting, tuple(merged[kind]), old, new, winner)
            for kind, (setting, old, new, winner) in facts.items()
        )


def _counters(optimizer: Optimizer) -> set[str]:
    """Defaults that no constructor takes: the optimizer itself counts in them.

    The step of a schedule-free optimizer and the distance that Prodigy estimates are such.
    """
    lineage = type(optimizer).mro()
    # Wrappers pass on what they do not name: the settings of usual optimizers are no counters.
    known = {"momentum", "dampening", "nesterov", "betas", "eps", "amsgrad", "maximize"}
    for cls in lineage[: lineage.index(Optimizer)]:
        known |= signature(cls.__init__).parameters.keys()  # type: ignore[misc] # of the class
    return optimizer.defaults.keys() - known - _OF_THE_CODE


def _cycles(key: str, groups: Iterable[Group]) -> bool:
    """Whether a scheduler cycles a setting of these groups."""
    return key in _CYCLED and any(
        "max_momentum" in group or group.get(f"cycles_{key}") for group in groups
    )


def _alike(value: Any, like: object) -> Any:  # noqa: ANN401 - a setting's value
    """A saved setting in the form that the code has it in."""
    if isinstance(like, tuple) and isinstance(value, list):
        return tuple(value)
    return value


def _plain(value: Any) -> Any:  # noqa: ANN401 - a setting's value
    return value.tolist() if isinstance(value, Tensor) else value


def _own(value: Any) -> Any:  # noqa: ANN401 - a setting's value
    """The value, or a copy of a tensor: ``load_state_dict`` keeps shared ones shared."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple):
        return tuple(map(_own, value))
    return value
