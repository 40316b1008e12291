"""Sums over the elements of many tensors: taken where they are, read in one transfer.

Shards are summed by each process and added up once for all tensors of a mesh, so that every
process reads the same numbers.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

# Torch sums float32 on CPUs one after the other: longer tensors are summed in pieces.
_PIECE: Final = 2**18

_BITS: Final = {1: torch.int8, 2: torch.int16}


def here(tensor: Tensor) -> Tensor:
    """The elements that this process has, as real numbers."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    local = local.detach()
    if local.layout is torch.sparse_coo:
        local = local.coalesce().values()
    elif local.layout is not torch.strided:
        local = local.values()
    return torch.view_as_real(local) if local.is_complex() else local


class Sums:
    """Numbers on devices that add up to one number for each tensor.

    A number is asked for by the place that a method returned, once :meth:`read` has run.
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []  # 0-dim, on their devices
        self._squared: list[bool] = []
        self._place_of: list[int] = []  # the number that each part belongs to
        self._meshes: list[Any] = []  # for each number the mesh and the copies, or None

    def _open(self, tensor: Tensor) -> int:
        """A new number, of a tensor that may be sharded."""
        mesh = getattr(tensor, "device_mesh", None)
        copies = 1
        for size, placement in zip(*_layout(tensor), strict=True):
            copies *= size if placement.is_replicate() else 1
        self._meshes.append(None if mesh is None else (mesh, copies))
        return len(self._meshes) - 1

    def _add(self, place: int, part: Tensor, *, squared: bool = False) -> None:
        self._parts.append(part)
        self._squared.append(squared)
        self._place_of.append(place)

    def squares(self, tensors: Sequence[Tensor], like: Sequence[Tensor]) -> list[int]:
        """The sum of the squares of each tensor; ``like`` says how it is sharded."""
        places = [self._open(tensor) for tensor in like]
        alike: dict[tuple[torch.device, torch.dtype], list[tuple[int, Tensor]]] = {}
        for place, tensor in zip(places, tensors, strict=True):
            pieces: Iterable[Tensor] = (tensor,)
            if tensor.device.type == "cpu" and tensor.numel() > _PIECE:
                pieces = torch.split(tensor.reshape(-1), _PIECE)
            members = alike.setdefault((tensor.device, tensor.dtype), [])
            members.extend((place, piece) for piece in pieces)
        for (_, dtype), members in alike.items():
            wide = torch.promote_types(dtype, torch.float32)
            norms = torch._foreach_norm([piece for _, piece in members], 2, dtype=wide)
            for (place, _), norm in zip(members, norms, strict=True):
                self._add(place, norm, squared=True)
        return places

    def nonzeros(self, tensor: Tensor, like: Tensor) -> int:
        """How many elements are not 0."""
        place = self._open(like)
        self._add(place, torch.count_nonzero(tensor))
        return place

    def bits(self, tensor: Tensor) -> int:
        """The bits of all elements as whole numbers, added up: another number if one changed."""
        place = self._open(tensor)
        local = here(tensor)
        if type(local) not in {
            Tensor,
            nn.Parameter,
        }:  # a format of others: how often it was written
            self._add(place, torch.tensor(tensor._version))
            return place
        local, size = local.reshape(-1), local.element_size()
        if local.storage_offset() * size % 4:
            local = local.clone()
        bits = local.view(_BITS[size] if local.numel() * size % 4 else torch.int32)
        self._add(place, bits.sum(dtype=torch.int32))
        return place

    def value(self, tensor: Tensor) -> int:
        """A number as it is."""
        place = self._open(tensor)
        self._add(place, here(tensor).reshape(()))
        return place

    def read(self) -> list[float]:
        """All numbers, one transfer from each device; every process of a mesh calls this."""
        totals = [0.0] * len(self._meshes)
        at: dict[torch.device, list[int]] = {}
        for index, part in enumerate(self._parts):
            at.setdefault(part.device, []).append(index)
        for device, indices in at.items():
            wide = torch.float32 if device.type == "mps" else torch.float64
            parts = torch.stack([self._parts[index].to(wide) for index in indices])
            squared = torch.tensor([self._squared[i] for i in indices], device=device)
            parts = torch.where(squared, parts * parts, parts)
            places = sorted({self._place_of[index] for index in indices})
            row = {place: at for at, place in enumerate(places)}
            rows = torch.tensor([row[self._place_of[index]] for index in indices], device=device)
            sums = torch.zeros(len(places), dtype=wide, device=device).index_add_(0, rows, parts)
            self._add_up(sums, places)
            for place, total in zip(places, sums.tolist(), strict=True):
                totals[place] = total
        return totals

    def _add_up(self, sums: Tensor, places: Sequence[int]) -> None:
        """Add up the numbers of sharded tensors over the processes of their mesh."""
        sharded: dict[Any, list[int]] = {}
        for row, place in enumerate(places):
            if self._meshes[place] is not None:
                sharded.setdefault(self._meshes[place][0], []).append(row)
        for mesh, rows in sharded.items():
            index = torch.tensor(rows, device=sums.device)
            copies = [self._meshes[places[row]][1] for row in rows]
            part = sums[index] / torch.tensor(copies, dtype=sums.dtype, device=sums.device)
            for axis in range(mesh.ndim):
                torch.distributed.all_reduce(part, group=mesh.get_group(axis))
            sums[index] = part


def _layout(tensor: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:  # noqa: ANN401 - loads late
    """The sizes of the axes of a tensor's mesh, and how it is placed along each."""
    mesh = getattr(tensor, "device_mesh", None)
    return ((), ()) if mesh is None else (tuple(mesh.shape), tuple(tensor.placements))
