"""Saved state is put into the groups of today."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from nnlr._text import listed, nearest_hint
from nnlr.checkpoint._groups import Present, Target, fit_groups
from nnlr.checkpoint._hook import Policy
from nnlr.checkpoint._names import GONE, SHAPE, Match, Names, match
from nnlr.checkpoint._rates import NOTE
from nnlr.checkpoint._report import Report
from nnlr.checkpoint._saved import Saved
from nnlr.checkpoint._tensors import fits, placed
from nnlr.errors import ConfigError


def fitted(
    saved: Saved, present: Present, policy: Policy, *, whole: bool = False
) -> tuple[dict[str, Any], Report]:
    """Saved state for an optimizer as it is grouped now, and what became of it.

    Args:
        saved: What was saved.
        present: The optimizer.
        policy: Whose rates count.
        whole: Leave whole tensors whole where the parameter is sharded.

    Raises:
        ConfigError: If no name fits, or a group would need two values of one setting.
    """
    optimizer, names = present.optimizer, present.names
    groups = optimizer.param_groups
    found = match(saved.names, names, groups)
    _refuse_strangers(saved, found, names, groups)
    _refuse_flat(saved, found, optimizer)
    ids = set(saved.ids)
    state = {key: value for key, value in saved.state.items() if key not in ids}
    moved, fresh, targets = [], [], []
    shaped: dict[int, str] = {}
    at = 0
    for position, group in enumerate(groups):
        sources: dict[int, list[str]] = {}
        for tensor in group["params"]:
            name = names.first[id(tensor)]
            source = found.source.get(id(tensor))
            held = None if source is None else saved.state.get(saved.ids[source])
            if source is None:
                fresh.append(name)
            else:
                sources.setdefault(saved.group_of[source], []).append(name)
                if fits(held, tensor) or _is_flat(optimizer):
                    moved.append(name)
                else:
                    fresh.append(name)
                    shaped[source] = SHAPE
                    held = None
            if held is not None:
                state[at] = held if whole else placed(held, tensor)
            at += 1
        label = repr(group["name"]) if "name" in group else f"{position}"
        known = {**group, NOTE: present.bases}
        targets.append(Target(known, f"Group {label}", dict(sorted(sources.items()))))
    settings, differences = fit_groups(targets, saved.groups, present, policy)
    unused = dict(sorted({**found.unused, **shaped}.items()))
    return (
        {"state": state, "param_groups": _packed(settings, groups)},
        Report(
            tuple(moved),
            tuple(fresh),
            {saved.names[source]: reason for source, reason in unused.items()},
            differences,
        ),
    )


def _packed(
    settings: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Groups as ``state_dict`` has them: with positions for tensors."""
    packed = []
    start = 0
    for own, group in zip(settings, groups, strict=True):
        end = start + len(group["params"])
        named = "param_names" in group
        packed.append(
            {
                **own,
                "params": list(range(start, end)),
                **({"param_names": list(group["param_names"])} if named else {}),
            }
        )
        start = end
    return packed


def _refuse_strangers(
    saved: Saved, found: Match, names: Names, groups: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse a checkpoint of which no name is known: everything would start afresh."""
    if not saved.names or set(found.unused.values()) != {GONE} or found.source:
        return
    own = [names.first[id(tensor)] for group in groups for tensor in group["params"]]
    raise ConfigError(
        f"None of the {len(saved.names)} names in the checkpoint is known: it has "
        f"{listed(map(repr, saved.names), 3)}; the optimizer trains "
        f"{listed(map(repr, own), 3)}. {nearest_hint(saved.names[0], own)}\n"
        "  It is of another model, or parts were renamed: rename them in the checkpoint's "
        "param_names too.",
        saved=list(saved.names),
        names=own,
    )


def _is_flat(optimizer: Optimizer) -> bool:
    """Whether what is kept is one history of all parameters, laid end to end."""
    return isinstance(optimizer, torch.optim.LBFGS)


def _refuse_flat(saved: Saved, found: Match, optimizer: Optimizer) -> None:
    if not _is_flat(optimizer):
        return
    tensors = [p for group in optimizer.param_groups for p in group["params"]]
    order = [found.source.get(id(tensor)) for tensor in tensors]
    if order != list(range(len(saved.ids))):
        raise ConfigError(
            f"{type(optimizer).__name__} keeps one flat history of all parameters, which fits "
            "the same parameters in the same order only. Build it with the parameters in the "
            "checkpoint's order, or start it anew."
        )
