"""Take the state dict of a Mixed optimizer apart, into one for each algorithm."""

from collections.abc import Mapping
from typing import Any

from nnlr._schedule.origin import ORIGIN
from nnlr._text import shown
from nnlr.checkpoint._refuse import refuse_malformed
from nnlr.checkpoint._sides import NOTE
from nnlr.errors import NnlrError
from nnlr.optim._members import ALGORITHM

StateDict = dict[str, Any]


def split(state_dict: Mapping[str, Any]) -> dict[str, StateDict]:
    """Return the state dict of each algorithm, as an optimizer of its class saves it.

    Each has the groups of its algorithm in their order, with parameters counted from 0, and
    loads into an optimizer of that class with groups of the same sizes, or by name
    (:func:`on_load`) into any. Tensors are handed on, not copied. The way back is
    ``optimizer.load_state_dict`` of a ``nnlr.optim.Mixed`` that a plan built: it takes such a
    mapping, or a list.

    Args:
        state_dict: What ``state_dict()`` of a :class:`nnlr.optim.Mixed` gave, or what
            ``get_optimizer_state_dict`` gave of it: parameters under names keep these.

    Raises:
        NnlrError: If it is no such state, or a group names no algorithm.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Linear(4, 4)
        >>> groups = [
        ...     {"params": [net.weight], "algorithm": "muon"},
        ...     {"params": [net.bias], "algorithm": "adamw"},
        ... ]
        >>> classes = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}
        >>> optimizer = nnlr.optim.Mixed(groups, classes)
        >>> net(torch.ones(4)).sum().backward()
        >>> optimizer.step()
        >>> parts = nnlr.checkpoint.split(optimizer.state_dict())
        >>> plain = torch.optim.AdamW([net.bias])
        >>> plain.load_state_dict(parts["adamw"])
        >>> sorted(plain.state[net.bias])
        ['exp_avg', 'exp_avg_sq', 'step']
    """
    if not isinstance(state_dict, Mapping) or not state_dict.keys() >= {"state", "param_groups"}:
        raise NnlrError(
            "split needs what state_dict() of an nnlr.optim.Mixed gave, with 'state' and "
            f"'param_groups', got {shown(state_dict)}."
        )
    refuse_malformed(state_dict)
    state = state_dict["state"]
    parts: dict[str, StateDict] = {}
    for position, group in enumerate(state_dict["param_groups"]):
        if not isinstance(name := group.get(ALGORITHM), str):
            raise NnlrError(
                f"Group {position} of this state names no algorithm (its keys: "
                f"{', '.join(group)}): it is of an optimizer of one class.",
                group=position,
            )
        part = parts.setdefault(name, {"state": {}, "param_groups": []})
        first = sum(len(each["params"]) for each in part["param_groups"])
        ids = [
            old if isinstance(old, str) else first + at for at, old in enumerate(group["params"])
        ]
        part["state"].update(
            {new: state[old] for new, old in zip(ids, group["params"], strict=True) if old in state}
        )
        settings = {k: v for k, v in group.items() if k not in {NOTE, ORIGIN, ALGORITHM}}
        part["param_groups"].append({**settings, "params": ids})
    of_classes = state_dict.get("algorithms", {})  # what a class saves besides
    return {name: {**of_classes.get(name, {}), **part} for name, part in parts.items()}
