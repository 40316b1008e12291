"""Give an optimizer that has been training the groups of a new plan."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._apply.optimizer import set_bases, tell, warn_about_decay, without_decay
from nnlr._apply.options import judge_options
from nnlr._apply.param_groups import ParamGroup
from nnlr._apply.signature import Signature, refuse_other_update, refuse_unfit
from nnlr._model.names import Source
from nnlr._plan import Plan
from nnlr._rows.groups import Locked
from nnlr._schedule import base_rate
from nnlr._schedule.origin import ORIGIN, as_built
from nnlr._schedule.progress import SCHEDULED, filled, progress
from nnlr._text import listed, plural, warn
from nnlr.checkpoint._hook import hook_of
from nnlr.checkpoint._names import KIND, SHAPE, matched, names_of
from nnlr.checkpoint._sides import Source as Saved
from nnlr.checkpoint._sides import same
from nnlr.checkpoint._state import Judge
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
    """Apply a new plan to an optimizer in use; it keeps the state of each parameter.

    State follows a parameter's tensor, or its name where the tensor was replaced, and is
    dropped for parameters that the plan locks, or that have another shape now, which a warning
    says. Settings the plan does not speak of are the optimizer's own, unless training or a hand
    has moved them from what the old plan built, in all groups alike: then they stay.

    If a scheduler has begun, its progress carries over: one of ``nnlr.schedule`` goes on, others
    have to be built again, which a warning says. ``ReduceLROnPlateau`` and rates set by hand
    leave no note of that, and the new plan's rates replace theirs.

    Args:
        optimizer: The optimizer; it is changed in place, or not at all.
        plan: The new plan.
        model: The model; ``None`` for the one the plan was made for.
        partial: The model is one stage or shard of it.
        locked: As in :meth:`Plan.param_groups`.
        init: As in :meth:`Plan.param_groups`.

    Raises:
        ConfigError: If the optimizer does not fit the plan, or a schedule by groups has a course
            for parameters that are in groups of other names now.
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
    # Refuse what does not fit before anything is changed.
    fit = plan.fit(model, partial=partial, locked=locked, init=init)
    signature = Signature.of_live(optimizer)
    refuse_other_update(signature, {}, fit.groups, fit.located)
    refuse_unfit(signature, fit.groups, fit.located)
    judge_options(optimizer, fit.groups, fit.located, {})
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("LBFGS keeps one flat history of all parameters; build a new one.")

    old_groups = optimizer.param_groups
    plan_groups = fit.param_groups(eps=optimizer.defaults.get("eps"))
    warn_about_decay(optimizer, plan_groups, fit.bases)
    scheduled = progress(old_groups)
    if scheduled is not None and not base_rate.scheduled(optimizer):
        warn(
            "A scheduler was built on this optimizer. The new groups continue at "
            f"{scheduled['lr']:g} of their base rates; build a new scheduler: the old one "
            "holds the old rates, and its next step may fail. One of nnlr.schedule goes on."
        )
    present = {id(location.tensor) for location in fit.located}
    dropped = [
        tensor
        for group in old_groups
        for tensor in group["params"]
        if "param_names" not in group and id(tensor) not in present and tensor in optimizer.state
    ]
    if dropped:
        warn(
            f"The optimizer knows {len(dropped)} tensors that the model does not have (any "
            "more), and no names to match them by: what it knows of them is dropped. "
            "Build it from model.named_parameters() or a plan to keep it."
        )

    # Settings of the new groups: those that all old groups share, then the plan's, then the
    # plan's rates as far as a scheduler has moved the old ones.
    shared = _continued(old_groups, optimizer.defaults)
    origins = _agreed([group.get(ORIGIN, {}) for group in old_groups])
    moved = {key: value for key, value in origins.items() if key in shared}
    tensor_lr = next((g["lr"] for g in old_groups if isinstance(g.get("lr"), Tensor)), None)
    new_groups = []
    for group in without_decay(plan_groups, signature):
        rates = {
            key: filled(group["lr"] * relative, tensor_lr)
            for key, relative in (scheduled or {"lr": 1.0}).items()
        }
        undeclared = _undeclared(optimizer, group)
        origin = as_built({**optimizer.defaults, **moved, **undeclared, **group})
        notes = {
            key: _own(key, value, old_groups) for key, value in {**shared, **undeclared}.items()
        }
        new_groups.append({**notes, **group, **rates, ORIGIN: origin})
    if any("initial_weight_decay" in group for group in old_groups):
        for group in new_groups:  # a schedule of weight decay goes on from the plan's value
            group["initial_weight_decay"] = group["weight_decay"]

    base_rate.refuse_lost_courses(optimizer, new_groups)
    state, misfits = _state_by_name(optimizer, new_groups)
    if misfits:
        warn(
            f"The optimizer's state of {plural(len(misfits), 'parameter')} does not fit (any "
            f"more) and is dropped, so that they start afresh: {listed(misfits)}."
        )
    _replace(optimizer, new_groups, state)
    tell(optimizer, fit.located)
    set_bases(optimizer.defaults, fit.bases)
    base_rate.rebase(optimizer)
    fit.locks.apply(optimizer)


# Settings that the new groups never take from the old ones. `eps` is among them, since
# `eps_mult` multiplies the optimizer's default.
_RENEWED: Final = {
    *SCHEDULED,
    *("params", "param_names", "weight_decay", "eps", "name", "lr_mult", "wd_mult"),
    *("initial_weight_decay", "cycles_momentum", "cycles_betas"),  # notes of a schedule
    ORIGIN,
}


def _continued(groups: Sequence[ParamGroup], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings and schedulers' notes, other than rates, that go on in new groups.

    All old groups share them, and they have moved since they were built, or nobody knows.
    """
    return {
        key: value
        for key, value in _agreed(groups).items()
        if key not in defaults
        or any(Saved(group, group.get(ORIGIN, {})).moved(key) for group in groups)
    }


def _agreed(
    groups: Sequence[Mapping[str, Any]], renewed: Collection[str] = _RENEWED
) -> dict[str, Any]:
    """Return the settings that all groups share, other than those that a plan renews."""
    first, *others = groups
    return {
        key: value
        for key, value in first.items()
        if key not in renewed and all(key in group and same(group[key], value) for group in others)
    }


def _own(key: str, value: Any, groups: Sequence[ParamGroup]) -> Any:  # noqa: ANN401 - any setting
    """Return a setting for one group; some count steps in a tensor of each group, in place."""
    shared = len(groups) > 1 and all(group.get(key) is value for group in groups)
    return value.clone() if isinstance(value, Tensor) and not shared else value


def _undeclared(optimizer: Optimizer, new_group: ParamGroup) -> dict[str, Any]:
    """Return the settings without a default that the old groups of a new one's tensors share.

    Where the optimizer has no default to put in, they go with the tensors.
    """
    tensors = {id(tensor) for _, tensor in new_group["params"]}
    before = [
        {key: value for key, value in group.items() if key not in optimizer.defaults}
        for group in optimizer.param_groups
        if not tensors.isdisjoint(map(id, group["params"]))
    ]
    return _agreed(before, renewed=_RENEWED - {"eps"}) if before else {}


def _state_by_name(
    optimizer: Optimizer, new_groups: Sequence[ParamGroup]
) -> tuple[dict[Tensor, Any], list[str]]:
    """Return the optimizer's state of each parameter in the new groups, and whose does not fit.

    State follows the tensor, or its name where the tensor was replaced.
    """
    state, hook = optimizer.state, hook_of(optimizer)
    new_tensors = dict(pair for group in new_groups for pair in group["params"])
    names = names_of(optimizer, [] if hook is None else hook.pairs())
    old = [(tensor, group) for group in optimizer.param_groups for tensor in group["params"]]
    group_of = {id(tensor): group for tensor, group in old}
    old_tensors = {
        names.name_of[id(tensor)]: tensor for tensor, _ in old if id(tensor) in names.name_of
    }
    old_names = {new: old for old, new in matched(list(old_tensors), new_tensors).items()}
    judge = Judge(optimizer, state.values(), other=False, same=True)
    new_state, misfits = {}, []
    for group in new_groups:
        settings = {**optimizer.defaults, **group}
        for name, tensor in group["params"]:
            source = tensor
            if tensor not in state and name in old_names:
                source = old_tensors[old_names[name]]
            if source not in state:
                continue
            was = group_of.get(id(source), settings)
            verdict = judge.verdict(state[source], tensor, settings, was, whole=False)
            if verdict.state is not None:
                new_state[tensor] = verdict.state
            elif verdict.reason in {SHAPE, KIND}:
                misfits.append(name)
    return new_state, misfits


def _replace(
    optimizer: Optimizer, new_groups: Sequence[ParamGroup], new_state: Mapping[Tensor, Any]
) -> None:
    """Put the new groups and state in, or leave everything as it was."""
    old_groups, old_state = list(optimizer.param_groups), dict(optimizer.state)
    named = all("param_names" in group for group in old_groups)
    optimizer.param_groups.clear()
    for key in old_state:
        if isinstance(key, Tensor):  # some optimizers keep something about all parameters
            del optimizer.state[key]
    try:
        for group in new_groups:
            pairs = group["params"]
            params = pairs if named else [tensor for _, tensor in pairs]
            optimizer.add_param_group({**group, "params": params})
    except Exception as error:
        optimizer.param_groups[:] = old_groups
        optimizer.state.clear()
        optimizer.state.update(old_state)
        raise ConfigError(f"{type(optimizer).__name__} refused the new groups: {error}") from error
    optimizer.state.update(new_state)
