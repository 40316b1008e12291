"""Read saved optimizer state from the several forms that torch writes into one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import nn
from torch.optim import Optimizer

from nnlr._model.names import DDP, lineage, slots, wrapped_attrs
from nnlr._text import listed, shown
from nnlr.checkpoint._hook import classes_of
from nnlr.checkpoint._names import Names
from nnlr.checkpoint._refuse import refuse_malformed
from nnlr.checkpoint._sides import APART, NOTE, OF_THE_CODE, same
from nnlr.checkpoint._tensors import fits
from nnlr.errors import ConfigError, NnlrError

# Segments that torch's distributed checkpoints leave out of names; `module` only of DDP.
_LEFT_OUT: Final = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


@dataclass(frozen=True, slots=True)
class Saved:
    """Saved optimizer state."""

    ids: Sequence[Any]  # the keys of the parameters in `state`, in the order of the groups
    names: Sequence[str]  # of the parameters, as they were saved
    group_of: Sequence[int]  # the positions of their groups
    groups: Sequence[Mapping[str, Any]]
    state: Mapping[Any, Any]  # of the parameters by id, and state that belongs to no parameter
    named: bool = True  # whether the names are known; otherwise they are positions

    def classes(self, at: int) -> Sequence[str]:
        """The names of the class that stepped a group and of its bases; none if nobody noted."""
        return _note_of(self.groups[at], "classes").split()

    def is_of(self, at: int, optimizer: Optimizer) -> bool | None:
        """Whether an optimizer of this class, or a related one, saved a group, if that is known.

        Where nobody noted the class, settings tell: another one has some that this one has not,
        and lacks some of this.
        """
        if classes := self.classes(at):
            return not set(classes).isdisjoint(classes_of(optimizer))
        if _note_of(self.groups[at], "layout"):
            return None
        saved = self.groups[at].keys() - OF_THE_CODE
        present = {key for group in optimizer.param_groups for key in group} - OF_THE_CODE
        foreign, lacking = saved - present - APART, optimizer.defaults.keys() - OF_THE_CODE - saved
        return False if foreign and lacking else None

    @property
    def schemes(self) -> Sequence[str]:
        """The schemes of the plan that made the groups; none if nobody noted them."""
        notes = (_note_of(group, "schemes") for group in self.groups)
        return next(filter(None, notes), "").splitlines()

    def only(self, names: Collection[str]) -> "Saved":
        """Return the part that belongs to some parameters, or to none."""
        chosen = [at for at, name in enumerate(self.names) if name in names]
        others = set(self.ids) - {self.ids[at] for at in chosen}
        return replace(
            self,
            ids=[self.ids[at] for at in chosen],
            names=[self.names[at] for at in chosen],
            group_of=[self.group_of[at] for at in chosen],
            state={key: value for key, value in self.state.items() if key not in others},
        )


def _note_of(group: Mapping[str, Any], key: str) -> str:
    """Return a text that was noted in a group, or ``""``."""
    return (group.get(NOTE) or {}).get(key) or ""


def read_indexed(
    state_dict: Mapping[str, Any], saved_names: Sequence[str] | None, optimizer: Optimizer
) -> Saved:
    """Read a result of ``optimizer.state_dict()``, or what DCP passes to ``load_state_dict``."""
    groups = state_dict["param_groups"]
    ids = [param_id for group in groups for param_id in group["params"]]
    if not ids:
        raise ConfigError(
            "The checkpoint has no parameters in its groups, so everything would start afresh. "
            "Load what state_dict() of a trained optimizer gave."
        )
    names = _names_in(groups, ids)
    if names is None and saved_names is not None:
        names = list(saved_names)
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


def _names_in(groups: Sequence[Mapping[str, Any]], ids: Sequence[Any]) -> list[str] | None:
    """Return the names that the checkpoint itself has, or ``None``."""
    if all(isinstance(param_id, str) for param_id in ids):
        return list(ids)
    names = [
        name
        for group in groups
        for name in group.get("param_names") or group.get(NOTE, {}).get("names", ())
    ]
    return names if len(names) == len(ids) else None


def _how_to_name(optimizer: Optimizer) -> str:
    """Return the sentence on how to pass names."""
    return (
        "Pass the names of the old optimizer's parameters in its order, from the code that "
        "built it: [name for name, p in model.named_parameters() if p.requires_grad] if it was "
        "given model.parameters(), else group by group: "
        f"nnlr.checkpoint.on_load({type(optimizer).__name__.lower()}, saved_names=[...])."
    )


def by_position(saved: Saved, optimizer: Optimizer, names: Names) -> tuple[Saved, Names]:
    """Name saved parameters after those at the same positions, as torch's own loading does."""
    groups = optimizer.param_groups
    sizes = [len(group["params"]) for group in groups]
    saved_sizes = [len(group["params"]) for group in saved.groups]
    if sizes != saved_sizes:
        raise ConfigError(
            f"The checkpoint holds no parameter names, and its groups have other sizes "
            f"({listed(map(str, saved_sizes), 8)}) than those of {type(optimizer).__name__} "
            f"({listed(map(str, sizes), 8)}), so nothing tells which is which. "
            f"{_how_to_name(optimizer)}",
            saved=saved_sizes,
            present=sizes,
        )
    tensors = [tensor for group in groups for tensor in group["params"]]
    new_names = [
        names.name_of.get(id(tensor), position)
        for tensor, position in zip(tensors, saved.names, strict=True)
    ]
    for param_id, name, tensor in zip(saved.ids, new_names, tensors, strict=True):
        if not fits(saved.state.get(param_id), tensor):
            raise ConfigError(
                f"The checkpoint holds no parameter names, and what it has in the place of "
                f"{name!r} is of another shape: the order of parameters was another, or the "
                f"model was. {_how_to_name(optimizer)}",
                name=name,
            )
    by_name = Names()
    by_name.add(zip(new_names, tensors, strict=True))
    return replace(saved, names=new_names), by_name


def read_named(state_dict: Mapping[str, Any]) -> Saved:
    """Read a result of ``get_optimizer_state_dict``, flattened or not."""
    if "state" not in state_dict or "param_groups" not in state_dict:
        state_dict = _unflattened(state_dict)
    refuse_malformed(state_dict)
    groups = state_dict["param_groups"]
    names = [name for group in groups for name in group["params"]]
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
    """Nest the keys ``state.<name>.<key>`` and ``param_groups.<name>.<setting>``."""
    settings: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        head, _, path = str(key).partition(".")
        name, _, setting = path.rpartition(".")
        if head not in {"state", "param_groups"} or not name:
            raise NnlrError(
                "This is not what get_optimizer_state_dict gives, flattened or not: it has the "
                f"key {shown(key)}."
            )
        if head == "param_groups":
            settings.setdefault(name, {})[setting] = value
    state: dict[str, Any] = {}
    for key, value in flat.items():
        head, _, path = str(key).partition(".")
        if head == "state":
            name, keys = _split(path, settings)
            inner = state.setdefault(name, {})
            for step in keys[:-1]:
                inner = inner.setdefault(step, {})
            inner[keys[-1]] = value
    return {"state": state, "param_groups": _merged(settings)}


def _split(path: str, names: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Split a path into the longest name of a parameter that fits, and the keys in its state."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if (name := ".".join(parts[:end])) in names:
            return name, parts[end:]
    return ".".join(parts[:-1]), parts[-1:]


def _merged(settings: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return groups of the parameters that share all settings."""
    groups: list[dict[str, Any]] = []
    for name, values in settings.items():
        values.pop("param_names", None)
        for group in groups:
            if group.keys() - {"params"} == values.keys() and all(
                same(group[key], value) for key, value in values.items()
            ):
                group["params"].append(name)
                break
        else:
            groups.append({**values, "params": [name]})
    return groups


def fqns(model: nn.Module) -> dict[int, str]:
    """Return the names of torch's distributed checkpoints, by the id of the tensor."""
    names: dict[int, str] = {}
    for slot in slots(model):
        segments = [slot.key]
        for node in slot.node.above() if slot.node else ():
            if node.parent is not None:
                owner = node.parent.cls
                wraps = node.attr in wrapped_attrs(owner)
                if not (wraps and (node.attr in _LEFT_OUT or DDP in lineage(owner))):
                    segments.append(node.attr)
        names.setdefault(id(slot.tensor), ".".join(reversed(segments)))
    return names
