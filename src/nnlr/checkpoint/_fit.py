"""Put saved state into the groups that an optimizer has now."""

from typing import Any

import torch

from nnlr._text import listed, nearest_hint
from nnlr.checkpoint._groups import Fitting, Present, Target
from nnlr.checkpoint._hook import Policy
from nnlr.checkpoint._names import GONE, SHAPE, Match, match
from nnlr.checkpoint._rates import NOTE
from nnlr.checkpoint._report import Report
from nnlr.checkpoint._saved import Saved
from nnlr.checkpoint._tensors import fits, placed
from nnlr.errors import ConfigError


def fitted(
    saved: Saved, present: Present, policy: Policy, *, whole: bool = False
) -> tuple[dict[str, Any], Report]:
    """Return a state dict that fits an optimizer as it is grouped now, and a report.

    ``whole`` leaves whole tensors whole where the parameter is sharded.
    """
    optimizer, names = present.optimizer, present.names
    groups = optimizer.param_groups
    matching = match(saved.names, names, groups)
    # Whether one history of all parameters is kept, laid end to end.
    flat = isinstance(optimizer, torch.optim.LBFGS)
    _refuse_unmatched(saved, matching, present, flat=flat)
    ids = set(saved.ids)
    state = {key: value for key, value in saved.state.items() if key not in ids}
    moved, fresh, targets, params = [], [], [], []
    unused = dict(matching.unused)
    index = 0
    for position, group in enumerate(groups):
        sources: dict[int, list[str]] = {}
        # As state_dict has it: with positions in place of tensors.
        params.append({"params": list(range(index, index + len(group["params"])))})
        if "param_names" in group:
            params[-1]["param_names"] = list(group["param_names"])
        for tensor in group["params"]:
            name = names.name_of[id(tensor)]
            source = matching.source.get(id(tensor))
            if source is None:
                fresh.append(name)
            else:
                sources.setdefault(saved.group_of[source], []).append(name)
                tensor_state = saved.state.get(saved.ids[source])
                if not (flat or fits(tensor_state, tensor)):
                    fresh.append(name)
                    unused[source] = SHAPE
                else:
                    moved.append(name)
                    if tensor_state is not None:
                        state[index] = tensor_state if whole else placed(tensor_state, tensor)
            index += 1
        label = repr(group["name"]) if "name" in group else f"{position}"
        noted = {**group, NOTE: present.bases}
        targets.append(Target(noted, f"Group {label}", dict(sorted(sources.items()))))
    fitting = Fitting(targets, saved.groups, present, policy)
    reasons = {saved.names[source]: unused[source] for source in sorted(unused)}
    packed = [fitting.group(position) | members for position, members in enumerate(params)]
    report = Report(tuple(moved), tuple(fresh), reasons, fitting.differences())
    return {"state": state, "param_groups": packed}, report


def _refuse_unmatched(saved: Saved, matching: Match, present: Present, *, flat: bool) -> None:
    """Refuse a checkpoint of which no name is known, or a flat history in another order."""
    optimizer, names = present.optimizer, present.names
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
