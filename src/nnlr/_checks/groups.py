"""Findings about the settings in the groups of an optimizer."""

import io
import math
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from numbers import Number
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._checks.fixes import defaults, frozen, regrouped, resolve_again
from nnlr._checks.optimizer_probe import step_needs
from nnlr._checks.schedule_rehearsal import has_own_functions
from nnlr._checks.subject import (
    SettingsOfGroup,
    Subject,
    labelled,
    rate,
    start,
    takes_over,
    with_origin,
)
from nnlr._findings import Finding, error, note, warning
from nnlr._schedule.keep_ratios import keeps_ratios
from nnlr._schedule.moved import MOVED
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN
from nnlr._text import plural, shown
from nnlr.optim._members import ALGORITHM

# Settings that have to be finite and >= 0 where they are numbers.
_RATES: Final = (
    *("lr", "initial_lr", "max_lr", "min_lr", "swa_lr", "lr_mult", "lr_scale"),
    *("weight_decay", "initial_weight_decay", "wd_mult"),
)

# Rates that differ by less are the same, computed in another order or in float32.
_NOISE: Final = 1e-5


def empty_or_alike(subject: Subject) -> Iterator[Finding]:
    """Groups that are empty, or share a name."""
    if empty := [label for label, group in subject.groups if not group["params"]]:
        yield warning(
            "empty-group",
            empty,
            cause=f"{plural(len(empty), 'group', 'hold')} no parameter; distributed checkpoints "
            "(set_optimizer_state_dict) refuse them",
            fix="Leave them out: optimizer.param_groups[:] = [group for group in "
            "optimizer.param_groups if group['params']]",
        )
    for optimizer in subject.optimizers:
        names = [str(group["name"]) for group in optimizer.param_groups if "name" in group]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            yield warning(
                "duplicate-name",
                twice,
                cause=f"{plural(len(twice), 'group name', 'are')} given more than once in "
                f"{type(optimizer).__name__}; Lightning's LearningRateMonitor raises, other "
                "logs mix their curves",
                fix="Give each its own, or drop them: "
                "[group.pop('name', None) for group in optimizer.param_groups]",
            )


def bad_values(subject: Subject) -> Iterator[Finding]:
    """Values that make a step wrong, and values that trainers cannot load from a checkpoint."""
    bad, unsafe = {}, {}  # what to call it -> the code that mends it
    for number, optimizer in enumerate(subject.optimizers):
        all_load = _loads([_settings_of(group) for group in optimizer.param_groups])
        which = "optimizer" if len(subject.optimizers) == 1 else f"optimizers[{number}]"
        for position, (label, group) in enumerate(labelled(optimizer)):
            for key, value in _settings_of(group).items():
                place = f"{which}.param_groups[{position}][{key!r}]"
                if _is_bad(key, value):
                    good = _good(subject.part_of(group), group, key)
                    bad[f"{label}: {key}={shown(value)}"] = f"{place} = {good!r}"
                elif not all_load and not _loads(value):
                    made = _plain_type(value)
                    unsafe[f"{label}: {key}={shown(value, typed=True)}"] = (
                        f"{place} = {made}({place})"
                    )
    if bad:
        yield error(
            "bad-value",
            bad,
            cause=f"{plural(len(bad), 'setting', 'are')} NaN, infinite, negative or no "
            "number; torch checks only what its constructor gets as default",
            fix=f"Write a finite number >= 0: {'; '.join(bad.values())}",
        )
    if unsafe:
        yield warning(
            "unsafe-value",
            unsafe,
            cause=f"{plural(len(unsafe), 'setting', 'are')} of types that "
            "torch.load(weights_only=True) refuses, so a checkpoint of this optimizer "
            "cannot be resumed by most trainers",
            fix=f"Write plain Python values: {'; '.join(unsafe.values())}",
        )


def _settings_of(group: SettingsOfGroup) -> dict[str, Any]:
    """A group without its parameters."""
    return {key: group[key] for key in group if key not in ("params", "param_names")}


def _is_bad(key: str, value: object) -> bool:
    """Whether a setting, or a part of it, is NaN, or a rate is no finite number >= 0."""
    if key not in _RATES and isinstance(value, list | tuple):
        return any(_is_bad("", item) for item in value)
    if isinstance(value, float) and math.isnan(value):
        return True
    if key not in _RATES or value is None:
        return False
    if isinstance(value, Tensor):
        return value.numel() != 1 or not 0 <= value.item() < math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return not 0 <= value < math.inf


def _good(optimizer: Optimizer, group: SettingsOfGroup, key: str) -> object:
    """A value in place of a bad one: that which the code built, or else the default."""
    if key not in _RATES:
        choices = (with_origin(group).get(key), optimizer.defaults.get(key))
        return next((value for value in choices if not _is_bad(key, value)), 0.0)
    factor = rate(group, MULTIPLIERS.get(key, "")) if key in MULTIPLIERS else 1.0
    default = rate(optimizer.defaults, key)
    built = rate(with_origin(group), key)
    values = (built, None if default is None else default * (1.0 if factor is None else factor))
    return next((value for value in values if value is not None and value >= 0), 1e-3)


def _plain_type(value: object) -> str:
    """The built-in type that a value of another is to be written in."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind.__name__
    return "float" if isinstance(value, Number) else "str"


def _loads(value: object) -> bool:
    """Whether ``torch.load(weights_only=True)`` takes a value."""
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError, RuntimeError):
        return False
    return True


def missing_settings(subject: Subject) -> Iterator[Finding]:
    """Settings that the next step reads and a group does not have.

    Some defaults are no settings of the step: torch adds one to whatever it loads. A step of a
    small optimizer of the class, without the setting, tells.
    """
    missing = {
        label: needed
        for _, optimizer in subject.parts
        for label, group in labelled(optimizer)
        if (absent := sorted(optimizer.defaults.keys() - group.keys()))
        and (needed := step_needs(subject, optimizer, absent))
    }
    if missing:
        first, keys = next(iter(missing.items()))
        yield error(
            "missing-setting",
            missing,
            cause=f"{plural(len(missing), 'group', 'lack')} settings that the step reads: "
            f"{first!r} has no {', '.join(keys)}. Distributed checkpoints leave them out where "
            "groups have changed",
            fix=f"Give it the groups of the plan: {regrouped(subject)}"
            if subject.plan
            else "Give them what the optimizer was built with, and rates of their own where they "
            "had some: [group.setdefault(key, value) for group in optimizer.param_groups "
            f"for key, value in {defaults(subject)}.items()]",
        )


def shared_rates(subject: Subject) -> Iterator[Finding]:
    """One tensor as the rate of groups that should differ."""
    sharing: dict[int, list[tuple[str, SettingsOfGroup]]] = {}
    for label, group in subject.groups:
        if isinstance(group.get("lr"), Tensor):
            sharing.setdefault(id(group["lr"]), []).append((label, group))
    for members in sharing.values():
        if len({group.get("lr_mult") for _, group in members}) > 1:
            yield error(
                "shared-rate-tensor",
                (label for label, _ in members),
                cause=f"{plural(len(members), 'group')} of different lr_mult hold one and the "
                "same tensor as lr: what is written for one is the rate of all",
                fix="Give each its own: [group.update(lr=torch.tensor("
                f"float({defaults(subject)}['lr']) * group.get('lr_mult', 1))) "
                "for group in optimizer.param_groups]",
            )


def base_rates(subject: Subject) -> Iterator[Finding]:
    """Defaults of the optimizer that are not the rates which multipliers refer to."""
    if any(hasattr(scheduler, "max_lrs") for scheduler in subject.schedulers):
        return  # OneCycleLR starts at a rate of its own
    # Rates without a note of their start may have been changed since. A note was written by a
    # scheduler, some of which start at other rates: that scheduler has to be passed to `check`.
    scheduled = bool(subject.schedulers)
    for (whole, optimizer), (key, mult) in product(subject.parts, MULTIPLIERS.items()):
        if takes_over(whole):
            continue
        moved = scheduled or bool(optimizer.state)
        bases = []  # from which the groups with multipliers started
        for group in optimizer.param_groups:
            factor, first = start(group, mult), start(group, key)
            is_start = ORIGIN in group or (scheduled if f"initial_{key}" in group else not moved)
            if factor and first is not None and is_start and "max_lr" not in group:
                bases.append(first / factor)
        default = rate(optimizer.defaults, key)
        if not bases or default is None or not all(_close(base, bases[0]) for base in bases):
            continue
        if not _close(bases[0], default):
            yield warning(
                "base-rate",
                (),
                cause=f"{_by_code(whole, optimizer)}.defaults[{key!r}] is {default:g}, and the "
                f"groups have {key} = {bases[0]:g} * {mult}: schedulers with a minimum, such as "
                "transformers' cosine_with_min_lr, take the default for the base",
                fix="Pass the base to the constructor, or: "
                f"{_by_code(whole, optimizer)}.defaults[{key!r}] = {bases[0]:g}",
            )


def _by_code(whole: Optimizer, part: Optimizer) -> str:
    """An optimizer, or an algorithm of it, as code."""
    if whole is part:
        return "optimizer"
    return f"optimizer.algorithms[{part.param_groups[0][ALGORITHM]!r}]"


def drift(subject: Subject) -> Iterator[Finding]:
    """Rates that no longer stand in the ratio of their multipliers."""
    for (whole, optimizer), (key, mult) in product(subject.parts, MULTIPLIERS.items()):
        if key == "lr" and (
            keeps_ratios(whole)
            or subject.is_scheduled_by_us(whole)
            or any(map(has_own_functions, subject.schedulers_of(whole)))
        ):
            continue  # they are written before each step, or with its courses after it
        rates = [
            (label, factor, now)
            for label, group in labelled(optimizer)
            if (factor := rate(group, mult)) is not None and (now := rate(group, key)) is not None
        ]
        # The reference: multiplier 1, else the largest.
        reference = max(rates, key=lambda entry: (entry[1] == 1, entry[1]), default=None)
        if reference is None or not reference[1]:
            continue
        base = reference[2] / reference[1]
        if off := [entry for entry in rates if not _close(entry[2], base * entry[1])]:
            label, factor, now = off[0]
            yield error(
                "ratio-drift",
                (label for label, _, _ in off),
                cause=f"{plural(len(off), 'group', 'have')} left the ratio of {mult}: "
                f"{label!r} has {key} {now:.3g} and {mult} {factor:.3g}, where {reference[0]!r} "
                f"has {reference[2]:.3g} and {reference[1]:.3g}",
                fix="Build the scheduler by nnlr.schedule, or mend what it does before each step: "
                "nnlr.keep_ratios(optimizer)"
                if key == "lr"
                else f"Write it again: [group.update({key}={base:g} * group.get({mult!r}, 1)) "
                f"for group in {_by_code(whole, optimizer)}.param_groups]",
            )


def zero_rates(subject: Subject) -> Iterator[Finding]:
    """Groups that are kept at rate 0."""
    still = [
        label
        for label, group in subject.groups
        if group["params"]
        and MOVED not in group
        and (
            rate(group, "lr_mult") == 0
            if "lr_mult" in group
            else start(group) == rate(group, "lr") == 0
        )
    ]
    if still and len(still) < len(subject.groups):
        yield note(
            "zero-rate-group",
            still,
            cause=f"{plural(len(still), 'group', 'are')} kept at rate 0: they cost gradients and "
            "state, and gradient clipping counts them",
            fix=f"Lock them instead: {regrouped(subject)}"
            if subject.plan
            else "Freeze them instead, and leave them out: "
            f"{resolve_again(subject, frozen(_names_in(subject, still), subject.names))}",
        )


def _names_in(subject: Subject, labels: Sequence[str]) -> list[str]:
    """The parameters of some groups."""
    return [member.name for member in subject.members if member.label in labels]


def lr_scales(subject: Subject) -> Iterator[Finding]:
    """The ``lr_scale`` of timm, by which only its own schedulers multiply."""
    scaled = [
        (label, group, scale)
        for label, group in subject.groups
        if (scale := rate(group, "lr_scale")) is not None
    ]
    names = tuple(label for label, _, scale in scaled if scale != 1)
    if not names:
        return
    if premultiplied([(group, scale) for _, group, scale in scaled]):
        yield error(
            "squared-rate",
            names,
            cause=f"{plural(len(names), 'group', 'have')} lr_scale beside a rate that is "
            "multiplied already: a scheduler of timm multiplies once more, and squares it",
            fix="Drop it, and use no scheduler of timm: "
            "[group.pop('lr_scale', None) for group in optimizer.param_groups]",
        )
    elif not subject.schedulers:
        yield note(
            "lr-scale-alone",
            names,
            cause=f"{plural(len(names), 'group', 'have')} lr_scale, and the same rate as the "
            "others: only schedulers of timm multiply it in, and no scheduler was given",
            fix="Pass the scheduler too: nnlr.check(model, optimizer, scheduler)",
        )


def premultiplied(scaled: Sequence[tuple[SettingsOfGroup, float]]) -> bool:
    """Whether rates with an ``lr_scale`` have been multiplied by it, or another, already."""
    if any((rate(group, "lr_mult") or 1.0) != 1 for group, _ in scaled):
        return True
    starts = [(start(group) or 0.0, scale) for group, scale in scaled]
    bases = [first / scale for first, scale in starts if scale]
    return (
        len(bases) > 1
        and all(_close(base, bases[0]) for base in bases)
        and not all(_close(first, starts[0][0]) for first, _ in starts)
    )


def _close(one: float, other: float) -> bool:
    """Whether two rates are equal but for rounding."""
    return math.isclose(one, other, rel_tol=_NOISE)
