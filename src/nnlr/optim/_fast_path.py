"""What the fused kernels cannot take, in words."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._text import listed, plural

Group = Mapping[str, Any]

# Where the fused kernels of all three optimizers take the same tensors.
_DEVICES: Final = frozenset({"cpu", "cuda", "xpu"})

_DTYPES: Final = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})

PLAIN: Final = frozenset({Tensor, torch.nn.Parameter})

# Settings that the kernels take as Python numbers; a tensor would have to be waited for.
_NUMBERS: Final = ("weight_decay", "betas", "eps", "momentum", "dampening")

# Those that torch's own fused step takes, and gets wrong without a word.
NOT_DENSE: Final = "its elements are not dense in memory"

NARROW: Final = "torch's fused SGD on a CPU is wrong in 16 bits"

MISTAKEN: Final = frozenset({NOT_DENSE, NARROW})


def of_group(group: Group) -> str | None:
    """Why no parameter of a group can take the fast path, if so."""
    if group["differentiable"]:
        return "differentiable=True"
    for switch, wanted in (("foreach", None), ("fused", True)):
        if group[switch] not in {None, wanted}:
            return f"{switch}={group[switch]} was asked for"
    if group.get("capturable") and not all(p.is_cuda for p in group["params"]):
        return "capturable=True, which torch has for GPUs only"
    for key in _NUMBERS:
        if _holds_tensor(group.get(key)):
            return f"{key} is a tensor"
    return _of_rate(group["lr"])


def _of_rate(lr: object) -> str | None:
    if isinstance(lr, Tensor):
        if lr.requires_grad:
            return "lr requires a gradient"
        if not lr.is_cpu and lr.dtype != torch.float32:
            return f"lr is a tensor of {lr.dtype} on {lr.device}"
    elif not isinstance(lr, Number):
        return f"lr is a {type(lr).__name__}"
    return None


def _holds_tensor(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return any(isinstance(each, Tensor) for each in value)
    return isinstance(value, Tensor)


def of_parameter(param: Tensor, grad: Tensor | None) -> str | None:
    """Why a parameter with this gradient cannot take the fast path, if so."""
    if type(param) in PLAIN:
        own, slope = param, grad
    elif is_sharded(param):
        own, slope = local(param), grad if grad is None else _local_like(grad, param)
        if slope is None and grad is not None:
            return "its gradient is not sharded as it is"
    else:
        return f"it is a {type(param).__name__}"
    return _of_tensor(own) or (None if slope is None else _of_gradient(own, slope))


def _of_tensor(param: Tensor) -> str | None:
    if type(param) not in PLAIN:
        return f"it is made of a {type(param).__name__}"
    if param.layout is not torch.strided:
        return f"its layout is {param.layout}"
    if param.dtype not in _DTYPES:
        return f"its type is {param.dtype}"
    if param.device.type not in _DEVICES:
        return f"it is on {param.device}"
    # What keeps its strides when it is made anew has no holes and no overlaps.
    if not param.is_contiguous() and torch.empty_like(param).stride() != param.stride():
        return NOT_DENSE
    return None


def _of_gradient(param: Tensor, grad: Tensor) -> str | None:
    if type(grad) not in PLAIN:
        return f"its gradient is a {type(grad).__name__}"
    if grad.layout is not torch.strided:
        return "its gradient is sparse"
    if grad.dtype != param.dtype:
        return f"its gradient is of {grad.dtype}"
    if (grad.shape, grad.device) != (param.shape, param.device):
        return "its gradient has another shape or device"
    return None


def _local_like(grad: Tensor, param: Tensor) -> Tensor | None:
    """This process's part of a gradient that is sharded as its parameter is."""
    if type(grad) is not type(param):
        return None
    return local(grad) if placed(grad) == placed(param) else None


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``DTensor``, as those of FSDP2 are."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and type(tensor) is module.DTensor


def local(tensor: Any) -> Tensor:  # noqa: ANN401 - a DTensor
    """This process's part of a DTensor: the very tensor, which ``to_local`` may wrap."""
    part: Tensor = tensor._local_tensor
    return part


def part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor: all of it, or its part of a DTensor."""
    return local(tensor) if is_sharded(tensor) else tensor


def placed(tensor: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a DTensor
    """Where the parts of a DTensor are."""
    return tensor.device_mesh, tensor.placements


@dataclass(frozen=True)
class FastPathReport:
    """Which parameters of an optimizer take the fast path, and which do not.

    Parameters are named as in ``param_names``; without them, by their place.

    Attributes:
        fast: Those that take it.
        slow: Those that make torch's own step instead, by the reason.
    """

    fast: tuple[str, ...]
    slow: Mapping[str, tuple[str, ...]]

    @property
    def all_fast(self) -> bool:
        """Whether every parameter takes the fast path."""
        return not self.slow

    def __str__(self) -> str:
        total = len(self.fast) + sum(map(len, self.slow.values()))
        lines = [f"{len(self.fast):,} of {plural(total, 'parameter')} on the fast path"]
        lines += [
            f"  {len(names):,} by torch's own step, because {reason}: {listed(names)}"
            for reason, names in self.slow.items()
        ]
        return "\n".join(lines)


def report(
    optimizer: Optimizer,
    everywhere: str | None,
    unfit: Callable[[Tensor], str | None],
) -> FastPathReport:
    """Look over all parameters as they are now, with the gradients they have now."""
    fast: list[str] = []
    slow: dict[str, list[str]] = {}
    for position, group in enumerate(optimizer.param_groups):
        general = everywhere or of_group(group)
        for name, param in zip(_names(position, group), group["params"], strict=True):
            reason = general or unfit(param) or of_parameter(param, param.grad)
            (fast if reason is None else slow.setdefault(reason, [])).append(name)
    return FastPathReport(tuple(fast), {reason: tuple(names) for reason, names in slow.items()})


def _names(position: int, group: Group) -> Sequence[str]:
    names: Sequence[str] = group.get("param_names") or [
        f"param_groups[{position}]['params'][{at}]" for at in range(len(group["params"]))
    ]
    return names
