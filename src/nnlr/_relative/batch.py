"""Parameters of one device and type, which are measured and changed together."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from nnlr._relative.kinds import Group
from nnlr._relative.norms import Norms
from nnlr._relative.targets import Target
from nnlr.optim._fast_path import local_part

# A parameter that is acted on, and the group that it is in.
Member = tuple[Tensor, Target, Group]

# Types that are computed with as float32, so many elements at a time (256 MiB).
_NARROW: Final = frozenset({torch.float16, torch.bfloat16})
_ELEMENTS: Final = 2**26


class Batch:
    """Parameters of one device and type."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.params = [param for param, _, _ in members]
        self.targets = [target for _, target, _ in members]
        self.norms = Norms(self.params, [target.stack for target in self.targets])
        self._groups = [group for _, _, group in members]
        self._narrow = self.params[0].dtype in _NARROW

    @property
    def parts(self) -> list[Tensor]:
        """The parts of the parameters that are in this process."""
        return [local_part(param) for param in self.params]

    def wide(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensors, or copies of them in float32 where they have 16 bits."""
        return [tensor.float() for tensor in tensors] if self._narrow else tensors

    def write(self, tensors: list[Tensor], wide: list[Tensor]) -> None:
        """Write what was computed of the tensors into them."""
        if self._narrow:
            torch._foreach_copy_(tensors, wide)

    def at_rates(self, values: Tensor) -> Tensor:
        """Values of matrices, each times the rate of its group."""
        parts, start, stop = [], 0, 0
        following = [*self._groups[1:], None]
        for group, size, after in zip(self._groups, self.norms.sizes, following, strict=True):
            stop += size
            if after is not group:
                parts.append(values[start:stop] * group["lr"])
                start = stop
        return torch.cat(parts)


def batches(members: Iterable[Member]) -> list[Batch]:
    """Parameters sorted by device and type; of those with 16 bits not too many in one batch."""
    of_kind: dict[Any, list[Member]] = {}
    elements = 0
    for member in members:
        part = local_part(member[0])
        if part.dtype in _NARROW:
            elements += part.numel()
        key = part.device, part.dtype, part.dtype in _NARROW and elements // _ELEMENTS
        of_kind.setdefault(key, []).append(member)
    return [Batch(each) for each in of_kind.values()]
