"""A live optimizer is given the groups of a new plan."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr.apply import (
    Signature,
    refuse_unfit,
    set_bases,
    warn_about_decay,
    without_decay,
)
from nnlr.errors import ConfigError, NnlrWarning
from nnlr.groups import Group, ParamGroup, param_groups
from nnlr.names import resolve_name
from nnlr.rows import Bases
from nnlr.tensors import Located

# What schedulers keep in a group in proportion to its learning rate.
_SCHEDULED: Final = ("lr", "initial_lr", "max_lr", "min_lr")


def regroup(
    optimizer: Optimizer,
    groups: Sequence[Group],
    located: Sequence[Located],
    bases: Bases,
) -> None:
    """Give a live optimizer new groups; what it knows of a parameter stays with it.

    State follows the tensor, or its name where the tensor was replaced; that of
    parameters which are in no group any more is dropped. Settings that the new groups do
    not speak of keep the value on which all old groups agree, but for ``eps``, which
    ``eps_mult`` multiplies and which is the optimizer's default again. If a scheduler has
    begun (groups carry ``initial_lr``), its progress on the reference group carries over
    to every new rate.

    Raises:
        ConfigError: If the optimizer refuses; it is then as it was.
    """
    signature = Signature.of_live(optimizer)
    refuse_unfit(signature, groups, located)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError(
            "LBFGS keeps one flat history of all parameters; build it anew."
        )
    old = optimizer.param_groups
    ready = param_groups(groups, located, eps=optimizer.defaults.get("eps"))
    warn_about_decay(optimizer, ready, bases)
    scheduled = _scheduled(old)
    if scheduled is not None:
        warnings.warn(
            "A scheduler was built on this optimizer and still holds the old rates. The "
            f"new groups continue at {scheduled['lr']:g} of their base rates; build the "
            "scheduler anew.",
            NnlrWarning,
            stacklevel=3,  # the caller of nnlr.regroup
        )
    _warn_about_lost(optimizer, located)
    agreed = _agreed_settings(old, optimizer.defaults)
    like = next((g["lr"] for g in old if isinstance(g["lr"], Tensor)), None)
    fresh = [
        {**agreed, **group, **_rates(group["lr"], scheduled or {"lr": 1.0}, like)}
        for group in without_decay(ready, signature)
    ]
    _replace(optimizer, fresh, _state_by_name(optimizer, fresh))
    set_bases(optimizer.defaults, bases)


def _warn_about_lost(optimizer: Optimizer, located: Sequence[Located]) -> None:
    """Warn where tensors were replaced and there are no names to find them again by."""
    present = {id(found.tensor) for found in located}
    lost = [
        tensor
        for group in optimizer.param_groups
        for tensor in group["params"]
        if "param_names" not in group
        and id(tensor) not in present
        and tensor in optimizer.state
    ]
    if lost:
        warnings.warn(
            f"The optimizer knows {len(lost)} tensors that the model does not have (any "
            "more), and no names to match them by: what it knows of them is dropped. "
            "Build it from model.named_parameters() or a plan to keep it.",
            NnlrWarning,
            stacklevel=4,  # the caller of nnlr.regroup
        )


def _agreed_settings(
    groups: Sequence[ParamGroup], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings that all groups share; the others will be the optimizer's defaults."""
    agreed = {}
    for key in defaults.keys() - {"lr", "weight_decay", "eps"}:
        values = [group.get(key) for group in groups]
        if all(type(v) is type(values[0]) and v == values[0] for v in values):
            agreed[key] = values[0]
    return agreed


def _scheduled(groups: Sequence[ParamGroup]) -> dict[str, float] | None:
    """How far a scheduler has moved the reference group, relative to its peak.

    ``None`` if there is no scheduler. One-cycle schedules start far under their peak and
    note it in the group; for the others the peak is where they started.
    """
    for group in groups:
        peak = group.get("max_lr") or group.get("initial_lr")
        if peak:
            return {key: float(group[key] / peak) for key in _SCHEDULED if key in group}
    return None


def _rates(
    lr: float, scheduled: Mapping[str, float], like: Tensor | None
) -> dict[str, float | Tensor]:
    """The rates of a new group: its own, as far as the schedule has come."""
    rates = {key: lr * relative for key, relative in scheduled.items()}
    if like is None:
        return dict(rates)
    return {key: like.new_tensor(value) for key, value in rates.items()}


def _state_by_name(
    optimizer: Optimizer, fresh: Sequence[ParamGroup]
) -> dict[Tensor, Any]:
    """What the optimizer knows of the parameters in the new groups."""
    state = optimizer.state
    new = dict(pair for group in fresh for pair in group["params"])
    old = {
        resolve_name(name, new) or name: tensor
        for group in optimizer.param_groups
        for name, tensor in zip(
            group.get("param_names", ()), group["params"], strict=False
        )
    }
    kept = {}
    for name, tensor in new.items():
        source = tensor if tensor in state else old.get(name)
        if source is not None and source in state and source.shape == tensor.shape:
            kept[tensor] = state[source]
    return kept


def _replace(
    optimizer: Optimizer, fresh: Sequence[ParamGroup], kept: Mapping[Tensor, Any]
) -> None:
    """Put the new groups and state in, or leave everything as it was."""
    groups, state = list(optimizer.param_groups), dict(optimizer.state)
    named = all("param_names" in group for group in groups)
    optimizer.param_groups.clear()
    for key in state:
        if isinstance(key, Tensor):  # some optimizers keep something about all of them
            del optimizer.state[key]
    try:
        for group in fresh:
            pairs = group["params"]
            params = pairs if named else [tensor for _, tensor in pairs]
            optimizer.add_param_group({**group, "params": params})
    except Exception as error:
        optimizer.param_groups[:] = groups
        optimizer.state.clear()
        optimizer.state.update(state)
        raise ConfigError(
            f"{type(optimizer).__name__} refused the new groups: {error}"
        ) from error
    optimizer.state.update(kept)
