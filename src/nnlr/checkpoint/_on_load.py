"""Load optimizer state by name: as functions, and as a hook of ``load_state_dict``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, get_args

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nnlr._arguments import choice, flag
from nnlr._arguments import names as names_in_order
from nnlr._model.names import Source
from nnlr._schedule.origin import note_origin
from nnlr._text import shown
from nnlr.checkpoint._fit import fitted
from nnlr.checkpoint._foreign import imported
from nnlr.checkpoint._guard import guard, undo_if_refused
from nnlr.checkpoint._hook import Hook, Policy, StateDict, hook_of, in_order, runs_hooks
from nnlr.checkpoint._names import Names, Pairs, names_of, pairs_of, require_names
from nnlr.checkpoint._refuse import refuse_malformed
from nnlr.checkpoint._report import Report, warn_about
from nnlr.checkpoint._saved import Saved, by_position, fqns, read_indexed, read_named
from nnlr.checkpoint._sides import NOTE
from nnlr.errors import ConfigError, NnlrError

POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)


def fit_state(
    state_dict: Mapping[str, Any],
    optimizer: Optimizer,
    *,
    model: Source | None = None,
    saved_names: Sequence[str] | None = None,
    policy: Policy = "code",
) -> tuple[StateDict, Report]:
    """Make a saved ``optimizer.state_dict()`` fit an optimizer as it is grouped now.

    Nothing is changed, neither the dictionary nor the optimizer; tensors are handed on, not
    copied, except that whole ones are sharded where the parameter is a ``DTensor``. State of
    parameters that are gone, frozen or of another shape is left out, and new parameters
    start afresh; the report lists them. Differences of settings are one ``NnlrWarning`` too.
    A schedule of nnlr has a state of its own, which follows the base rates of the code only
    where :func:`on_load` is in force.

    Args:
        state_dict: What ``optimizer.state_dict()`` gave, of any grouping. For a
            :class:`nnlr.optim.Mixed` also what others saved of several algorithms, such as a list
            of the state dicts of separate optimizers.
        optimizer: The optimizer that will load it.
        model: The model, for canonical and tied names, and for optimizers that were built
            without names.
        saved_names: Names of the saved parameters, in the order of the old optimizer's
            groups, for a checkpoint that has none. Without them such a checkpoint is taken
            by position if its groups have the same sizes.
        policy: Whose rates and multipliers count, ``"code"`` or ``"checkpoint"``.

    Returns:
        The dictionary for ``optimizer.load_state_dict``, and a :class:`Report`.

    Raises:
        ConfigError: If nothing tells which saved parameter is which, no name fits, or a
            group would need two values of one setting.

    Examples:
        >>> import torch
        >>> net = torch.nn.Linear(2, 1)
        >>> old = torch.optim.SGD(net.named_parameters(), lr=0.1, momentum=0.9)
        >>> net(torch.ones(2)).backward()
        >>> old.step()
        >>> new = torch.optim.SGD(
        ...     [{"params": [pair]} for pair in net.named_parameters()], lr=0.1, momentum=0.9
        ... )
        >>> state, report = fit_state(old.state_dict(), new)
        >>> new.load_state_dict(state)
        >>> print(report)
        Optimizer state: 2 moved, 0 fresh, 0 unused.
    """
    check(optimizer, "fit_state", policy, saved_names)
    state_dict = imported(state_dict, optimizer)
    hook = hook_of(optimizer)
    pairs = pairs_of(model) if model is not None or hook is None else hook.pairs()
    result, report = _fit_indexed(state_dict, optimizer, pairs, saved_names, policy)
    mark(result, optimizer)
    warn_about(report)
    return result, report


def fit_named_state(
    state_dict: Mapping[str, Any],
    optimizer: Optimizer,
    model: nn.Module,
    *,
    policy: Policy = "code",
    full: bool = False,
) -> tuple[StateDict, Report]:
    """Make a state dict keyed by parameter names fit, for torch's distributed checkpoints.

    ``get_optimizer_state_dict`` gives such a dictionary, and ``set_optimizer_state_dict``
    matches its state by name, but not its settings: groups that were split or merged are
    left without ``lr``, or with that of another. Call this in between. It takes both forms,
    flattened or not, and gives the one that is not, which fits either.

    Args:
        state_dict: The dictionary; an empty one, as ranks have that wait for a broadcast,
            is handed on.
        optimizer: The optimizer that will load it.
        model: The model that will be given to ``set_optimizer_state_dict``.
        policy: As in :func:`fit_state`.
        full: It will be set with ``StateDictOptions(full_state_dict=True)``. Torch then shards
            tensors itself, which are therefore left whole, and takes no settings that the
            optimizer's groups do not have, which are left out: build schedules before.
            Needed with ``broadcast_from_rank0``, or where a schedule is not built yet.

    Returns:
        The dictionary for ``set_optimizer_state_dict``, and a :class:`Report`.

    Raises:
        ConfigError: As :func:`fit_state`, and where ``set_optimizer_state_dict`` would fail
            without saying why: an optimizer with an empty group, or one that has no state
            yet while gradients are there.

    Examples:
        >>> import torch
        >>> from torch.distributed.checkpoint import state_dict as dcp
        >>> net = torch.nn.Linear(2, 1)
        >>> old = torch.optim.AdamW(net.named_parameters(), lr=0.1)
        >>> saved = dcp.get_optimizer_state_dict(net, old)
        >>> groups = [{"params": [pair]} for pair in net.named_parameters()]
        >>> new = torch.optim.AdamW(groups, lr=0.1)
        >>> state, report = fit_named_state(saved, new, net)
        >>> dcp.set_optimizer_state_dict(net, new, state)
        >>> print(report)
        Optimizer state: 2 moved, 0 fresh, 0 unused.
    """
    check(optimizer, "fit_named_state", policy)
    flag(full, "full")
    if not isinstance(model, nn.Module):
        raise NnlrError(f"fit_named_state needs the model, got {shown(model)}.")
    if not isinstance(state_dict, Mapping) or not all(isinstance(key, str) for key in state_dict):
        raise NnlrError(
            "state_dict must be what get_optimizer_state_dict gave, a dictionary by names, got "
            f"{shown(state_dict)}.",
            value=state_dict,
        )
    if not state_dict:
        return {}, Report()
    saved = read_named(state_dict)
    _refuse_unloadable(saved, optimizer)
    names = Names()
    names.add(pairs_of(model))
    require_names(optimizer, names)
    result, report = fitted(saved, optimizer, names, policy, whole=full)
    groups = zip(result["param_groups"], optimizer.param_groups, strict=True)
    if full:
        result["param_groups"] = [
            {key: value for key, value in new.items() if key in group} for new, group in groups
        ]
    mark(result, optimizer)
    warn_about(report)
    # Keyed by names; parameters that start afresh have no state.
    name_of = fqns(model)
    named = [name_of[id(p)] for group in optimizer.param_groups for p in group["params"]]
    state = {key: value for key, value in result["state"].items() if not isinstance(key, int)}
    state |= {name: result["state"].get(at, {}) for at, name in enumerate(named)}
    packed = [{**g, "params": [named[at] for at in g["params"]]} for g in result["param_groups"]]
    return {"state": state, "param_groups": packed}, report


def on_load(
    optimizer: Optimizer,
    *,
    model: Source | None = None,
    saved_names: Sequence[str] | None = None,
    policy: Policy = "code",
) -> RemovableHandle:
    """Make ``optimizer.load_state_dict`` match by name, from now on.

    ``plan.optimizer`` does this. It reads the groups of the moment, so ``nnlr.regroup`` and
    ``add_param_group`` may change them; the model is remembered weakly. A second call
    replaces the first. Like all hooks, it does not travel with copies and pickles.

    Args:
        optimizer: Any torch optimizer.
        model: As in :func:`fit_state`.
        saved_names: As in :func:`fit_state`; used for checkpoints without names only.
        policy: As in :func:`fit_state`.

    Returns:
        A handle; ``handle.remove()`` ends it.

    Raises:
        ConfigError: If the optimizer runs no hooks, or its tensors have no names. When it loads,
            ``load_state_dict`` raises one for a state that is damaged or of another model, and
            changes nothing; what is no dictionary at all is torch's ``AttributeError``.

    Examples:
        >>> import torch
        >>> net = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.AdamW(net.named_parameters())
        >>> handle = on_load(optimizer, model=net)
        >>> installed(optimizer)
        True
    """
    check(optimizer, "on_load", policy, saved_names)
    if not runs_hooks(optimizer):
        raise ConfigError(
            f"{type(optimizer).__name__} runs no hooks. Call on_load on the optimizer that it "
            "wraps, or nnlr.checkpoint.fit_state before loading."
        )
    pairs = pairs_of(model)
    require_names(optimizer, names_of(optimizer, pairs))
    hook = Hook(model, saved_names, policy, _load)
    hook.learn(pairs)
    note_origin(optimizer.param_groups)
    guard(optimizer)
    return hook.install(optimizer)


def installed(optimizer: Optimizer) -> bool:
    """Whether loading matches by name: whether :func:`on_load` is in force.

    Args:
        optimizer: Any torch optimizer.

    Raises:
        NnlrError: If it is none.
    """
    check(optimizer, "installed")
    return hook_of(optimizer) is not None


def last_report(optimizer: Optimizer) -> Report | None:
    """Return the report on the state that the optimizer loaded last; ``None`` before that.

    Args:
        optimizer: Any torch optimizer.

    Raises:
        NnlrError: If it is none.
    """
    check(optimizer, "last_report")
    hook = hook_of(optimizer)
    return None if hook is None else hook.report


def _load(hook: Hook, optimizer: Optimizer, state_dict: StateDict) -> StateDict:
    """Make a state dict fit before the optimizer loads it; the hook keeps the report."""
    state_dict = imported(state_dict, optimizer)
    if not _is_state(state_dict):
        raise ConfigError(
            f"{type(optimizer).__name__} was given a state without 'state' and 'param_groups', got "
            f"{shown(state_dict)}: it cannot be matched by name. Pass what optimizer.state_dict() "
            "gave. Where the class has a form of its own, build it with "
            "plan.optimizer(..., resume=None), which leaves loading to it."
        )
    pairs = hook.pairs()
    result, report = _fit_indexed(state_dict, optimizer, pairs, hook.saved_names, hook.policy)
    groups = state_dict["param_groups"]
    fitted_for = [(group.get(NOTE) or {}).get("fitted") for group in groups]
    names = names_of(optimizer, pairs).name_of
    orders = [in_order(group, names) for group in optimizer.param_groups]
    if any(fitted_for) and fitted_for == orders:
        # A call of fit_state has made it fit and warned, perhaps by another policy.
        report = replace(report, differences=(), partly={}, made_by="")
        without_note = [{k: v for k, v in group.items() if k != NOTE} for group in groups]
        result = {**state_dict, "param_groups": without_note}
    else:
        warn_about(report)
    hook.report = report
    undo_if_refused(optimizer)
    return result


def mark(result: StateDict, optimizer: Optimizer) -> None:
    """Tell the hook of an optimizer, if it has one, that a dictionary fits already."""
    hook = hook_of(optimizer)
    if hook is not None:
        hook.mark(optimizer, result["param_groups"], fitted=True)


def check(
    optimizer: object, caller: str, policy: object = "code", saved_names: object = None
) -> None:
    """Refuse what is no optimizer, no policy, or no list of names."""
    if not isinstance(optimizer, Optimizer):
        raise NnlrError(f"{caller} needs a torch optimizer, got {shown(optimizer)}.")
    choice(policy, "policy", POLICIES)
    if saved_names is not None:
        names_in_order(saved_names, "saved_names", "['0.weight', '0.bias']")


def _is_state(state_dict: object) -> bool:
    """Whether this looks like a state dict of an optimizer."""
    return isinstance(state_dict, Mapping) and {"state", "param_groups"} <= set(state_dict)


def _fit_indexed(
    state_dict: Mapping[str, Any],
    optimizer: Optimizer,
    pairs: Pairs,
    saved_names: Sequence[str] | None,
    policy: Policy,
) -> tuple[StateDict, Report]:
    """Make a state dict keyed by positions fit, and report."""
    if not _is_state(state_dict):
        raise NnlrError(
            "This is no optimizer's state dict: it needs the keys 'state' and "
            f"'param_groups', got {shown(state_dict)}. Of a whole checkpoint pass the part that "
            "optimizer.state_dict() gave; keyed by names it goes to fit_named_state."
        )
    refuse_malformed(state_dict)
    names = names_of(optimizer, pairs)
    saved = read_indexed(state_dict, saved_names, optimizer)
    if saved.named:
        require_names(optimizer, names)
    else:
        saved, names = by_position(saved, optimizer, names)
    result, report = fitted(saved, optimizer, names, policy)
    return {**state_dict, **result}, report


def _refuse_unloadable(saved: Saved, optimizer: Optimizer) -> None:
    """Refuse what ``set_optimizer_state_dict`` fails on, or loses, without saying why."""
    groups = optimizer.param_groups
    if empty := [at for at, group in enumerate(groups) if not group["params"]]:
        raise ConfigError(
            f"Group {empty[0]} of {type(optimizer).__name__} is empty, which torch's "
            "distributed checkpoints cannot load. Build the optimizer without it."
        )
    graded = any(p.grad is not None for group in groups for p in group["params"])
    if saved.state and not optimizer.state and graded:
        raise ConfigError(
            f"{type(optimizer).__name__} has taken no step yet and gradients are there, so "
            "set_optimizer_state_dict cannot make room for the state. Call "
            "optimizer.zero_grad() first."
        )
