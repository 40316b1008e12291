"""A new plan for an optimizer that has been training already."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._apply.optimizer import (
    named_tensors,
    set_bases,
    warn_about_decay,
    without_decay,
)
from nnlr._apply.param_groups import FittedPlan, ParamGroup
from nnlr._apply.signature import Signature, refuse_other_update, refuse_unfit
from nnlr._model.names import Source
from nnlr._plan import Plan
from nnlr._rows.groups import Locked
from nnlr._schedule import base_rate as baserate
from nnlr._schedule.progress import SCHEDULED, filled, progress
from nnlr._text import warn
from nnlr.checkpoint._hook import learn_names
from nnlr.checkpoint._names import matched
from nnlr.errors import ConfigError, NnlrError


def regroup(
    optimizer: Optimizer,
    plan: Plan,
    *,
    model: Source | None = None,
    partial: bool = False,
    locked: Locked = "drop",
    init: str | None = None,
) -> None:
    """Apply a new plan to a live optimizer; what it knows of each parameter stays.

    State follows a parameter's tensor, or its name where the tensor was replaced, and is
    dropped for parameters that the plan locks. Settings the plan does not speak of keep their
    values, also those that the old plan's options gave to all groups; where groups differ,
    they are the optimizer's defaults again. If a scheduler has begun, its progress carries
    over: one of ``nnlr.schedule`` goes on, others are to be built anew, which a warning says.
    ``ReduceLROnPlateau`` and rates set by hand leave no note of that, and the new plan's rates
    replace theirs.

    Args:
        optimizer: The optimizer; it is changed in place, or not at all.
        plan: The new plan.
        model: The model; ``None`` for the one the plan was made for.
        partial: The model is one stage or shard of it.
        locked: As in :meth:`Plan.param_groups`.
        init: As in :meth:`Plan.param_groups`.

    Raises:
        ConfigError: If the optimizer does not fit the plan.
        PlanMismatchError: If the model does not fit the plan.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> head_first = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0), lr=0.1, weight_decay=0)
        >>> optimizer = head_first.optimizer(torch.optim.Adam)
        >>> nnlr.regroup(optimizer, nnlr.resolve(net, lr=0.1, weight_decay=0))
        >>> [len(group["params"]) for group in optimizer.param_groups]
        [4]
    """
    if not isinstance(optimizer, Optimizer):
        raise NnlrError(f"regroup needs a torch optimizer, got {type(optimizer).__name__}.")
    if not isinstance(plan, Plan):
        raise NnlrError(f"regroup needs a Plan, got {type(plan).__name__}.")
    fit = plan.fit(model, partial=partial, locked=locked, init=init)
    _give_groups(optimizer, fit)
    fit.locks.apply()


# What the new groups bring themselves.
_RENEWED: Final = {
    *SCHEDULED,
    *("params", "param_names", "weight_decay", "eps", "name", "lr_mult", "wd_mult"),
    *("initial_weight_decay", "cycles_momentum", "cycles_betas"),  # notes of a schedule
}


def _give_groups(optimizer: Optimizer, fit: FittedPlan) -> None:
    """Give a live optimizer new groups; what it knows of a parameter stays with it.

    State follows the tensor, or its name where the tensor was replaced; that of
    parameters which are in no group any more is dropped. Settings that the new groups do
    not speak of keep the value on which all old groups agree, but for ``eps``, which
    ``eps_mult`` multiplies and which is the optimizer's default again. If a scheduler has
    begun (groups carry ``initial_lr``), the progress of the reference group carries over to
    every new rate; one made by ``nnlr.schedule`` goes on, at the new base rates. What leaves
    no such note (``ReduceLROnPlateau``, a rate set by hand) cannot be told from a base rate:
    the new plan's rates replace it.

    Raises:
        ConfigError: If the optimizer refuses; it is then as it was.
    """
    signature = Signature.of_live(optimizer)
    refuse_other_update(signature, {}, fit.groups, fit.located)
    refuse_unfit(signature, fit.groups, fit.located)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("LBFGS keeps one flat history of all parameters; build it anew.")
    old = optimizer.param_groups
    ready = fit.param_groups(eps=optimizer.defaults.get("eps"))
    warn_about_decay(optimizer, ready, fit.bases)
    scheduled = progress(old)
    if scheduled is not None and not baserate.scheduled(optimizer):
        warn(
            "A scheduler was built on this optimizer. The new groups continue at "
            f"{scheduled['lr']:g} of their base rates; build the scheduler anew: the old one "
            "holds the old rates, and its next step may fail. One of nnlr.schedule goes on."
        )
    _warn_about_lost(optimizer, fit.located)
    agreed = _agreed_settings(old)
    like = next((g["lr"] for g in old if isinstance(g["lr"], Tensor)), None)
    fresh = [
        {**agreed, **group, **_rates(group["lr"], scheduled or {"lr": 1.0}, like)}
        for group in without_decay(ready, signature)
    ]
    if any("initial_weight_decay" in group for group in old):
        for group in fresh:  # the schedule goes on, and will write where it has come
            group["initial_weight_decay"] = group["weight_decay"]
    _replace(optimizer, fresh, _state_by_name(optimizer, fresh))
    learn_names(optimizer, named_tensors(fit.located))
    before = dict(optimizer.defaults)
    set_bases(optimizer.defaults, fit.bases)
    baserate.rebase(optimizer, before)


def _warn_about_lost(optimizer: Optimizer, located: Sequence[Located]) -> None:
    """Warn where tensors were replaced and there are no names to find them again by."""
    present = {id(found.tensor) for found in located}
    lost = [
        tensor
        for group in optimizer.param_groups
        for tensor in group["params"]
        if "param_names" not in group and id(tensor) not in present and tensor in optimizer.state
    ]
    if lost:
        warn(
            f"The optimizer knows {len(lost)} tensors that the model does not have (any "
            "more), and no names to match them by: what it knows of them is dropped. "
            "Build it from model.named_parameters() or a plan to keep it."
        )


def _agreed_settings(groups: Sequence[ParamGroup]) -> dict[str, Any]:
    """What all groups share, be it a setting or a scheduler's note; rates are not meant.

    A setting on which they differ will be the optimizer's default.
    """
    first, *others = groups
    return {
        key: value
        for key, value in first.items()
        if key not in _RENEWED
        and all(key in group and _same(group[key], value) for group in others)
    }


def _same(one: object, other: object) -> bool:
    return one is other or (not isinstance(one, Tensor) and one == other)


def _rates(
    lr: float, scheduled: Mapping[str, float], like: Tensor | None
) -> dict[str, float | Tensor]:
    """The rates of a new group: its own, as far as the schedule has come."""
    return {key: filled(lr * relative, like) for key, relative in scheduled.items()}


def _state_by_name(optimizer: Optimizer, fresh: Sequence[ParamGroup]) -> dict[Tensor, Any]:
    """What the optimizer knows of the parameters in the new groups."""
    state = optimizer.state
    new = dict(pair for group in fresh for pair in group["params"])
    saved = {
        name: tensor
        for group in optimizer.param_groups
        for name, tensor in zip(group.get("param_names", ()), group["params"], strict=False)
    }
    old = {new_name: saved[name] for name, new_name in matched(list(saved), new).items()}
    kept = {}
    for name, tensor in new.items():
        source = tensor if tensor in state else old.get(name)
        if source is not None and source in state and source.shape == tensor.shape:
            kept[tensor] = state[source]
    return kept


def _replace(optimizer: Optimizer, fresh: Sequence[ParamGroup], kept: Mapping[Tensor, Any]) -> None:
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
        raise ConfigError(f"{type(optimizer).__name__} refused the new groups: {error}") from error
    optimizer.state.update(kept)
