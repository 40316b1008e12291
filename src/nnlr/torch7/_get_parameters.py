"""``get_parameters``: a module's parameters and gradients as two vectors."""

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nnlr._text import listed
from nnlr.errors import NnlrError, NnlrWarning

__all__ = ["get_parameters"]

# Where a parameter remembers the guard that get_parameters put on it.
_GUARD = "_nnlr_gradient_guard"


def get_parameters(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Make all parameters views of one vector, and all gradients views of another.

    The order is that of ``module.parameters()``: tied tensors once, each flattened row
    by row, as ``torch.nn.utils.parameters_to_vector`` does and ``plan.vectors()``
    expects. From then on a change of ``flat`` in place moves the module, and
    ``backward()`` accumulates into ``flat_grad``.

    Values and gradients are kept. A missing gradient becomes zeros; a frozen parameter
    without gradient takes its place in both vectors, its gradient there being 0, while
    its ``.grad`` stays None so that other optimizers still skip it. Parameters become
    contiguous (a ``channels_last`` layout is lost, its values are not).

    ``flat_grad.zero_()`` is the way to clear the gradients. ``zero_grad()`` works too:
    it takes the gradients out of ``flat_grad``, and the next ``backward()`` puts them
    back, with 0 where it reached no parameter; until then ``flat_grad`` shows the old
    values. The graph of a gradient (``create_graph=True``) is not kept.

    Call it after ``module.to(...)``, before wrapping the module, and again after
    whatever replaces the parameters' memory: ``to``, ``half``,
    ``load_state_dict(assign=True)``, or a later call on another module that holds some
    of the same parameters. Where ``backward()`` can see it, it says so in a warning.
    DistributedDataParallel keeps the views only with ``gradient_as_bucket_view=False``,
    its default.
    A deep copy or a pickle of the module is an ordinary module, with vectors of its own
    only once it is given to this function.

    Args:
        module: The module, already on its device and in its dtype.

    Returns:
        ``(flat, flat_grad)``, both of shape ``(n,)`` for n parameter elements, on the
        parameters' device and in their dtype; empty if there are no parameters.

    Raises:
        NnlrError: If the parameters differ in device or dtype, are not plain dense
            tensors in memory (lazy, meta, sharded, sparse, quantised), or overlap. The
            module is then unchanged.

    Examples:
        >>> net = nn.Linear(2, 1)
        >>> flat, flat_grad = get_parameters(net)
        >>> flat.copy_(torch.tensor([1.0, 2.0, 3.0])).shape
        torch.Size([3])
        >>> net.weight.tolist(), net.bias.tolist()
        ([[1.0, 2.0]], [3.0])
        >>> net(torch.tensor([[5.0, 7.0]])).sum().backward()
        >>> flat_grad
        tensor([5., 7., 1.])

    References:
        Torch7, ``nn.Module:getParameters``.
    """
    if not isinstance(module, nn.Module):
        raise NnlrError(
            f"get_parameters needs a torch.nn.Module, got {type(module).__name__}. "
            "Pass the module itself, not its parameters()."
        )
    slots = _slots(module)
    if not slots:
        return torch.empty(0), torch.empty(0)
    _check_flattenable(slots)

    # Everything that can fail comes before the first change of a parameter.
    first = slots[0].parameter
    total = sum(slot.parameter.numel() for slot in slots)
    flat = torch.empty(total, dtype=first.dtype, device=first.device)
    flat_grad = torch.zeros_like(flat)
    vectors = _Vectors(list(_places(slots, flat, flat_grad)))
    with torch.no_grad():
        for slot, place in zip(slots, vectors.places, strict=True):
            place.value.copy_(slot.parameter)
            if slot.parameter.grad is not None:
                place.grad.copy_(_dense(slot.parameter.grad))
    for index, slot in enumerate(slots):
        _attach(slot.parameter, vectors, index)
    return flat, flat_grad


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a module holds a parameter."""

    name: str
    owner: nn.Module
    parameter: nn.Parameter


def _slots(module: nn.Module) -> list[_Slot]:
    """Return the parameters in the order of ``module.parameters()``, each once."""
    seen: set[int] = set()
    slots = []
    for prefix, owner in module.named_modules():
        for leaf, parameter in owner.named_parameters(prefix="", recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                name = f"{prefix}.{leaf}" if prefix else leaf
                slots.append(_Slot(name, owner, parameter))
    return slots


def _check_flattenable(slots: list[_Slot]) -> None:
    for slot in slots:
        reason = _obstacle(slot.parameter)
        if reason:
            raise NnlrError(
                f"get_parameters cannot flatten {slot.name!r}: {reason}.",
                name=slot.name,
            )
    for kind in ("device", "dtype"):
        kinds: dict[Any, list[str]] = {}
        for slot in slots:
            kinds.setdefault(getattr(slot.parameter, kind), []).append(slot.name)
        if len(kinds) > 1:
            found = "; ".join(f"{key}: {listed(names)}" for key, names in kinds.items())
            raise NnlrError(
                f"get_parameters needs all parameters of one {kind}, found {found}. "
                "Convert the module first, for example with module.to(...), or train "
                "with plan.param_groups(), which may mix them."
            )
    _check_disjoint(slots)


def _obstacle(parameter: Tensor) -> str:
    """Say why a parameter cannot become part of a vector, or return ``""``."""
    if nn.parameter.is_lazy(parameter):
        return "it is not initialised yet; run one forward pass first"
    if type(parameter.data) is not torch.Tensor:
        return (
            f"it is a {type(parameter.data).__name__} (sharded, quantised or wrapped), "
            "not a plain tensor; use plan.param_groups() instead"
        )
    if parameter.is_meta:
        return "it is on the meta device and has no values; use module.to_empty() first"
    if parameter.layout is not torch.strided:
        return f"its layout is {parameter.layout}; make it dense first"
    if not (parameter.is_floating_point() or parameter.is_complex()):
        return f"its dtype {parameter.dtype} has no gradient; keep it as a buffer"
    return ""


def _check_disjoint(slots: list[_Slot]) -> None:
    """Refuse parameters that share memory without being one tensor.

    Flattening would give each its own copy and so untie them in silence.
    """
    spans = []
    for slot in slots:
        tensor = slot.parameter
        if tensor.numel():
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            extent = 1 + sum((size - 1) * stride for size, stride in steps)
            start = tensor.data_ptr()
            spans.append((start, start + extent * tensor.element_size(), slot.name))
    for (_, end, name), (start, _, other) in pairwise(sorted(spans)):
        if start < end:
            raise NnlrError(
                f"get_parameters cannot flatten {name!r} and {other!r}: they overlap in "
                "memory but are two parameters. Tie them by assigning one Parameter "
                "under both names, or clone one of them.",
                names=(name, other),
            )


@dataclass(frozen=True, slots=True)
class _Place:
    """One parameter's part of the two vectors."""

    # Weak, and by module and name rather than by tensor: a module that is dropped takes
    # its memory with it at once, and torch may still swap the tensor.
    owner: "weakref.ref[nn.Module]"
    name: str
    value: Tensor  # the parameter's shape, a view of flat
    grad: Tensor  # the same of flat_grad

    def parameter(self) -> nn.Parameter | None:
        owner, leaf = self.owner(), self.name.rpartition(".")[2]
        return None if owner is None else owner._parameters.get(leaf)


def _places(slots: list[_Slot], flat: Tensor, flat_grad: Tensor) -> Iterator[_Place]:
    start = 0
    for slot in slots:
        shape, end = slot.parameter.shape, start + slot.parameter.numel()
        value, grad = (vector[start:end].view(shape) for vector in (flat, flat_grad))
        yield _Place(weakref.ref(slot.owner), slot.name, value, grad)
        start = end


@dataclass(eq=False, slots=True)
class _Vectors:
    """The places of all parameters, and whether they still hold."""

    places: list[_Place]
    connected: bool = True

    def reattach(self) -> None:
        """Bring every gradient that left the vector back into it."""
        for place in self.places:
            parameter = place.parameter()
            guard = getattr(parameter, _GUARD, None)
            if parameter is None or not isinstance(guard, _Guard):
                continue  # its module is gone, or it was replaced
            if guard.vectors is self:  # else a later call took it over
                _reattach(parameter, place)


@dataclass(eq=False, slots=True)
class _Guard:
    """The hook that keeps one parameter's gradient in the vector."""

    vectors: _Vectors
    index: int
    handle: RemovableHandle = field(init=False)

    def __call__(self, parameter: Tensor) -> None:
        """Run after each accumulation of this parameter's gradient."""
        if not self.vectors.connected:
            return
        place = self.vectors.places[self.index]
        if not _lies_in(parameter, place.value):
            self.vectors.connected = False
            warnings.warn(
                f"{place.name!r} no longer lies in the vector of get_parameters, so that "
                "stepping the vector would not move it. Was the module moved or cast? "
                "Call nnlr.torch7.get_parameters again.",
                NnlrWarning,
                stacklevel=2,
            )
        elif parameter.grad is None or not _lies_in(parameter.grad, place.grad):
            self.vectors.reattach()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # torch pickles a parameter's attributes. A pickled parameter has no hook, so
        # nothing of the guard may travel; an empty OrderedDict is among the few things
        # that torch.load(weights_only=True) accepts.
        return OrderedDict, ()


def _attach(parameter: nn.Parameter, vectors: _Vectors, index: int) -> None:
    earlier = parameter.__dict__.pop(_GUARD, None)
    if isinstance(earlier, _Guard):
        earlier.handle.remove()
    place = vectors.places[index]
    trainable, had_gradient = parameter.requires_grad, parameter.grad is not None
    parameter.grad = None
    parameter.data = place.value
    if trainable or had_gradient:
        parameter.grad = place.grad.detach()
    guard = _Guard(vectors, index)
    # A frozen parameter is guarded as well, in case it is unfrozen later; torch takes
    # the hook only while the flag is up.
    parameter.requires_grad_(True)
    register: Callable[[_Guard], RemovableHandle] = (
        parameter.register_post_accumulate_grad_hook  # untyped in torch
    )
    guard.handle = register(guard)
    parameter.requires_grad_(trainable)
    setattr(parameter, _GUARD, guard)


def _reattach(parameter: nn.Parameter, place: _Place) -> None:
    fresh = parameter.grad
    if fresh is None:
        place.grad.zero_()
    elif _lies_in(fresh, place.grad):
        return
    else:
        place.grad.copy_(_dense(fresh.detach()))
    if parameter.requires_grad:
        parameter.grad = place.grad.detach()


def _lies_in(tensor: Tensor, place: Tensor) -> bool:
    # By address: `module.to()` keeps the tensor objects and exchanges their memory.
    return tensor.layout is torch.strided and tensor.data_ptr() == place.data_ptr()


def _dense(gradient: Tensor) -> Tensor:
    return gradient if gradient.layout is torch.strided else gradient.to_dense()
