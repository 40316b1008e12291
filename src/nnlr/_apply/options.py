"""Judge the settings of a plan's groups by the optimizer's own class, once it is built.

No constructor looks at settings that stand in a group, and any key may stand there. So each
distinct set of options is handed to the class as arguments of a small optimizer, which also
says by a few steps whether it reads what it does not declare.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._apply.trial import Trial, arguments_of, mentions, small, true_to, try_settings
from nnlr._rows.groups import Group, hashable
from nnlr._sandbox import arguments
from nnlr._text import listed, nearest_hint, shown, warn
from nnlr.errors import ConfigError

_Settings = Mapping[str, Any]

# Packages whose optimizers train groups at any rates.
_OF_ANY_RATES: Final = {"nnlr", "torch"}


@dataclass(frozen=True)
class _Case:
    """A distinct set of options, and the groups that have it."""

    groups: Sequence[Group]
    options: _Settings
    rates: _Settings  # those of the first group that the optimizer does not declare
    tensors: Sequence[Tensor]
    located: Sequence[Located]

    @property
    def names(self) -> list[str]:
        """Its parameters."""
        return [name for group in self.groups for name in group.names]

    @property
    def label(self) -> str:
        """Its first group and some parameters, for a message."""
        return f"group {self.groups[0].name!r} ({listed(self.names, 2)})"

    def rules(self) -> list[str]:
        """Who set the options."""
        names = set(self.names)
        traces = (param.row.trace for param in self.located if param.row.name in names)
        return list(
            dict.fromkeys(step.source for trace in traces for step in trace if step.factor.options)
        )


def judge_options(
    optimizer: object,
    groups: Sequence[Group],
    located: Sequence[Located],
    settings: _Settings,
) -> None:
    """Refuse options that the optimizer's class refuses, or that no step of it reads.

    ``settings`` are the arguments that it was built with besides its defaults. Of a class that
    cannot be built small nothing is refused.
    """
    declared = getattr(optimizer, "defaults", None)
    if not isinstance(optimizer, Optimizer) or not isinstance(declared, dict):
        return
    cls = type(optimizer)
    accepted = arguments(cls)
    built_with = arguments_of(cls, optimizer)
    built_with |= {key: settings[key] for key in settings if key in accepted}
    missing = [] if "lr" in declared else ["lr"]
    if "weight_decay" not in declared and any(group.weight_decay for group in groups):
        missing.append("weight_decay")
    cases = _cases(groups, located, missing)
    _judge_rates(cls, built_with, groups, cases[0])
    reads: dict[str, bool | None] = {}
    for case in cases:
        if not case.rates and not case.options:
            continue
        outcome = _tried(cls, built_with, case)
        undeclared = {**case.rates, **case.options}.keys() - declared.keys()
        for key in undeclared:
            both = reads.get(key, False), _is_read(cls, key, outcome, missing)
            reads[key] = max(both, key=_ORDER.index)
    _refuse_unread(optimizer, reads, groups)


def _judge_rates(
    cls: type[Optimizer], built_with: _Settings, groups: Sequence[Group], case: _Case
) -> None:
    """Refuse different rates where a step of the class raises on them; torch's do not."""
    lrs = list(dict.fromkeys(group.lr for group in groups if group.lr))
    if len(lrs) == 1 or cls.__module__.partition(".")[0] in _OF_ANY_RATES:
        return

    def fares(lrs: Sequence[float]) -> Trial:
        settings = [{**case.rates, **case.options, "lr": lr} for lr in lrs]
        return try_settings(cls, built_with, settings, small(case.tensors))

    outcome = fares(lrs[:2])
    if not outcome.stepped and (fault := _fault(outcome, fares(lrs[:1] * 2), {})):
        raise ConfigError(
            f"{cls.__name__} {fault.replace('an option', 'groups of different rates')}. Give "
            "all parameters one rate, or use an optimizer that trains them at their own."
        ) from outcome.error


def _cases(
    groups: Sequence[Group], located: Sequence[Located], missing: Sequence[str]
) -> list[_Case]:
    """The distinct sets of options."""
    tensor_of = {param.row.name: param.tensor for param in located}
    members: dict[object, list[Group]] = {}
    for group in groups:
        members.setdefault(hashable(tuple(sorted(group.options.items()))), []).append(group)
    return [
        _Case(
            groups=alike,
            options=alike[0].options,
            rates={key: getattr(alike[0], key) for key in missing},
            tensors=[tensor_of[n] for group in alike for n in group.names if n in tensor_of],
            located=located,
        )
        for alike in members.values()
    ]


def _tried(cls: type[Optimizer], built_with: _Settings, case: _Case) -> Trial:
    """How a small optimizer fares with the options; refuse them if it is better off without."""
    accepted = arguments(cls)

    def fares(options: _Settings, like: Sequence[Tensor]) -> Trial:
        as_arguments = {key: options[key] for key in options if key in accepted}
        return try_settings(cls, {**built_with, **as_arguments}, [{**case.rates, **options}], like)

    needed = {key: case.options[key] for key in case.options if key not in accepted}
    error, fault = None, None
    # Some fail on small tensors only, or need another device.
    for like in (small(case.tensors), true_to(case.tensors)):
        outcome = fares(case.options, like)
        if outcome.finite and outcome.moved:
            return outcome
        faults = [_fault(outcome, fares(fewer, like), case.options) for fewer in ({}, needed)]
        fault = faults[0] or faults[1]
        if fault is None:
            return outcome
        error = outcome.error
    names = listed(case.rules(), 2)
    raise ConfigError(
        f"{cls.__name__} {fault}: options={shown(dict(case.options))} of {case.label}, set by "
        f"{names}.",
        options=dict(case.options),
        names=case.names,
    ) from error


def _fault(outcome: Trial, without: Trial, options: _Settings) -> str | None:
    """What is wrong with options; ``None`` if the optimizer fares no better without them."""
    reason = f"{type(outcome.error).__name__}: {outcome.error}".rstrip(": ")
    if without.built and not outcome.built:
        return f"refuses an option ({reason})"
    if without.stepped and not outcome.stepped:
        return f"cannot step with an option ({reason})"
    if without.finite and not outcome.finite:
        return "makes weights NaN or infinite with an option, in its first steps"
    if without.moved and not outcome.moved and any(map(_infinite, options.values())):
        return "moves no weight with an option that is infinite"
    return None


def _infinite(value: object) -> bool:
    """Whether a value is infinite, or has such a part."""
    if isinstance(value, tuple):
        return any(map(_infinite, value))
    return isinstance(value, float) and math.isinf(value)


def _is_read(cls: type[Optimizer], key: str, outcome: Trial, rates: Sequence[str]) -> bool | None:
    """Whether an optimizer reads a setting of its groups; ``None`` if that cannot be told."""
    if key in outcome.read:
        return True
    if outcome.stepped and key in rates:
        return False
    # Or under conditions that a small tensor does not meet.
    return mentions(cls, key) or (False if outcome.stepped else None)


# A setting of several groups is read if it is read in one of them.
_ORDER: Final = (False, None, True)


def _refuse_unread(
    optimizer: Optimizer, reads: Mapping[str, bool | None], groups: Sequence[Group]
) -> None:
    """Refuse settings that no step reads; warn of those of which nothing can tell."""
    name, declared = type(optimizer).__name__, optimizer.defaults
    decayed = [group for group in groups if group.weight_decay]
    algorithm = groups[0].algorithm if groups else None
    for key, read in reads.items():
        if read:
            continue
        if read is None:
            warn(
                f"{name} declares no setting {key!r}, and whether its step reads that of its "
                "groups could not be tried. Compare how far parameters move with other values "
                f"of it. {nearest_hint(key, declared)}".rstrip()
            )
        elif key == "lr":
            raise ConfigError(
                f"{name} has no setting 'lr', so it would train every group alike. Its "
                f"settings are {listed(sorted(declared), 10) or 'none'}."
            )
        elif key == "weight_decay":
            none = "0" if algorithm is None else f"{{{algorithm!r}: 0, ...}}"
            raise ConfigError(
                f"{name} has no weight decay, and the plan decays {len(decayed)} of "
                f"{len(groups)} groups. Resolve with weight_decay={none}, or use another optimizer."
            )
        else:
            group = next(group for group in groups if key in group.options)
            others = "" if algorithm is None else "Restrict it to others by .where(selector). "
            raise ConfigError(
                f"{name} does not know the option {key!r} of group {group.name!r} "
                f"({listed(group.names, 2)}): its step does not read it. "
                f"{others}{nearest_hint(key, declared)}".rstrip(),
                option=key,
            )
