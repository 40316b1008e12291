"""A model as plain data: one ParamInfo for each parameter, before any scheme is asked."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import prod
from typing import Final, NamedTuple

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from nnlr._model.marks import is_locked
from nnlr._model.names import Slot, Source, nodes, owner_of, slots, unwrap
from nnlr._model.roles import ROLES, Roles, role_of_bare
from nnlr._model.scopes import Scope, Surroundings, module_class
from nnlr._text import beginnings, nearest_hint, shown
from nnlr.errors import NnlrError


class ParamInfo(NamedTuple):
    """One parameter, described.

    Attributes:
        name: Canonical name, free of wrappers; of a tied tensor the first one.
        aliases: The other canonical names of a tied tensor.
        leaf: Its name on the owner: ``"weight"`` also where ``weight`` is parametrized.
        shape: Global shape, also where the tensor is sharded.
        numel: Number of elements.
        dtype: Its dtype.
        fan_in: Inputs that reach one output; ``None`` where the word has no meaning.
        fan_out: Outputs that one input reaches; ``None`` likewise.
        role: What it is for; :data:`nnlr._model.roles.ROLES` lists all roles.
        role_basis: How the role was found: type, attribute, table, name or user.
        requires_grad: Whether it is trained; what nnlr itself locked counts as trained.
        sparse: Whether its gradient is sparse.
        scope: The module it belongs to, and those around it. Parameter lists, parameter
            dicts and parametrizations are looked through.
    """

    name: str
    leaf: str
    shape: tuple[int, ...]
    numel: int
    role: str
    role_basis: str
    aliases: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float32
    fan_in: int | None = None
    fan_out: int | None = None
    requires_grad: bool = True
    sparse: bool = False
    scope: Scope = Scope("")

    @property
    def owner(self) -> str:
        """Canonical path of the module it belongs to, ``""`` for the root."""
        return self.scope.path

    @property
    def owner_type(self) -> type | None:
        """The class of that module as the user wrote it; ``None`` without modules."""
        return self.scope.cls

    @property
    def ancestors(self) -> tuple[tuple[str, type], ...]:
        """``(path, class)`` of every module around it, root first, its owner last."""
        found = []
        scope: Scope | None = self.scope
        while scope is not None and scope.cls is not None:
            found.append((scope.path, scope.cls))
            scope = scope.above
        return tuple(reversed(found))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The name and all aliases."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """A model, described: what a scheme sees.

    Attributes:
        params: Every parameter once, in the order of ``model.parameters()``.
        module: The model, or ``None`` where bare tensors were given.
        label: The class name of the model, for messages.
        places: For each parameter, every place where it hangs; tied ones have several.
    """

    params: tuple[ParamInfo, ...]
    module: nn.Module | None
    label: str
    places: tuple[tuple[Slot, ...], ...]

    @cached_property
    def spellings(self) -> tuple[list[str], list[int]]:
        """Every name and alias, and the position of its parameter."""
        names = [param.name for param in self.params]
        positions = list(range(len(names)))
        for index, param in enumerate(self.params):
            if param.aliases:
                names.extend(param.aliases)
                positions.extend([index] * len(param.aliases))
        return names, positions

    def submodel(self, path: str) -> "ModelInfo":
        """Describe the part of the model below a canonical path, with relative names.

        Raises:
            NnlrError: If nothing is there.
        """
        if self.module is None:
            inside = {
                slot.name.removeprefix(f"{path}."): slot.tensor
                for slot in chain.from_iterable(self.places)
                if slot.name.startswith(f"{path}.")
            }
            if inside:
                return describe(inside)
            raise NnlrError(f"No parameter's name starts with {path + '.'!r}.", path=path)
        modules: dict[str, nn.Module] = {}
        for node in nodes(self.module):  # a wrapped part and its wrapper share a path
            modules.setdefault(node.path, node.module)
        if path not in modules:
            hint = nearest_hint(path, modules) or (
                f"Its parts: {beginnings(filter(None, modules))}."
            )
            raise NnlrError(f"{self.label} has no module {path!r}. {hint}".rstrip(), path=path)
        return describe(modules[path])


# Roles of which an input and an output can be told apart.
_WITH_FANS: Final = frozenset(
    ["matrix", "conv", "head", "router", "lora_a", "lora_b", "embedding", "position"]
)


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause garbage collection: many small objects are about to be made, and none dropped.

    On a model of 40,000 tensors the collector would walk the model's own million objects
    several times over, which takes longer than the work itself.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@uncollected()
def describe(model: Source) -> ModelInfo:
    """Describe every parameter of a model.

    Args:
        model: A module, a mapping of names to tensors, or ``(name, tensor)`` pairs.

    Raises:
        NnlrError: If ``model`` is something else, or holds parameters without a shape.

    Examples:
        >>> from torch import nn
        >>> info = describe(nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4)))
        >>> [(p.name, p.role) for p in info.params][1:3]
        [('0.bias', 'bias'), ('1.weight', 'norm')]
    """
    module = model if isinstance(model, nn.Module) else None
    found = slots(model)
    _refuse_lazy(found)
    places: dict[int, tuple[Slot, ...]] = {}
    for slot in found:
        at = id(slot.tensor)
        places[at] = (*places[at], slot) if at in places else (slot,)
    around = Surroundings()
    roles = Roles(module, around, found[-1] if found else None)
    return ModelInfo(
        params=tuple([_param(hung, roles, around) for hung in places.values()]),
        module=module,
        label="tensors" if module is None else module_class(unwrap(module)).__name__,
        places=tuple(places.values()),
    )


def with_roles(model: ModelInfo, roles: Mapping[int, str]) -> ModelInfo:
    """The same model with some roles set by the user, by position, and fans to match.

    Raises:
        NnlrError: If a role is not one of :data:`nnlr._model.roles.ROLES`.
    """
    params = list(model.params)
    for index, role in roles.items():
        param, slot = params[index], model.places[index][0]
        fan_in, fan_out = _fans_as(check_role(role), param, slot)
        params[index] = param._replace(role=role, role_basis="user", fan_in=fan_in, fan_out=fan_out)
    return replace(model, params=tuple(params))


def _fans_as(role: str, param: ParamInfo, slot: Slot) -> tuple[int | None, int | None]:
    """The fans that a described parameter has in another role."""
    if slot.node is None:
        return None, None
    owner, _ = owner_of(slot.node, slot.key)
    cls = param.owner_type or module_class(owner.module)
    return fans(owner.module, cls, role, param.shape)


def check_role(role: object) -> str:
    """Return the role, or refuse a name that is none."""
    if not isinstance(role, str) or role not in ROLES:
        hint = nearest_hint(shown(role), ROLES)
        raise NnlrError(
            f"{shown(role)} is no role. Roles: {', '.join(ROLES)}. {hint}".rstrip(),
            role=role,
        )
    return role


def _refuse_lazy(found: list[Slot]) -> None:
    for slot in found:
        if is_lazy(slot.tensor):
            kind = type(slot.node.module).__name__ if slot.node else "lazy module"
            raise NnlrError(
                f"{slot.name!r} ({kind}) has no shape yet. Run one forward pass to initialise "
                "lazy modules, then resolve.",
                name=slot.name,
            )


def _param(places: tuple[Slot, ...], roles: Roles, around: Surroundings) -> ParamInfo:
    slot = places[0]
    tensor = slot.tensor
    shape = tuple(tensor.shape)
    aliases = _aliases(places) if len(places) > 1 else ()
    trained = tensor.requires_grad or any(map(_is_locked, places))
    if slot.node is None:
        role, basis = role_of_bare(slot)
        path, _, leaf = slot.name.rpartition(".")
        return ParamInfo(
            name=slot.name,
            leaf=leaf,
            shape=shape,
            numel=prod(shape),
            role=role,
            role_basis=basis,
            aliases=aliases,
            dtype=tensor.dtype,
            requires_grad=trained,
            scope=Scope(path),
        )
    owner, leaf = owner_of(slot.node, slot.key)
    module, scope = owner.module, around.scope(owner)
    cls = scope.cls or module_class(module)
    role, basis = roles.of(slot, owner, leaf, cls)
    return ParamInfo(  # by position, which is twice as fast
        slot.name,
        leaf,
        shape,
        prod(shape),
        role,
        basis,
        aliases,
        tensor.dtype,
        *fans(module, cls, role, shape),
        trained,
        role == "embedding" and bool(getattr(module, "sparse", False)),
        scope,
    )


def _aliases(places: tuple[Slot, ...]) -> tuple[str, ...]:
    names = dict.fromkeys(slot.name for slot in places)
    return tuple(names)[1:]


def _is_locked(slot: Slot) -> bool:
    return is_locked(slot.tensor, slot.module, slot.key)


def fans(
    module: nn.Module, cls: type, role: str, shape: tuple[int, ...]
) -> tuple[int | None, int | None]:
    """Fan-in and fan-out of a parameter, or ``None`` where the words have no meaning."""
    if len(shape) < 2 or role not in _WITH_FANS:
        return None, None
    if len(shape) == 2:
        rows_are_inputs = role in {"embedding", "position"} or cls.__name__ == "Conv1D"
        return shape if rows_are_inputs else (shape[1], shape[0])
    if issubclass(cls, _ConvNd):
        return _conv_fans(int(getattr(module, "groups", 1)), cls, shape)
    if issubclass(cls, nn.Bilinear):  # (out, in1, in2)
        return prod(shape[1:]), shape[0]
    return None, None  # nothing says which axis of stacked experts is which


def _conv_fans(groups: int, cls: type, shape: tuple[int, ...]) -> tuple[int, int]:
    """Fans of (out, in / groups, *window), or (in, out / groups, *window) if transposed."""
    window = prod(shape[2:])
    first, second = shape[0] * window // groups, shape[1] * window
    return (first, second) if issubclass(cls, _ConvTransposeNd) else (second, first)
