"""The best weights so far: copies on the CPU, which are saved with the optimizer."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from nnlr._text import listed
from nnlr.errors import ConfigError

if TYPE_CHECKING:
    from nnlr._rows.units import Unit

# What the names of buffers begin with, among those of parameters.
_BUFFER: Final = "buffer:"


def refuse_sharded(units: "Sequence[Unit]") -> None:
    """Refuse parameters of which each process holds a part."""
    names = [param.row.name for unit in units for param in unit.params if _is_sharded(param.places)]
    if names:
        raise ConfigError(
            f"restore_best=True keeps copies of whole weights with the optimizer's groups, and "
            f"{listed(names)} are sharded: each process would save its own part in the place of "
            "all. Drop it, and load the checkpoint of the best epoch yourself when a phase "
            "begins.",
            names=names,
        )


def _is_sharded(places: Sequence[Any]) -> bool:
    """Whether a tensor is a shard of FSDP, of either kind."""
    nodes = [node for place in places if place.node is not None for node in place.node.above()]
    wrapped = any(node.cls.__name__ == "FullyShardedDataParallel" for node in nodes)
    return wrapped or any(hasattr(place.tensor, "device_mesh") for place in places)


def note_best(units: Sequence["Unit"]) -> None:
    """Copy the weights and buffers as they are now; the first unit has the buffers."""
    for unit in units:
        unit.copies = {param.row.name: _copy(param.tensor) for param in unit.params}
    units[0].copies |= {_BUFFER + name: _copy(buffer) for name, buffer in _buffers(units)}


def restore_best(units: Sequence["Unit"]) -> None:
    """Put the copies back where they are from."""
    copies = {name: copy for unit in units for name, copy in unit.copies.items()}
    targets = {param.row.name: param.tensor for unit in units for param in unit.params}
    targets |= {_BUFFER + name: buffer for name, buffer in _buffers(units)}
    with torch.no_grad():
        for name in targets.keys() & copies.keys():
            targets[name].copy_(copies[name])


def _buffers(units: "Sequence[Unit]") -> Iterator[tuple[str, Tensor]]:
    """The buffers of the model, such as running statistics."""
    root = _root_of(units)
    return iter(()) if root is None else root.named_buffers()


def _root_of(units: "Sequence[Unit]") -> nn.Module | None:
    """The model that the parameters hang in; ``None`` of bare tensors."""
    for unit in units:
        for param in unit.params:
            for place in param.places:
                if place.node is not None:
                    *_, top = place.node.above()
                    return top.module
    return None


def _copy(tensor: Tensor) -> Tensor:
    """A copy on the CPU; of what holds nothing, in a run ahead, itself."""
    return tensor if tensor.is_meta else tensor.detach().to("cpu", copy=True)
