"""Record the state of objects, to see whether a call changed anything."""

import random

import numpy as np
import torch
from torch import nn


def state_of(*objects):
    """Return the state of objects, of their tensors bit by bit, and of all random generators."""
    seen = set()
    return [
        [_picture(each, seen) for each in objects],
        torch.get_rng_state().tolist(),
        random.getstate(),
        repr(np.random.get_state()),
    ]


def _picture(value, seen):  # noqa: PLR0911 - a case for each sort of object
    if value is None or isinstance(value, bool | int | float | str | bytes | type):
        return type(value).__name__, repr(value)
    if id(value) in seen:
        return id(value)
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return _tensor(value, seen)
    if isinstance(value, dict):
        return [(_key(key), _picture(each, seen)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return id(value), [_picture(each, seen) for each in value]
    if isinstance(value, nn.Module):
        names = ("training", "_parameters", "_buffers", "_modules", "_nnlr", "_nnlr_locked")
        return [_picture(vars(value)[key], seen) for key in names if key in vars(value)]
    if hasattr(value, "__dict__") and not callable(value):
        return id(value), _picture(vars(value), seen)
    return id(value)


def _key(key):
    return key if isinstance(key, str | int) else id(key)


def _tensor(value, seen):
    local = getattr(value, "to_local", lambda: value)().detach()
    dense = local if local.layout == torch.strided else local.to_dense()
    bits = None if dense.is_meta else dense.cpu().contiguous().flatten().view(torch.uint8)
    return (
        id(value),
        None if local.is_meta or dense is not local else local.data_ptr(),
        str(value.dtype),
        tuple(value.shape),
        value.requires_grad,
        None if bits is None else bits.tolist(),
        _picture(value.grad, seen) if value.is_leaf else None,
    )
