"""Put saved state into the groups that an optimizer has now."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from nnlr._schedule import base_rate
from nnlr._text import listed, nearest_hint
from nnlr.checkpoint._hook import Policy, hook_of
from nnlr.checkpoint._names import GONE, Match, Names, match, paired
from nnlr.checkpoint._refuse import refuse_bad_values
from nnlr.checkpoint._relations import Relations
from nnlr.checkpoint._report import Report
from nnlr.checkpoint._saved import Saved
from nnlr.checkpoint._settings import Settings
from nnlr.checkpoint._sides import Group, Source, Target
from nnlr.checkpoint._state import MISSING, MOVED, Verdict
from nnlr.checkpoint._tensors import placed
from nnlr.checkpoint._unnoted import origins, origins_of_code
from nnlr.errors import ConfigError


def fitted(
    saved: Saved, optimizer: Optimizer, names: Names, policy: Policy, *, whole: bool = False
) -> tuple[dict[str, Any], Report]:
    """Return a state dict that fits an optimizer as it is grouped now, and a report.

    ``whole`` leaves whole tensors whole where the parameter is sharded.
    """
    groups, hook = optimizer.param_groups, hook_of(optimizer)
    refuse_bad_values(saved.groups, groups)
    matching = match(saved.names, names, groups)
    # Whether one history of all parameters is kept, laid end to end.
    flat = isinstance(optimizer, torch.optim.LBFGS)
    _refuse_unmatched(saved, matching, optimizer, names, flat=flat)
    built = origins(saved.groups)
    everything = [Source(*pair) for pair in zip(saved.groups, built, strict=True)]
    targets = []
    relations = Relations(saved, optimizer)
    for position, (group, origin) in enumerate(zip(groups, origins_of_code(groups), strict=True)):
        label = f"Group {group.get('name', position)!r}"
        members = _members(group, saved, matching, names)
        sources = [
            Source(saved.groups[at], built[at], each, relations.of(at, group))
            for at, each in members.items()
        ]
        # Another algorithm's tells of a parameter that is with this one now only if no other does.
        own = [source for source in sources if source.related is not False]
        rerouted = [source for source in sources if own and source.related is False]
        targets.append(Target(group, origin, label, own or sources, rerouted))
    settings = Settings(targets, everything, policy)
    packed = [settings.group(target) for target in targets]
    if policy == "code":
        base_rate.rewrite(optimizer, packed)
    ids = set(saved.ids)
    state = {key: value for key, value in saved.state.items() if key not in ids}
    moved: list[str] = []
    fresh: list[str] = []
    first = 0
    partly: dict[str, Sequence[str]] = {}
    unused = dict(matching.unused)
    for group, new in zip(groups, packed, strict=True):
        # As state_dict has it: with positions in place of tensors.
        new["params"] = list(range(first, first + len(group["params"])))
        first += len(group["params"])
        if "param_names" in group:
            new["param_names"] = paired(group, names)
        for index, tensor in zip(new["params"], group["params"], strict=True):
            name = names.name_of[id(tensor)]
            source = matching.source.get(id(tensor))
            if source is None:
                fresh.append(name)
                continue
            tensor_state = saved.state.get(saved.ids[source])
            at = saved.group_of[source]
            verdict = (
                Verdict(MOVED, tensor_state)
                if flat
                else relations.verdict(at, group, tensor_state, tensor, new, whole=whole)
            )
            (moved if verdict.reason == MOVED else fresh).append(name)
            if verdict.reason not in {MOVED, MISSING}:
                unused[source] = verdict.reason
            if verdict.begun:
                partly[name] = verdict.begun
            if verdict.state is not None:
                state[index] = verdict.state if whole else placed(verdict.state, tensor)
    begins = state or fresh  # there was something to take over, or something is lacking
    made_by, made_for = relations.others(moved=bool(moved)) if begins else ("", "")
    report = Report(
        moved=tuple(moved),
        fresh=tuple(fresh),
        unused={saved.names[source]: unused[source] for source in sorted(unused)},
        differences=settings.differences(),
        partly=partly,
        made_by=made_by,
        optimizer=made_for or type(optimizer).__name__,
        scheme=_change(saved.schemes, [] if hook is None else hook.schemes),
    )
    return {"state": state, "param_groups": packed}, report


def _change(before: Sequence[str], after: Sequence[str]) -> str:
    """Write which schemes became which, where plans of both are known."""
    old = " * ".join(scheme for scheme in before if scheme not in after)
    new = " * ".join(scheme for scheme in after if scheme not in before)
    calls = old.endswith(")") and new.endswith(")")  # what a rule gives is not in its name
    return f"{old} -> {new}" if calls else ""


def _members(group: Group, saved: Saved, matching: Match, names: Names) -> dict[int, list[str]]:
    """Return the names of a group's parameters by the position of their saved group."""
    members: dict[int, list[str]] = {}
    for tensor in group["params"]:
        if (source := matching.source.get(id(tensor))) is not None:
            members.setdefault(saved.group_of[source], []).append(names.name_of[id(tensor)])
    return dict(sorted(members.items()))


def _refuse_unmatched(
    saved: Saved, matching: Match, optimizer: Optimizer, names: Names, *, flat: bool
) -> None:
    """Refuse a checkpoint of which no name is known, or a flat history in another order."""
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if saved.names and set(matching.unused.values()) == {GONE} and not matching.source:
        trained = [names.name_of[id(tensor)] for tensor in tensors]
        raise ConfigError(
            f"None of the {len(saved.names)} names in the checkpoint is known: it has "
            f"{listed(map(repr, saved.names), 3)}; the optimizer trains "
            f"{listed(map(repr, trained), 3)}. {nearest_hint(saved.names[0], trained)}\n"
            "  It is of another model, or parts were renamed: rename them in the checkpoint's "
            "param_names too.",
            saved=list(saved.names),
            names=trained,
        )
    order = [matching.source.get(id(tensor)) for tensor in tensors]
    if flat and order != list(range(len(saved.ids))):
        raise ConfigError(
            f"{type(optimizer).__name__} keeps one flat history of all parameters, which fits "
            "the same parameters in the same order only. Build it with the parameters in the "
            "checkpoint's order, or start with a new one."
        )
