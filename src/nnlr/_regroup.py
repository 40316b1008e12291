"""Give an optimizer that has been training the groups of a new plan."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._apply.moving import moving_schemes, wait_for_attach
from nnlr._apply.optimizer import set_bases, tell, warn_about_decay, without_decay
from nnlr._apply.options import judge_options
from nnlr._apply.param_groups import FittedPlan, ParamGroup
from nnlr._apply.signature import (
    Signature,
    refuse_other_update,
    refuse_several,
    refuse_unfit,
    refuse_unrouted,
)
from nnlr._attach.attach import attachment_of
from nnlr._model.names import Source
from nnlr._plan import Plan
from nnlr._rows.groups import Locked
from nnlr._schedule import base_rate
from nnlr._schedule.moved import MOVED
from nnlr._schedule.origin import ORIGIN, as_built
from nnlr._schedule.progress import SCHEDULED, filled, progress
from nnlr._text import listed, plural, warn
from nnlr.checkpoint._hook import classes_of, hook_of
from nnlr.checkpoint._names import KIND, SHAPE, matched, names_of
from nnlr.checkpoint._sides import Source as Saved
from nnlr.checkpoint._sides import same
from nnlr.checkpoint._state import Judge
from nnlr.errors import ConfigError, NnlrError
from nnlr.optim._members import ALGORITHM, common_defaults
from nnlr.optim._mixed import Mixed, by_algorithm, member_of


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
    dropped for parameters that the plan locks, or that have another shape or another algorithm
    now, which a warning says. Settings the plan does not speak of are the optimizer's own, unless
    training or a hand has moved them from what the old plan built, in all groups of its class
    alike: then they stay.

    A plan routes to the algorithms for which a :class:`nnlr.optim.Mixed` was built; one of them
    may become empty, and another begin.

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
    members = _members(optimizer, fit)
    for member, part in members.values():
        signature = Signature.of_live(member)
        refuse_other_update(signature, {}, part.groups, part.located)
        refuse_unfit(signature, part.groups, part.located)
        judge_options(member, part.groups, part.located, {})
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("LBFGS keeps one flat history of all parameters; build a new one.")

    old_groups = optimizer.param_groups
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

    new_groups = [
        group
        for name, (member, part) in members.items()
        for group in _new_groups(member, part, by_algorithm(optimizer).get(name, []), old_groups)
    ]
    base_rate.refuse_lost_courses(optimizer, new_groups)
    state, misfits = _state_by_name(optimizer, new_groups, members)
    if misfits:
        warn(
            f"The optimizer's state of {plural(len(misfits), 'parameter')} does not fit (any "
            f"more) and is dropped, so that they start afresh: {listed(misfits)}."
        )
    _replace(optimizer, new_groups, state)
    tell(optimizer, fit.located)
    if isinstance(optimizer, Mixed):
        # In the plan's order; those that train nothing any more are kept as classes only.
        names = [str(name) for name in members]
        optimizer._members = {name: optimizer.algorithms[name] for name in names}
        classes = optimizer._factories
        optimizer._factories = {name: classes[name] for name in dict.fromkeys([*names, *classes])}
        for name, member in optimizer.algorithms.items():
            set_bases(member.defaults, members[name][1].bases)
        optimizer.defaults = common_defaults(optimizer.algorithms.values())
    else:
        set_bases(optimizer.defaults, fit.bases)
    base_rate.rebase(optimizer)
    fit.locks.apply(optimizer)
    _attach_again(optimizer, plan, fit)


def _attach_again(optimizer: Optimizer, plan: Plan, fit: FittedPlan) -> None:
    """Have the moves of the new plan act, if those of the old one did."""
    attachment = attachment_of(optimizer)
    if attachment is None:
        wait_for_attach(optimizer, fit.located)
    elif moving_schemes(fit.located):
        attachment.follow(plan, fit.located, fit.model)
    else:
        attachment.remove()


# The optimizer of each algorithm, and what it trains of the plan; of one class under None.
_Members = Mapping[str | None, tuple[Optimizer, FittedPlan]]


def _members(optimizer: Optimizer, fit: FittedPlan) -> _Members:
    """Return what trains the plan; refuse an algorithm for which there is no class."""
    if not isinstance(optimizer, Mixed):
        refuse_several(type(optimizer), fit)
        return {None: (optimizer, fit)}
    members: dict[str | None, tuple[Optimizer, FittedPlan]] = {}
    classes = optimizer._factories
    refuse_unrouted(classes, fit)
    if unknown := [g.algorithm for g in fit.groups if g.algorithm not in classes]:
        raise ConfigError(
            f"The plan routes parameters to {unknown[0]!r}, and this optimizer was built with "
            f"classes for {listed(map(repr, classes))} only. Build one that has them all, by "
            "plan.optimizer({...}), and load the state_dict() of this one: it goes by name.",
            algorithms=unknown,
        )
    for name in dict.fromkeys(group.algorithm for group in fit.groups):
        part = fit.part(str(name))
        member = optimizer.algorithms.get(str(name))
        if member is None:  # it has trained nothing so far
            group = {"params": [param.tensor for param in part.located], "algorithm": name}
            member = Mixed([group], classes).algorithms[str(name)]
        members[name] = member, part
    return members


def _new_groups(
    member: Optimizer,
    fit: FittedPlan,
    old: Sequence[ParamGroup],
    all_old: Sequence[ParamGroup],
) -> list[ParamGroup]:
    """Return the new groups of an optimizer, or of one of several algorithms.

    Their settings are those that its old groups share, then the plan's, then the plan's rates as
    far as a scheduler has moved the old ones.
    """
    plan_groups = fit.param_groups(eps=member.defaults.get("eps"))
    warn_about_decay(member, plan_groups, fit.bases)
    scheduled = progress(old or all_old) or {"lr": 1.0}
    shared = _continued(old, member.defaults)
    origins = _agreed([group.get(ORIGIN, {}) for group in old])
    moved = {key: value for key, value in origins.items() if key in shared}
    tensor_lr = next((g["lr"] for g in all_old if isinstance(g.get("lr"), Tensor)), None)
    new_groups = []
    for group in without_decay(plan_groups, Signature.of_live(member)):
        rates = {
            key: filled(group["lr"] * relative, tensor_lr) for key, relative in scheduled.items()
        }
        undeclared = _undeclared(member.defaults, old, group)
        origin = as_built({**member.defaults, **moved, **undeclared, **group})
        notes = {key: _own(key, value, old) for key, value in {**shared, **undeclared}.items()}
        new_groups.append({**notes, **group, **rates, **_moved(group, all_old), ORIGIN: origin})
    if any("initial_weight_decay" in group for group in all_old):
        for group in new_groups:  # a schedule of weight decay goes on from the plan's value
            group["initial_weight_decay"] = group["weight_decay"]
    return new_groups


# Settings that the new groups never take from the old ones. `eps` is among them, since
# `eps_mult` multiplies the optimizer's default.
_RENEWED: Final = {
    *SCHEDULED,
    *("params", "param_names", "weight_decay", "eps", "name", "lr_mult", "wd_mult"),
    *("initial_weight_decay", "cycles_momentum", "cycles_betas"),  # notes of a schedule
    ORIGIN,
    MOVED,
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
    first, *others = groups or [{}]
    return {
        key: value
        for key, value in first.items()
        if key not in renewed and all(key in group and same(group[key], value) for group in others)
    }


def _moved(group: ParamGroup, old_groups: Sequence[ParamGroup]) -> dict[str, Any]:
    """Return how far moves had come in an old group of one of its tensors."""
    tensors = {id(tensor) for _, tensor in group["params"] if MOVED in group}
    return next(
        (
            {MOVED: old[MOVED]}
            for old in old_groups
            if MOVED in old and not tensors.isdisjoint(map(id, old["params"]))
        ),
        {},
    )


def _own(key: str, value: Any, groups: Sequence[ParamGroup]) -> Any:  # noqa: ANN401 - any setting
    """Return a setting for one group; some count steps in a tensor of each group, in place."""
    shared = len(groups) > 1 and all(group.get(key) is value for group in groups)
    return value.clone() if isinstance(value, Tensor) and not shared else value


def _undeclared(
    defaults: Mapping[str, Any], old_groups: Sequence[ParamGroup], new_group: ParamGroup
) -> dict[str, Any]:
    """Return the settings without a default that the old groups of a new one's tensors share.

    Where the optimizer has no default to put in, they go with the tensors.
    """
    tensors = {id(tensor) for _, tensor in new_group["params"]}
    before = [
        {key: value for key, value in group.items() if key not in defaults}
        for group in old_groups
        if not tensors.isdisjoint(map(id, group["params"]))
    ]
    return _agreed(before, renewed=_RENEWED - {"eps"})


def _state_by_name(
    optimizer: Optimizer, new_groups: Sequence[ParamGroup], members: _Members
) -> tuple[dict[Tensor, Any], list[str]]:
    """Return the optimizer's state of each parameter in the new groups, and whose does not fit.

    State follows the tensor, or its name where the tensor was replaced, as long as a class that
    is related steps it.
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
    judges = {
        id(member): Judge(
            member,
            [state.get(tensor) for tensor, group in old if _are_related(member, optimizer, group)],
            other=False,
            same=True,
        )
        for member, _ in members.values()
    }
    new_state, misfits = {}, []
    for group in new_groups:
        member, _ = members.get(group.get(ALGORITHM)) or members[None]
        settings = {**member.defaults, **group}
        for name, tensor in group["params"]:
            source = tensor
            if tensor not in state and name in old_names:
                source = old_tensors[old_names[name]]
            if source not in state:
                continue
            was = group_of.get(id(source), settings)
            if not _are_related(member, optimizer, was):
                misfits.append(name)
                continue
            verdict = judges[id(member)].verdict(state[source], tensor, settings, was, whole=False)
            if verdict.state is not None:
                new_state[tensor] = verdict.state
            elif verdict.reason in {SHAPE, KIND}:
                misfits.append(name)
    return new_state, misfits


def _are_related(member: Optimizer, optimizer: Optimizer, was: ParamGroup) -> bool:
    """Whether an optimizer's class is that which stepped an old group, or a related one."""
    return not set(classes_of(member)).isdisjoint(classes_of(member_of(optimizer, was)))


def _replace(
    optimizer: Optimizer, new_groups: Sequence[ParamGroup], new_state: Mapping[Tensor, Any]
) -> None:
    """Put the new groups and state in, or leave everything as it was."""
    old_groups, old_state = list(optimizer.param_groups), dict(optimizer.state)
    named = all("param_names" in group for group in old_groups)
    members = dict(getattr(optimizer, "_members", {}))  # of a Mixed one
    optimizer.param_groups.clear()
    if isinstance(optimizer, Mixed):
        optimizer._share()
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
        if isinstance(optimizer, Mixed):
            optimizer._members = members
            optimizer._share()
        raise ConfigError(f"{type(optimizer).__name__} refused the new groups: {error}") from error
    optimizer.state.update(new_state)
