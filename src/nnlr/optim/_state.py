"""What an optimizer keeps about a parameter, made fit for the fused kernels."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from nnlr.optim._fast_path import PLAIN, is_sharded, part, placed

State = dict[str, Any]

# The moment that begins as the first gradient, not as zeros; its kernel is told so.
MOMENTUM: Final = "momentum_buffer"


def begin(param: Tensor, state: State, names: Sequence[str]) -> bool:
    """Make room for a moment that begins with this step; whether there is one."""
    if MOMENTUM in names and state.get(MOMENTUM) is None:
        # Zeros: should the step be interrupted, nothing random is left to go on with.
        state[MOMENTUM] = torch.zeros_like(param)
        return True
    return False


def adopt(param: Tensor, state: State, names: Sequence[str]) -> str | None:
    """Make a state fit the kernels, or say why it cannot be done.

    Checkpoints bring moments that lie in memory otherwise than the parameter, and counters
    of another type, on another device. Values stay as they are.
    """
    for name in names:
        moment = state[name]
        if not _alike(param, moment):
            return f"its {name} has another type, shape, device or placement"
        if part(moment).stride() != part(param).stride():
            state[name] = torch.empty_like(param).copy_(moment)
    if "step" in state:
        step = state["step"]
        if not isinstance(step, Tensor) or step.numel() != 1:
            return "its step is no tensor of one number"
        device = part(param).device
        state["step"] = step.detach().to(device, torch.float32).reshape(())
    return None


def _alike(param: Tensor, moment: object) -> bool:
    if not isinstance(moment, Tensor) or moment.shape != param.shape:
        return False
    if is_sharded(param):
        if not is_sharded(moment) or placed(moment) != placed(param):
            return False
    elif type(moment) not in PLAIN:
        return False
    own, other = part(param), part(moment)
    return (
        type(other) in PLAIN
        and other.layout is torch.strided
        and (other.dtype, other.device, other.shape) == (own.dtype, own.device, own.shape)
    )
