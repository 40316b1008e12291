"""Norms of many tensors at once: of each matrix of a stack, and of shards the norm of the whole."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from nnlr.optim._fast_path import is_sharded, local_part


class Norms:
    """Measures tensors that lie on one device, have one type, and are sharded as parameters are.

    ``stacks`` says how many axes at the front count matrices; each matrix has a norm of its own,
    and all of them stand in one vector, in the order of the tensors.
    """

    def __init__(self, params: Sequence[Tensor], stacks: Sequence[int]) -> None:
        pairs = list(zip(params, stacks, strict=True))
        self._params, self._stacks = list(params), list(stacks)
        self._fronts = [local_part(param).shape[:stack] for param, stack in pairs]
        self.sizes = [prod(front) for front in self._fronts]  # how many norms, in this process
        self.counts = [prod(param.shape[:stack]) for param, stack in pairs]  # and in all
        self._sums: dict[Any, list[int]] = {}  # over which parts of a mesh, and of which tensors
        for at, (param, stack) in enumerate(pairs):
            if is_sharded(param) and (axes := _shared_axes(param, stack)):
                self._sums.setdefault((_mesh(param), axes), []).append(at)

    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of each matrix, in a vector."""
        if not any(self._stacks):
            return self._of_shards(torch.stack(torch._foreach_norm(list(tensors), 2)))
        norms = [
            torch.linalg.vector_norm(tensor, dim=tuple(range(stack, tensor.ndim)))
            for tensor, stack in zip(tensors, self._stacks, strict=True)
        ]
        return self._of_shards(torch.cat([norm.reshape(-1) for norm in norms]))

    def _of_shards(self, norms: Tensor) -> Tensor:
        """The norms of whole matrices from those of their shards."""
        if not self._sums:
            return norms
        by_tensor = list(torch.split(norms, self.sizes))
        for (mesh, axes), positions in self._sums.items():
            squares = torch.cat([by_tensor[at] for at in positions]).square()
            for axis in axes:
                torch.distributed.all_reduce(squares, group=mesh.get_group(axis))
            whole = torch.split(squares.sqrt(), [self.sizes[at] for at in positions])
            for at, norm in zip(positions, whole, strict=True):
                by_tensor[at] = norm
        return torch.cat(by_tensor)

    def spread(self, values: Tensor) -> list[Tensor]:
        """The values of each tensor's matrices, in a shape that multiplies them."""
        if not any(self._stacks):
            return list(values.unbind())
        ends = [
            (1,) * (param.ndim - stack)
            for param, stack in zip(self._params, self._stacks, strict=True)
        ]
        pieces = zip(torch.split(values, self.sizes), self._fronts, ends, strict=True)
        return [piece.view((*front, *end)) for piece, front, end in pieces]

    def gathered(self, values: Tensor) -> list[tuple[float, ...]]:
        """The values of each tensor's matrices as numbers, also of those in other processes."""
        pieces = zip(torch.split(values, self.sizes), self._params, self._stacks, strict=True)
        wholes = [_whole(piece, param, stack) for piece, param, stack in pieces]
        numbers = iter(torch.cat(wholes).tolist())
        return [tuple(next(numbers) for _ in range(count)) for count in self.counts]

    def scattered(self, values: Iterable[Sequence[float]], like: Tensor) -> Tensor:
        """The values of the matrices in this process, in a vector; ``gathered`` turned round."""
        pieces = zip(values, self._params, self._stacks, strict=True)
        parts = [_part(like.new_tensor(piece), param, stack) for piece, param, stack in pieces]
        return torch.cat(parts)


def _mesh(param: Any) -> Any:  # noqa: ANN401 - types that load late
    """The devices that share a tensor out."""
    return param.device_mesh


def _shared_axes(param: Any, stack: int) -> tuple[int, ...]:  # noqa: ANN401 - a DTensor
    """The axes of a mesh along which single matrices are sharded."""
    return tuple(
        axis
        for axis, placement in enumerate(param.placements)
        if placement.is_shard() and placement.dim >= stack
    )


def _stack_placements(param: Any, stack: int) -> list[Any] | None:  # noqa: ANN401 - a DTensor
    """How the matrices of a stack are shared out; ``None`` if each process has (a part of) all."""
    from torch.distributed.tensor import Replicate

    own = [
        placement if placement.is_shard() and placement.dim < stack else Replicate()
        for placement in param.placements
    ]
    return None if all(placement.is_replicate() for placement in own) else own


def _whole(values: Tensor, param: Any, stack: int) -> Tensor:  # noqa: ANN401 - may be a DTensor
    """The values of all matrices of a stack, from those that are in this process."""
    placements = _stack_placements(param, stack) if is_sharded(param) else None
    if placements is None:
        return values
    from torch.distributed.tensor import DTensor

    shape = param.shape[:stack]
    local = values.view(local_part(param).shape[:stack])
    stride = torch.empty(shape, device="meta").stride()
    whole: Any = DTensor.from_local(
        local, param.device_mesh, placements, shape=shape, stride=stride
    )
    return whole.full_tensor().flatten()  # type: ignore[no-any-return]


def _part(values: Tensor, param: Any, stack: int) -> Tensor:  # noqa: ANN401 - may be a DTensor
    """Those of the values of a stack's matrices that are in this process."""
    placements = _stack_placements(param, stack) if is_sharded(param) else None
    if placements is None:
        return values
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape = param.shape[:stack]
    lengths, starts = compute_local_shape_and_global_offset(shape, param.device_mesh, placements)
    cut = tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
    return values.view(shape)[cut].flatten()
