"""Read checkpoints of other optimizers of several algorithms as those of :class:`Mixed`.

Each layout is told by its own keys, and gives torch's: one state dict, with state of each
parameter under the names that torch's classes use. Their groups keep what means the same
everywhere: rates, schedulers' notes, momentum, betas, eps, nesterov.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._schedule.progress import SCHEDULED
from nnlr._text import listed, plural, shown
from nnlr.checkpoint._refuse import refuse_malformed
from nnlr.checkpoint._sides import NOTE, Group
from nnlr.errors import NnlrError
from nnlr.optim._members import ALGORITHM
from nnlr.optim._mixed import Mixed

StateDict = dict[str, Any]

PARTS: Final = {"state", "param_groups"}

# Settings that mean the same in every class.
_SHARED: Final = {
    *("params", "param_names", *SCHEDULED, "weight_decay", "initial_weight_decay"),
    *("momentum", "betas", "eps", "nesterov"),
}

# The algorithms of microsoft/dion that keep of each parameter what others keep too.
_OF_DION: Final = ("muon", "normuon", "lion", "adamw")


def imported(state_dict: object, optimizer: Optimizer) -> Any:  # noqa: ANN401 - a state dict
    """Return a state of several optimizers, or in a layout of others, as one of torch's.

    Whatever else it is stays as it is, and so does all that goes to an optimizer of one class.
    """
    if not isinstance(optimizer, Mixed):
        return state_dict
    if (parts := _parts(state_dict, optimizer.algorithms)) is not None:
        state_dict = _joined(parts)
    if not isinstance(state_dict, Mapping) or not state_dict.keys() >= PARTS:
        return state_dict
    refuse_malformed(state_dict)
    groups, state = state_dict["param_groups"], state_dict["state"]
    for layout in _LAYOUTS:
        if _are_of_others(groups) and layout.fits(groups, state):
            return _translated(layout, groups, state)
    return state_dict


def _are_of_others(groups: Sequence[Group]) -> bool:
    """Whether there are groups, and no optimizer of nnlr saved them."""
    return bool(groups) and all(NOTE not in group for group in groups)


def _parts(state_dict: object, names: Collection[str]) -> Mapping[Any, Any] | None:
    """Return the state dicts of several optimizers by label, if these are such.

    Under other names than those of algorithms, a whole checkpoint may hold one of them.
    """
    if isinstance(state_dict, list | tuple):
        return dict(enumerate(state_dict))
    if not isinstance(state_dict, Mapping) or PARTS & state_dict.keys():
        return None
    inside = [isinstance(part, Mapping) and part.keys() >= PARTS for part in state_dict.values()]
    return state_dict if all(inside) or not state_dict.keys().isdisjoint(names) else None


def _joined(parts: Mapping[Any, Any]) -> StateDict:
    """Return the state dicts of several optimizers as one, in their order."""
    state: StateDict = {}
    groups: list[StateDict] = []
    for label, part in parts.items():
        lacking = sorted(PARTS - (part.keys() if isinstance(part, Mapping) else set()))
        if lacking:
            raise NnlrError(
                f"The state of optimizer {label!r} lacks {listed(map(repr, lacking))}: got "
                f"{shown(part)}. Pass what state_dict() of each optimizer gave, in a list or by "
                "name. Nothing was loaded.",
                part=label,
            )
        refuse_malformed(part)
        name = {ALGORITHM: label} if isinstance(label, str) else {}
        new_id: dict[Any, Any] = {}
        for group in part["param_groups"]:
            for old in group["params"]:  # names stay, positions go on
                new_id[old] = old if isinstance(old, str) else len(state) + len(new_id)
            groups.append({**name, **group, "params": [new_id[old] for old in group["params"]]})
        state |= {new: part["state"].get(old, {}) for old, new in new_id.items()}
    return {"state": state, "param_groups": groups}


class _Layout(NamedTuple):
    """How another optimizer keeps several algorithms."""

    name: str
    fits: Callable[[Sequence[Group], Mapping[Any, Any]], bool]
    read: Callable[[Group, list[Any]], tuple[StateDict, list[Any]]]  # settings, and its states
    cut: Callable[[Group, Mapping[Any, Any]], list[StateDict]] = lambda group, _: [dict(group)]


def _translated(layout: _Layout, groups: Sequence[Group], state: Mapping[Any, Any]) -> StateDict:
    """Return a state in a layout as one of torch's."""
    result: StateDict = {"state": {}, "param_groups": []}
    for position, group in enumerate(groups):
        try:
            for part in layout.cut(group, state):
                ids = part["params"]
                settings, states = layout.read(part, [state.get(at) or {} for at in ids])
                result["state"].update(zip(ids, states, strict=True))
                shared = {k: v for k, v in {**part, **settings}.items() if k in _SHARED}
                result["param_groups"].append({**shared, NOTE: {"layout": layout.name}})
        except NnlrError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = "lacks" if isinstance(error, KeyError) else "cannot be read:"
            raise NnlrError(
                f"Group {position} of this checkpoint of {layout.name} {what} {error}, so that it "
                "is torn or of another version. Nothing was loaded.",
                group=position,
            ) from None
    return result


def _of_adam(state: Mapping[str, Any], **renamed: str) -> StateDict:
    """Return what an Adam keeps of a parameter; a counter that is a number as a tensor."""
    if not state:
        return {}
    keys = {key: renamed.get(key, key) for key in ("step", "exp_avg", "exp_avg_sq")}
    parts = {key: state[name] for key, name in keys.items()}
    step = parts["step"]
    parts["step"] = step if isinstance(step, Tensor) else torch.tensor(float(step))
    return parts


def _of_muon(state: Mapping[str, Any]) -> StateDict:
    """Return what a Muon keeps of a parameter."""
    if state:
        state["momentum_buffer"]  # a KeyError if it is torn
    return dict(state)


def _with_aux_adam(group: Group, states: list[Any]) -> tuple[StateDict, list[Any]]:
    """``use_muon`` says which algorithm; Adam counts steps in a number."""
    return {}, [(_of_muon if group["use_muon"] else _of_adam)(state) for state in states]


def _of_nanochat(group: Group, states: list[Any]) -> tuple[StateDict, list[Any]]:
    """``kind`` says which; Muon's buffers of a group are one, with its first parameter."""
    if group["kind"] == "adamw":
        return {}, list(map(_of_adam, states))
    first = _of_muon(states[0]) if states else {}
    for key, stack in first.items():
        if len(stack) != len(states):
            raise NnlrError(
                f"{key!r} holds {plural(len(stack), 'parameter')} of a group of {len(states)}: "
                "each process of a distributed run saves those that it steps. Join the files of "
                "all of them along the first axis. Nothing was loaded.",
                key=key,
            )
    return {}, [{key: stack[at] for key, stack in first.items()} for at in range(len(states))]


def _of_dion(group: Group, states: list[Any]) -> tuple[StateDict, list[Any]]:
    """``algorithm`` says which; steps are counted in the group, other names for the same.

    Its Muon sums gradients, ``m = mu m + g``, where torch's averages them: ``1 - mu`` of it.
    """
    algorithm = group[ALGORITHM]
    if algorithm not in _OF_DION:
        raise NnlrError(
            f"The state of dion's algorithm {shown(algorithm)} is of no use elsewhere; that of "
            f"{listed(map(repr, _OF_DION), 4)} is. Nothing was loaded."
        )
    settings = {
        "momentum": group["mu"],
        "betas": (group["beta1"], group["beta2"]),
        "eps": group["epsilon"],
    }
    if algorithm == "adamw":
        renamed = {"exp_avg": "momentum", "exp_avg_sq": "variance"}
        return settings, [_of_adam(s and {**s, "step": group["step"]}, **renamed) for s in states]
    key, scale = ("exp_avg", 1.0) if algorithm == "lion" else ("momentum_buffer", 1 - group["mu"])
    taken = [
        s and {**{k: v for k, v in s.items() if k != "momentum"}, key: s["momentum"] * scale}
        for s in states
    ]
    return settings, taken


def _of_timm(_: Group, states: list[Any]) -> tuple[StateDict, list[Any]]:
    """Each parameter says ``use_muon``, which its Muon needs where it goes on in a part."""
    return {}, [state if state.get("use_muon") else _of_adam(state) for state in states]


def _by_algorithm(group: Group, state: Mapping[Any, Any]) -> list[StateDict]:
    """Cut a group of timm where the algorithm changes; its AdamW has a rate of its own."""
    parts: list[StateDict] = []
    names, first = group.get("param_names"), 0
    for falls_back, run in groupby(
        group["params"], lambda at: (state.get(at) or {}).get("use_muon") is False
    ):
        part = {**group, "params": list(run)}
        end = first + len(part["params"])
        if names:
            part["param_names"] = names[first:end]
        if falls_back:
            scale = group.get("fallback_lr_scale", 1.0)
            part |= {key: group[key] * scale for key in SCHEDULED if key in group}
        parts.append(part)
        first = end
    return parts


def _have(key: str) -> Callable[[Sequence[Group], Mapping[Any, Any]], bool]:
    """Tell a layout by a key of all groups."""
    return lambda groups, _: all(key in group for group in groups)


_LAYOUTS: Final = (
    _Layout(
        "timm's Muon",
        lambda _, state: any(isinstance(s, Mapping) and "use_muon" in s for s in state.values()),
        _of_timm,
        _by_algorithm,
    ),
    _Layout("MuonWithAuxAdam", _have("use_muon"), _with_aux_adam),
    _Layout("nanochat's MuonAdamW", _have("kind"), _of_nanochat),
    _Layout("microsoft/dion", _have("mu"), _of_dion),
)
