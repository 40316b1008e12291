"""``get_parameters``: a module's parameters and gradients as two vectors."""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nnlr._text import listed, warn
from nnlr.errors import NnlrError

__all__ = ["get_parameters"]

# The attribute of a parameter that holds its guard.
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
    # In the order of module.parameters(), each once.
    owned: dict[int, tuple[str, nn.Module, nn.Parameter]] = {}
    for prefix, owner in module.named_modules():
        for leaf, parameter in owner.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            owned.setdefault(id(parameter), (name, owner, parameter))
    parameters = {name: parameter for name, _, parameter in owned.values()}
    if not parameters:
        return torch.empty(0), torch.empty(0)
    _check_flattenable(parameters)

    # Everything that can fail comes before the first change of a parameter.
    first = next(iter(parameters.values()))
    total = sum(parameter.numel() for parameter in parameters.values())
    flat = torch.empty(total, dtype=first.dtype, device=first.device)
    flat_grad = torch.zeros_like(flat)
    vectors = _Vectors()
    start = 0
    for name, owner, parameter in owned.values():
        end = start + parameter.numel()
        value, grad = (vector[start:end].view(parameter.shape) for vector in (flat, flat_grad))
        with torch.no_grad():
            value.copy_(parameter)
            if parameter.grad is not None:
                grad.copy_(_dense(parameter.grad))
        vectors.places.append(_Place(weakref.ref(owner), name, value, grad))
        start = end

    for parameter, place in zip(parameters.values(), vectors.places, strict=True):
        earlier = parameter.__dict__.pop(_GUARD, None)
        if isinstance(earlier, _Guard):
            earlier.handle.remove()
        trainable, had_gradient = parameter.requires_grad, parameter.grad is not None
        parameter.grad = None
        parameter.data = place.value
        if trainable or had_gradient:
            parameter.grad = place.grad.detach()
        guard = _Guard(vectors, place)
        # A frozen parameter is guarded as well, in case it is unfrozen later; torch takes
        # the hook only while the flag is up.
        parameter.requires_grad_(True)
        register: Callable[[_Guard], RemovableHandle] = (
            parameter.register_post_accumulate_grad_hook  # untyped in torch
        )
        guard.handle = register(guard)
        parameter.requires_grad_(trainable)
        setattr(parameter, _GUARD, guard)
    return flat, flat_grad


def _check_flattenable(parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse parameters that cannot become parts of one vector."""
    for name, parameter in parameters.items():
        if reason := _obstacle(parameter):
            raise NnlrError(f"get_parameters cannot flatten {name!r}: {reason}.", name=name)
    for kind in ("device", "dtype"):
        names_of: dict[Any, list[str]] = {}
        for name, parameter in parameters.items():
            names_of.setdefault(getattr(parameter, kind), []).append(name)
        if len(names_of) > 1:
            kinds = "; ".join(f"{key}: {listed(names)}" for key, names in names_of.items())
            raise NnlrError(
                f"get_parameters needs all parameters of one {kind}, found {kinds}. "
                "Convert the module first, for example with module.to(...), or train "
                "with plan.param_groups(), which may mix them."
            )
    # Parameters that share memory without being one tensor would each get a copy of their own,
    # and be tied no longer.
    spans = []
    for name, parameter in parameters.items():
        if parameter.numel():
            steps = zip(parameter.shape, parameter.stride(), strict=True)
            extent = 1 + sum((size - 1) * stride for size, stride in steps)
            start = parameter.data_ptr()
            spans.append((start, start + extent * parameter.element_size(), name))
    for (_, end, name), (start, _, other) in pairwise(sorted(spans)):
        if start < end:
            raise NnlrError(
                f"get_parameters cannot flatten {name!r} and {other!r}: they overlap in "
                "memory but are two parameters. Tie them by assigning one Parameter "
                "under both names, or clone one of them.",
                names=(name, other),
            )


def _obstacle(parameter: Tensor) -> str | None:
    """Return why a parameter cannot become part of a vector, or ``None`` if it can."""
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
    return None


@dataclass(frozen=True, slots=True)
class _Place:
    """One parameter's part of the two vectors."""

    # Weak, and by module and name rather than by tensor: a module that is dropped takes
    # its memory with it at once, and torch may still swap the tensor.
    owner: "weakref.ref[nn.Module]"
    name: str
    value: Tensor  # the parameter's shape, a view of flat
    grad: Tensor  # the same of flat_grad


@dataclass(eq=False, slots=True)
class _Vectors:
    """The places of all parameters; ``connected`` until one no longer lies in its place."""

    places: list[_Place] = field(default_factory=list)
    connected: bool = True

    def reattach(self) -> None:
        """Bring every gradient that left the vector back into it."""
        for place in self.places:
            owner, leaf = place.owner(), place.name.rpartition(".")[2]
            parameter = None if owner is None else owner._parameters.get(leaf)
            guard = getattr(parameter, _GUARD, None)
            if parameter is None or not isinstance(guard, _Guard) or guard.vectors is not self:
                continue  # its module is gone, it was replaced, or a later call took it over
            if parameter.grad is None:
                place.grad.zero_()
            elif _lies_in(parameter.grad, place.grad):
                continue
            else:
                place.grad.copy_(_dense(parameter.grad.detach()))
            if parameter.requires_grad:
                parameter.grad = place.grad.detach()


@dataclass(eq=False, slots=True)
class _Guard:
    """The hook that keeps one parameter's gradient in the vector."""

    vectors: _Vectors
    place: _Place
    handle: RemovableHandle = field(init=False)

    def __call__(self, parameter: Tensor) -> None:
        """Run after each accumulation of this parameter's gradient."""
        if not self.vectors.connected:
            return
        if not _lies_in(parameter, self.place.value):
            self.vectors.connected = False
            warn(
                f"{self.place.name!r} no longer lies in the vector of get_parameters, so that "
                "stepping the vector would not move it. Was the module moved or cast? "
                "Call nnlr.torch7.get_parameters again."
            )
        elif parameter.grad is None or not _lies_in(parameter.grad, self.place.grad):
            self.vectors.reattach()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # torch pickles a parameter's attributes. A pickled parameter has no hook, so
        # nothing of the guard may travel; an empty OrderedDict is among the few things
        # that torch.load(weights_only=True) accepts.
        return OrderedDict, ()


def _lies_in(tensor: Tensor, place: Tensor) -> bool:
    """Whether a tensor has the memory of a place; ``module.to()`` exchanges the memory only."""
    return tensor.layout is torch.strided and tensor.data_ptr() == place.data_ptr()


def _dense(gradient: Tensor) -> Tensor:
    """Return a gradient as a dense tensor."""
    return gradient if gradient.layout is torch.strided else gradient.to_dense()
