"""Whether what was saved of one parameter fits its tensor, and how it gets there."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def fits(state: object, tensor: Tensor) -> bool:
    """Whether saved state can belong to a tensor of this shape.

    It does if any saved tensor has that very shape, since what else is kept may have any
    (blocks, factors, preconditioners). Else all of them must be scalars or factors: its axes
    in their order, some of them missing or of length 1.
    """
    held, shape = list(_tensors(state)), tensor.shape
    # Every step counter has the shape of a parameter that is a scalar.
    own = bool(shape) and any(each.shape == shape for each in held)
    return own or all(_is_factor(each.shape, shape) for each in held if each.numel() != 1)


def _is_factor(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    if len(shape) == len(whole):
        return all(a in {1, b} for a, b in zip(shape, whole, strict=True))
    axes = iter(whole)
    return len(shape) < len(whole) and all(a == 1 or a in axes for a in shape)


def _tensors(state: object) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)


def placed(state: Any, tensor: Tensor) -> Any:  # noqa: ANN401 - state is what an optimizer keeps
    """Saved state as the tensor's optimizer can use it: sharded as the tensor is, or whole.

    What is so already is handed on as it is. A copy is made where that is not so, and of
    the dictionaries around it.
    """
    if any(_mesh(each) is not None for each in (tensor, *_tensors(state))):
        return _mapped(state, lambda value: _moved(value, tensor))
    return state


def _mesh(tensor: Tensor) -> Any:  # noqa: ANN401 - a DeviceMesh, whose module may be missing
    return getattr(tensor, "device_mesh", None)


def _mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401 - likewise
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, Mapping):
        return {key: _mapped(value, change) for key, value in state.items()}
    return state


def _moved(value: Tensor, tensor: Tensor) -> Tensor:
    mesh, now = _mesh(tensor), _mesh(value)
    if value.ndim == 0 or (now == mesh and _placed_alike(value, tensor)):
        return value  # step counters are the same everywhere
    whole = value if now is None else value.full_tensor()  # type: ignore[attr-defined]
    return whole if mesh is None else _sharded(whole, tensor)


def _placed_alike(value: Any, tensor: Any) -> bool:  # noqa: ANN401 - DTensors, likewise
    alike: bool = value.placements == tensor.placements
    return alike or value.shape != tensor.shape


def _sharded(value: Tensor, tensor: Any) -> Tensor:  # noqa: ANN401 - a DTensor, likewise
    """A whole tensor, which every rank holds, sharded as another: nothing is sent."""
    from torch.distributed.tensor import DTensor, Replicate

    everywhere = [Replicate()] * tensor.device_mesh.ndim
    whole = DTensor.from_local(
        value.to(tensor.device), tensor.device_mesh, everywhere, run_check=False
    )
    # Factors of a matrix have no axis of their own to be sharded along.
    same = value.shape == tensor.shape
    return whole.redistribute(placements=tensor.placements if same else everywhere)
