"""A model as plain data: one ParamInfo for each parameter, before any scheme is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from nnlr.errors import NnlrError, nearest_hint
from nnlr.marks import is_locked
from nnlr.names import Node, Slot, Source, nodes, parametrized_owner, slots
from nnlr.roles import ROLES, Role, assign, module_class, reparametrized

# Containers that a parameter's owner is looked for behind.
TRANSPARENT: Final = (nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamInfo:
    """One parameter, described.

    Attributes:
        name: Canonical name, free of wrappers; of a tied tensor the first one.
        aliases: The other canonical names of a tied tensor.
        owner: Canonical path of the module it belongs to, ``""`` for the root.
            Parameter lists, parameter dicts and parametrizations are looked through.
        owner_type: The class of that module as the user wrote it; ``None`` without modules.
        ancestors: ``(path, class)`` of every module around it, root first, owner last.
        leaf: Its name on the owner: ``"weight"`` also where ``weight`` is parametrized.
        shape: Global shape, also where the tensor is sharded.
        numel: Number of elements.
        dtype: Its dtype.
        fan_in: Inputs that reach one output; ``None`` where the word has no meaning.
        fan_out: Outputs that one input reaches; ``None`` likewise.
        role: What it is for; :data:`nnlr.roles.ROLES` lists all roles.
        role_basis: How the role was found: type, attribute, table, name or user.
        requires_grad: Whether it is trained; what nnlr itself locked counts as trained.
        sparse: Whether its gradient is sparse.
    """

    name: str
    aliases: tuple[str, ...] = ()
    owner: str = ""
    owner_type: type | None = None
    ancestors: tuple[tuple[str, type], ...] = ()
    leaf: str
    shape: tuple[int, ...]
    numel: int
    dtype: torch.dtype = torch.float32
    fan_in: int | None = None
    fan_out: int | None = None
    role: str
    role_basis: str
    requires_grad: bool = True
    sparse: bool = False

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
                param.name.removeprefix(f"{path}."): place[0].tensor
                for param, place in zip(self.params, self.places, strict=True)
                if param.name.startswith(f"{path}.")
            }
            if inside:
                return describe(inside)
            raise NnlrError(f"No parameter's name starts with {path + '.'!r}.", path=path)
        modules = {node.path: node.module for node in nodes(self.module)}
        if path not in modules:
            hint = nearest_hint(path, modules)
            raise NnlrError(f"{self.label} has no module {path!r}. {hint}".rstrip(), path=path)
        return describe(modules[path])


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
    places: dict[int, list[Slot]] = {}
    first_roles: dict[int, Role] = {}
    for slot, role in zip(found, assign(found, module), strict=True):
        places.setdefault(id(slot.tensor), []).append(slot)
        first_roles.setdefault(id(slot.tensor), role)
    around = _Ancestors()
    return ModelInfo(
        params=tuple(
            _param(hung, first_roles[key], around) for key, hung in places.items()
        ),
        module=module,
        label=module_class(module).__name__ if module is not None else "tensors",
        places=tuple(map(tuple, places.values())),
    )


def with_roles(model: ModelInfo, roles: Mapping[int, str]) -> ModelInfo:
    """The same model with some roles set by the user, by position.

    Raises:
        NnlrError: If a role is not one of :data:`nnlr.roles.ROLES`.
    """
    params = list(model.params)
    for index, role in roles.items():
        params[index] = replace(params[index], role=role, role_basis="user")
    return replace(model, params=tuple(params))


def check_role(role: object) -> str:
    """Return the role, or refuse a name that is none."""
    if not isinstance(role, str) or role not in ROLES:
        hint = nearest_hint(str(role), ROLES)
        raise NnlrError(
            f"{role!r} is no role. Roles: {', '.join(ROLES)}. {hint}".rstrip(), role=role
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


class _Ancestors:
    """``(path, class)`` of the modules around a node; computed once for each node."""

    def __init__(self) -> None:
        self._known: dict[Node, tuple[tuple[str, type], ...]] = {}

    def __call__(self, node: Node) -> tuple[tuple[str, type], ...]:
        found = self._known.get(node)
        if found is None:
            above = self(node.parent) if node.parent is not None else ()
            found = (*above, (node.path, module_class(node.module)))
            self._known[node] = found
        return found


def _param(hung: list[Slot], role: Role, around: _Ancestors) -> ParamInfo:
    slot = hung[0]
    tensor = slot.tensor
    shape = tuple(tensor.shape)
    aliases = tuple(dict.fromkeys(s.name for s in hung[1:] if s.name != slot.name))
    trained = tensor.requires_grad or any(_is_locked(place) for place in hung)
    if slot.node is None:
        owner, _, leaf = slot.name.rpartition(".")
        return ParamInfo(
            name=slot.name,
            aliases=aliases,
            owner=owner,
            leaf=leaf,
            shape=shape,
            numel=prod(shape),
            dtype=tensor.dtype,
            role=role.role,
            role_basis=role.basis,
            requires_grad=trained,
        )
    node, leaf = owner_of(slot.node, slot.key)
    ancestors = around(node)
    fan_in, fan_out = fans(node.module, ancestors[-1][1], role.role, shape)
    return ParamInfo(
        name=slot.name,
        aliases=aliases,
        owner=node.path,
        owner_type=ancestors[-1][1],
        ancestors=ancestors,
        leaf=leaf,
        shape=shape,
        numel=prod(shape),
        dtype=tensor.dtype,
        fan_in=fan_in,
        fan_out=fan_out,
        role=role.role,
        role_basis=role.basis,
        requires_grad=trained,
        sparse=role.role == "embedding" and bool(getattr(node.module, "sparse", False)),
    )


def _is_locked(slot: Slot) -> bool:
    if slot.node is None:
        return is_locked(slot.tensor, slot.key)
    return is_locked(slot.node.module, slot.key)


def owner_of(node: Node, key: str) -> tuple[Node, str]:
    """The module that a parameter belongs to, and the parameter's name there."""
    owner = parametrized_owner(node, key)
    if owner is not None:
        return owner, node.attr
    while isinstance(node.module, TRANSPARENT) and node.parent is not None:
        key = node.attr if key.isdigit() else key
        node = node.parent
    return node, reparametrized(node.module, key) or key


def fans(
    module: nn.Module, cls: type, role: str, shape: tuple[int, ...]
) -> tuple[int | None, int | None]:
    """Fan-in and fan-out of a parameter, or ``None`` where the words have no meaning."""
    if len(shape) < 2:
        return None, None
    if issubclass(cls, _ConvNd):
        groups = int(getattr(module, "groups", 1))
        window = prod(shape[2:])
        first, second = shape[0] * window, shape[1] * window
        if issubclass(cls, _ConvTransposeNd):  # (in, out / groups, *window)
            return first // groups, second
        return second, first // groups
    if issubclass(cls, nn.Bilinear) and len(shape) == 3:
        return shape[1] * shape[2], shape[0]
    if role in {"embedding", "position"}:
        return shape[0], prod(shape[1:])
    if len(shape) > 2:
        return None, None  # stacked experts, tables: which axis is which is not written down
    if cls.__name__ == "Conv1D":  # of transformers: weight is (in, out)
        return shape[0], shape[1]
    return shape[1], shape[0]
