"""Whether the saved state of a parameter fits its tensor, and sharding it as the tensor is."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


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


def placed(state: Any, tensor: Tensor) -> Any:  # noqa: ANN401 - state is what an optimizer keeps
    """Return saved state sharded as the tensor is, or whole if the tensor is not sharded.

    Tensors that are so already are not copied.
    """
    if any(_mesh(saved) is not None for saved in (tensor, *_tensors(state))):
        return _mapped(state, lambda value: _moved(value, tensor))
    return state


def _mesh(tensor: Tensor) -> Any:  # noqa: ANN401 - a DeviceMesh, whose module may be missing
    """Return the device mesh of a sharded tensor, ``None`` of another."""
    return getattr(tensor, "device_mesh", None)


def _mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401 - likewise
    """Return nested state with every tensor changed."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, Mapping):
        return {key: _mapped(value, change) for key, value in state.items()}
    return state


def _moved(value: Any, tensor: Any) -> Tensor:  # noqa: ANN401 - either may be a DTensor
    """Return a saved tensor in the layout of a parameter."""
    mesh, saved_mesh = _mesh(tensor), _mesh(value)
    if value.ndim == 0:  # step counters are the same everywhere
        return value  # type: ignore[no-any-return]
    # Factors of a matrix have no axis of their own to be sharded along.
    same_shape = value.shape == tensor.shape
    if saved_mesh == mesh and (not same_shape or value.placements == tensor.placements):
        return value  # type: ignore[no-any-return]
    whole: Tensor = value if saved_mesh is None else value.full_tensor()
    if mesh is None:
        return whole
    from torch.distributed.tensor import DTensor, Replicate

    # Every rank holds the whole tensor: nothing is sent.
    everywhere = [Replicate()] * mesh.ndim
    shared = DTensor.from_local(whole.to(tensor.device), mesh, everywhere, run_check=False)
    return shared.redistribute(placements=tensor.placements if same_shape else everywhere)
