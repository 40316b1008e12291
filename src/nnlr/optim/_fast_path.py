"""Why a parameter cannot be stepped by the fused kernels."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any, Final

import torch
from torch import Tensor

from nnlr._text import listed, plural

Group = dict[str, Any]

State = dict[str, Any]

# Where the fused kernels of all three optimizers take the same tensors.
_DEVICES: Final = frozenset({"cpu", "cuda", "xpu"})

_DTYPES: Final = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})

PLAIN_TYPES: Final = frozenset({Tensor, torch.nn.Parameter})

# Settings that the kernels take as Python numbers; reading a tensor would wait for its device.
_NUMBERS: Final = ("weight_decay", "betas", "eps", "momentum", "dampening")

NOT_DENSE: Final = "its elements are not dense in memory"

SIXTEEN_BITS: Final = "torch's fused SGD on a CPU is wrong in 16 bits"

# What torch's own fused step accepts and computes wrongly, without an error.
WRONG_IN_TORCH: Final = frozenset({NOT_DENSE, SIXTEEN_BITS})


def reason_of_group(group: Group) -> str | None:
    """Why all parameters of a group are slow; ``None`` if they need not be."""
    if group["differentiable"]:
        return "differentiable=True"
    for switch, allowed in (("foreach", None), ("fused", True)):
        if group[switch] not in {None, allowed}:
            return f"{switch}={group[switch]} was asked for"
    if group.get("capturable") and not all(p.is_cuda for p in group["params"]):
        return "capturable=True, which torch has for GPUs only"
    for key in _NUMBERS:
        value = group.get(key)
        numbers = value if isinstance(value, (tuple, list)) else [value]
        if any(isinstance(number, Tensor) for number in numbers):
            return f"{key} is a tensor"
    return _reason_of_lr(group["lr"])


def _reason_of_lr(lr: object) -> str | None:
    if isinstance(lr, Tensor):
        if lr.requires_grad:
            return "lr requires a gradient"
        if not lr.is_cpu and lr.dtype != torch.float32:
            return f"lr is a tensor of {lr.dtype} on {lr.device}"
    elif not isinstance(lr, Number):
        return f"lr is a {type(lr).__name__}"
    return None


def reason_of_parameter(param: Tensor, grad: Tensor | None) -> str | None:
    """Why a parameter with this gradient is slow; ``None`` if it is not."""
    sharded = is_sharded(param)
    if not sharded and type(param) not in PLAIN_TYPES:
        return f"it is a {type(param).__name__}"
    if sharded and grad is not None:
        if type(grad) is not type(param) or placements(grad) != placements(param):
            return "its gradient is not sharded as it is"
        grad = local_part(grad)
    param = local_part(param)
    return _reason_of_tensor(param) or (None if grad is None else _reason_of_grad(param, grad))


def _reason_of_tensor(param: Tensor) -> str | None:
    if type(param) not in PLAIN_TYPES:
        return f"it is made of a {type(param).__name__}"
    if param.layout is not torch.strided:
        return f"its layout is {param.layout}"
    if param.dtype not in _DTYPES:
        return f"its type is {param.dtype}"
    if param.device.type not in _DEVICES:
        return f"it is on {param.device}"
    # A tensor with holes or overlaps gets other strides when a new one is made like it.
    if not param.is_contiguous() and torch.empty_like(param).stride() != param.stride():
        return NOT_DENSE
    return None


def _reason_of_grad(param: Tensor, grad: Tensor) -> str | None:
    if type(grad) not in PLAIN_TYPES:
        return f"its gradient is a {type(grad).__name__}"
    if grad.layout is not torch.strided:
        return "its gradient is sparse"
    if grad.dtype != param.dtype:
        return f"its gradient is of {grad.dtype}"
    if (grad.shape, grad.device) != (param.shape, param.device):
        return "its gradient has another shape or device"
    return None


def convert_state(param: Tensor, state: State, names: Sequence[str]) -> str | None:
    """Convert optimizer state to the layout that the fused kernels need, or say why not.

    Checkpoints bring moments whose strides differ from the parameter's, and step counters of
    another type, on another device. Values stay as they are.

    Args:
        param: The parameter.
        state: Its state, which is changed.
        names: The names of its moments.
    """
    part = local_part(param)
    for name in names:
        moment = state[name]
        if not _is_like(param, moment):
            return f"its {name} has another type, shape, device or placement"
        if local_part(moment).stride() != part.stride():
            state[name] = torch.empty_like(param).copy_(moment)
    if "step" in state:
        step = state["step"]
        if not isinstance(step, Tensor) or step.numel() != 1:
            return "its step is no tensor of one number"
        state["step"] = step.detach().to(part.device, torch.float32).reshape(())
    return None


def _is_like(param: Tensor, moment: object) -> bool:
    """Whether a moment has the type, shape, device and placement of its parameter."""
    if not isinstance(moment, Tensor) or moment.shape != param.shape:
        return False
    if is_sharded(param) != is_sharded(moment):
        return False
    if is_sharded(param) and placements(moment) != placements(param):
        return False
    part, other = local_part(param), local_part(moment)
    return (
        type(other) in PLAIN_TYPES
        and other.layout is torch.strided
        and (other.dtype, other.device, other.shape) == (part.dtype, part.device, part.shape)
    )


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``DTensor``, as those of FSDP2 are."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and type(tensor) is module.DTensor


def local_part(tensor: Any) -> Tensor:  # noqa: ANN401 - may be a DTensor
    """The part of a ``DTensor`` that this process has; any other tensor as it is."""
    # Not `to_local`, which may wrap the tensor.
    part: Tensor = tensor._local_tensor if is_sharded(tensor) else tensor
    return part


def placements(tensor: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a DTensor
    """The devices and placements of the parts of a ``DTensor``."""
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
