"""Saved optimizer state, read into one form from the several that torch writes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import nn
from torch.optim import Optimizer

from nnlr._model.names import DDP, Slot, lineage, slots, wrapped_attrs
from nnlr._text import shown
from nnlr.checkpoint._names import Names
from nnlr.checkpoint._rates import NOTE, same
from nnlr.checkpoint._tensors import fits
from nnlr.errors import ConfigError, NnlrError

# What torch's distributed checkpoints leave out of names; of `module` only that of DDP.
_LEFT_OUT: Final = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


@dataclass(frozen=True, slots=True)
class Saved:
    """Saved optimizer state.

    Attributes:
        ids: What the parameters are called in ``state``, in the order of the groups.
        names: Their names, as they were saved.
        group_of: The position of each one's group.
        groups: Settings of the groups.
        state: What was saved of the parameters, and of none in particular.
        named: Whether the names are known; otherwise they are positions.
    """

    ids: Sequence[Any]
    names: Sequence[str]
    group_of: Sequence[int]
    groups: Sequence[Mapping[str, Any]]
    state: Mapping[Any, Any]
    named: bool = True

    def only(self, names: Collection[str]) -> "Saved":
        """What was saved of some parameters."""
        kept = [at for at, name in enumerate(self.names) if name in names]
        left = set(self.ids) - {self.ids[at] for at in kept}
        return replace(
            self,
            ids=[self.ids[at] for at in kept],
            names=[self.names[at] for at in kept],
            group_of=[self.group_of[at] for at in kept],
            state={key: value for key, value in self.state.items() if key not in left},
        )


def read_indexed(
    state_dict: Mapping[str, Any], given: Sequence[str] | None, optimizer: Optimizer
) -> Saved:
    """Read what ``optimizer.state_dict()`` gave, or what DCP passes to ``load_state_dict``.

    Raises:
        ConfigError: If names are needed and none are there, or as many as do not fit, or
            there is no parameter at all.
    """
    groups = state_dict["param_groups"]
    ids = [each for group in groups for each in group["params"]]
    if not ids:
        raise ConfigError(
            "The checkpoint has no parameters in its groups, so everything would start afresh. "
            "Load what state_dict() of a trained optimizer gave."
        )
    names = _own_names(groups, ids)
    if names is None and given is not None:
        names = list(given)
        if len(names) != len(ids) or len(set(names)) != len(names):
            raise ConfigError(
                f"saved_names has {len(names)} names ({len(set(names))} different ones), and "
                f"the checkpoint has {len(ids)} parameters. {_how_to_name(optimizer)}",
            )
    return Saved(
        ids,
        [f"parameter {at}" for at in range(len(ids))] if names is None else names,
        [at for at, group in enumerate(groups) for _ in group["params"]],
        groups,
        state_dict["state"],
        named=names is not None,
    )


def _own_names(groups: Sequence[Mapping[str, Any]], ids: Sequence[Any]) -> list[str] | None:
    if ids and all(isinstance(each, str) for each in ids):
        return list(ids)
    names = [
        name
        for group in groups
        for name in group.get("param_names") or group.get(NOTE, {}).get("names", ())
    ]
    return names if len(names) == len(ids) else None


def _how_to_name(optimizer: Optimizer) -> str:
    return (
        "Pass the names of the old optimizer's parameters in its order, from the code that "
        "built it: [name for name, p in model.named_parameters() if p.requires_grad] if it was "
        "given model.parameters(), else group by group: "
        f"nnlr.checkpoint.on_load({type(optimizer).__name__.lower()}, saved_names=[...])."
    )


def by_position(saved: Saved, optimizer: Optimizer, names: Names) -> tuple[Saved, Names]:
    """Name saved parameters after those in the same place, as torch's own loading does.

    Raises:
        ConfigError: If there is no such place.
    """
    groups = optimizer.param_groups
    here = [len(group["params"]) for group in groups]
    there = [len(group["params"]) for group in saved.groups]
    if here != there:
        raise ConfigError(
            f"The checkpoint holds no parameter names, and its groups have other sizes "
            f"({_sizes(there)}) than those of {type(optimizer).__name__} ({_sizes(here)}), so "
            f"nothing tells which is which. {_how_to_name(optimizer)}",
            saved=there,
            present=here,
        )
    tensors = [tensor for group in groups for tensor in group["params"]]
    found = [
        names.first.get(id(tensor), own) for tensor, own in zip(tensors, saved.names, strict=True)
    ]
    for at, (name, tensor) in enumerate(zip(found, tensors, strict=True)):
        if not fits(saved.state.get(saved.ids[at]), tensor):
            raise ConfigError(
                f"The checkpoint holds no parameter names, and what it has in the place of "
                f"{name!r} is of another shape: the order of parameters was another, or the "
                f"model was. {_how_to_name(optimizer)}",
                name=name,
            )
    known = Names()
    known.add(zip(found, tensors, strict=True))
    return replace(saved, names=found), known


def _sizes(sizes: Sequence[int]) -> str:
    text = ", ".join(map(str, sizes[:8]))
    return text if len(sizes) <= 8 else f"{text}, ... {len(sizes)} groups"


def read_named(state_dict: Mapping[str, Any]) -> Saved:
    """Read what ``get_optimizer_state_dict`` gave, flattened or not.

    Raises:
        NnlrError: If it is something else.
    """
    if "state" not in state_dict or "param_groups" not in state_dict:
        state_dict = _unflattened(state_dict)
    groups = state_dict["param_groups"]
    names = [each for group in groups for each in group["params"]]
    if not all(isinstance(name, str) for name in names):
        raise NnlrError(
            "This state dict is keyed by positions, not by names: fit_state is for those."
        )
    return Saved(
        names,
        names,
        [at for at, group in enumerate(groups) for _ in group["params"]],
        groups,
        state_dict["state"],
    )


def _unflattened(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested form of ``state.<name>.<key>`` and ``param_groups.<name>.<setting>``."""
    settings: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        head, _, rest = str(key).partition(".")
        name, _, setting = rest.rpartition(".")
        if head not in {"state", "param_groups"} or not name:
            raise NnlrError(
                "This is not what get_optimizer_state_dict gives, flattened or not: it has the "
                f"key {shown(key)}."
            )
        if head == "param_groups":
            settings.setdefault(name, {})[setting] = value
    state: dict[str, Any] = {}
    for key, value in flat.items():
        head, _, rest = str(key).partition(".")
        if head == "state":
            name, path = _split(rest, settings)
            place = state.setdefault(name, {})
            for step in path[:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = value
    return {"state": state, "param_groups": _merged(settings)}


def _split(rest: str, names: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A parameter's name, the longest that fits, and the path in its state."""
    parts = rest.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if (name := ".".join(parts[:end])) in names:
            return name, parts[end:]
    return ".".join(parts[:-1]), parts[-1:]


def _merged(settings: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups again, of the parameters that share all settings."""
    groups: list[dict[str, Any]] = []
    for name, own in settings.items():
        own.pop("param_names", None)
        for group in groups:
            if group.keys() - {"params"} == own.keys() and all(
                same(group[key], value) for key, value in own.items()
            ):
                group["params"].append(name)
                break
        else:
            groups.append({**own, "params": [name]})
    return groups


def fqns(model: nn.Module) -> dict[int, str]:
    """What torch's distributed checkpoints call each parameter, by the tensor's id."""
    found: dict[int, str] = {}
    for slot in slots(model):
        found.setdefault(id(slot.tensor), _fqn(slot))
    return found


def _fqn(slot: Slot) -> str:
    above = slot.node.above() if slot.node else ()
    segments = [
        node.attr
        for node in above
        if node.parent is not None and not _is_left_out(node.attr, node.parent.cls)
    ]
    return ".".join([*reversed(segments), slot.key])


def _is_left_out(attr: str, holder: type) -> bool:
    wraps = attr in wrapped_attrs(holder)
    return wraps and (attr in _LEFT_OUT or DDP in lineage(holder))
