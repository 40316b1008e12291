"""A model as plain data: one ParamInfo for each parameter, before any scheme is applied."""

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

from nnlr._arguments import text
from nnlr._model.marks import is_locked
from nnlr._model.names import Slot, Source, nodes, owner_of, slots, unwrap
from nnlr._model.roles import ROLES, Roles, RoleWithBasis, role_of_bare
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
        role: What it is for; :func:`nnlr.role` lists all roles.
        role_basis: How the role was found: type, attribute, table, name or user.
        requires_grad: Whether it is trained; what nnlr itself locked counts as trained.
        sparse: Whether its gradient is sparse.
        scope: The module it belongs to, and those around it. Parameter lists, parameter
            dicts and parametrizations do not count as modules.
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
        modules = []
        scope: Scope | None = self.scope
        while scope is not None and scope.cls is not None:
            modules.append((scope.path, scope.cls))
            scope = scope.above
        return tuple(reversed(modules))

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
    """A described model: what a scheme gets.

    Attributes:
        params: Every parameter once, in the order of ``model.parameters()``.
        module: The model, or ``None`` where bare tensors were given.
        label: The class name of the model, for messages.
        places: For each parameter, every place that holds it; tied ones have several.
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
        text(path, "path", "backbone")
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
    """Pause garbage collection while many small objects are made and none is dropped.

    On a model of 40,000 tensors the collector would visit the model's own million objects
    several times, which takes longer than the work itself.
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
    places: dict[int, list[Slot]] = {}
    slot = None
    for slot in slots(model):
        if is_lazy(slot.tensor):
            kind = type(slot.node.module).__name__ if slot.node else "lazy module"
            raise NnlrError(
                f"{slot.name!r} ({kind}) has no shape yet. Run one forward pass to initialise "
                "lazy modules, then resolve.",
                name=slot.name,
            )
        places.setdefault(id(slot.tensor), []).append(slot)
    around = Surroundings()
    roles = Roles(module, around, last=slot)
    return ModelInfo(
        params=tuple([_param(its_places, roles, around) for its_places in places.values()]),
        module=module,
        label="tensors" if module is None else module_class(unwrap(module)).__name__,
        places=tuple(map(tuple, places.values())),
    )


def with_roles(model: ModelInfo, roles: Mapping[int, str]) -> ModelInfo:
    """The same model with some roles set by the user, by position, and fans to match."""
    params = list(model.params)
    for index, role in roles.items():
        param, slot = params[index], model.places[index][0]
        check_role(role)
        fan_in, fan_out = None, None
        if slot.node is not None:
            owner, _ = owner_of(slot.node, slot.key)
            cls = param.owner_type or module_class(owner.module)
            fan_in, fan_out = fans(owner.module, cls, role, param.shape)
        params[index] = param._replace(role=role, role_basis="user", fan_in=fan_in, fan_out=fan_out)
    return replace(model, params=tuple(params))


def check_role(role: object) -> str:
    """Return the name of a role, or refuse another value."""
    if not isinstance(role, str) or role not in ROLES:
        hint = nearest_hint(shown(role), ROLES)
        raise NnlrError(
            f"{shown(role)} is no role. Roles: {', '.join(ROLES)}. {hint}".rstrip(),
            role=role,
        )
    return role


def _param(places: list[Slot], roles: Roles, around: Surroundings) -> ParamInfo:
    """Describe the parameter that these places hold."""
    slot = places[0]
    tensor = slot.tensor
    shape = tuple(tensor.shape)
    aliases: tuple[str, ...] = ()
    if len(places) > 1:
        aliases = tuple(dict.fromkeys(place.name for place in places))[1:]
    trained = tensor.requires_grad or any(
        is_locked(tensor, place.module, place.key) for place in places
    )
    if slot.node is None:
        role, basis = role_of_bare(slot)
        path, _, leaf = slot.name.rpartition(".")
        scope, sparse = Scope(path), False
        in_and_out: tuple[int | None, int | None] = (None, None)
    else:
        owner, leaf = owner_of(slot.node, slot.key)
        module, scope = owner.module, around.scope(owner)
        cls = scope.cls or module_class(module)
        role, basis = roles.of(slot, owner, leaf, cls)
        if role == "matrix" and len(places) > 1:
            role, basis = _role_of_tied(places, roles, around)
        in_and_out = fans(module, cls, role, shape)
        sparse = role == "embedding" and bool(getattr(module, "sparse", False))
    return ParamInfo(
        slot.name,
        leaf,
        shape,
        prod(shape),
        role,
        basis,
        aliases,
        tensor.dtype,
        *in_and_out,
        trained,
        sparse,
        scope,
    )


def _role_of_tied(places: list[Slot], roles: Roles, around: Surroundings) -> RoleWithBasis:
    """The role that a tensor has at the first of its places where it is no mere matrix."""
    roles_there = []
    for slot, node in [(slot, slot.node) for slot in places if slot.node is not None]:
        owner, leaf = owner_of(node, slot.key)
        cls = around.scope(owner).cls or module_class(owner.module)
        roles_there.append(roles.of(slot, owner, leaf, cls))
    return next((role for role in roles_there if role.role != "matrix"), roles_there[0])


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
        # (out, in / groups, *window), or (in, out / groups, *window) if transposed
        window = prod(shape[2:])
        groups = int(getattr(module, "groups", 1))
        first, second = shape[0] * window // groups, shape[1] * window
        return (first, second) if issubclass(cls, _ConvTransposeNd) else (second, first)
    if issubclass(cls, nn.Bilinear):  # (out, in1, in2)
        return prod(shape[1:]), shape[0]
    return None, None  # nothing says which axis of stacked experts is which
