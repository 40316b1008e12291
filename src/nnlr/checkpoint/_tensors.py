"""Whether the saved state of a parameter fits its tensor, and sharding it as the tensor is."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from nnlr.errors import ConfigError


def fits(state: object, tensor: Tensor) -> bool:
    """Whether saved state can belong to a tensor of this shape.

    It does if any saved tensor has that very shape, since what else is kept may have any
    (blocks, factors, preconditioners). Else all of them must be scalars or factors: its axes
    in their order, some of them missing or of length 1.
    """
    shapes, shape = [saved.shape for saved in _tensors(state)], tensor.shape
    # Every step counter has the shape of a parameter that is a scalar.
    if shape and shape in shapes:
        return True
    return all(_is_factor(saved, shape) for saved in shapes if saved.numel() != 1)


def _is_factor(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a shape has axes of another one, in their order, missing ones or of length 1."""
    if len(shape) == len(whole):
        return all(a in {1, b} for a, b in zip(shape, whole, strict=True))
    axes = iter(whole)
    return len(shape) < len(whole) and all(a == 1 or a in axes for a in shape)


def _tensors(state: object) -> Iterator[Tensor]:
    """Yield all tensors in nested state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)


def placed(state: Any, tensor: Any) -> Any:  # noqa: ANN401 - whatever an optimizer keeps
    """Return saved state sharded as the tensor is, or whole if the tensor is not sharded.

    Tensors that are so already are not copied.
    """
    tensors = list(_tensors(state))
    if not tensor.is_meta and any(value.is_meta for value in tensors):
        raise ConfigError(
            "The state in the checkpoint is on the meta device, without data. Load the file with "
            "torch.load(..., map_location='cpu'). Nothing was loaded."
        )
    if not any(hasattr(value, "device_mesh") for value in (tensor, *tensors)):
        return state
    if isinstance(state, Mapping):
        return {key: placed(value, tensor) for key, value in state.items()}
    if not isinstance(state, Tensor) or state.ndim == 0:  # step counters are the same everywhere
        return state
    mesh, saved_mesh = getattr(tensor, "device_mesh", None), getattr(state, "device_mesh", None)
    # Factors of a matrix have no axis of their own to be sharded along.
    placements = getattr(tensor, "placements", None) if state.shape == tensor.shape else None
    if saved_mesh == mesh and placements in (None, getattr(state, "placements", None)):
        return state
    whole: Any = state
    if saved_mesh is not None:
        whole = whole.full_tensor()
    if mesh is None:
        return whole
    everywhere = replicated(whole.to(tensor.device), mesh)
    return everywhere if placements is None else everywhere.redistribute(placements=placements)


def replicated(tensor: Tensor, mesh: Any) -> Any:  # noqa: ANN401 - types that load late
    """Return a tensor that every rank has whole as one on a mesh; itself without a mesh."""
    if mesh is None:
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    everywhere = [Replicate()] * mesh.ndim
    return DTensor.from_local(tensor, mesh, everywhere, run_check=False)  # nothing is sent
