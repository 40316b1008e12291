"""What a parameter is for: its role, and what the role follows from.

Roles come from module types first, then from what the model says of itself, then from one
table of names of raw parameters, and only then from names. No forward is ever run.

=============  =================================================================
basis          the role follows from
=============  =================================================================
``type``       the class of the module that owns the parameter, and its shape
``attribute``  a hook or marker of the model (``get_output_embeddings``, PEFT)
``table``      :data:`nnlr._model.role_tables.TABLE`: leaf and shape of a raw parameter
``place``      being the last layer of the model
``name``       names of modules, or names alone where there are no modules
``user``       ``resolve(..., roles=...)``
=============  =================================================================
"""

import re
from functools import cache
from itertools import takewhile
from typing import Final, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrizations import _WeightNorm

from nnlr._model.names import TRANSPARENT, Node, Slot, outermost, owner_of, unwrap
from nnlr._model.role_tables import (
    CLASSES,
    COMPARED,
    LEARNED,
    LEARNED_CLASSES,
    MOST_LEARNED,
    SUBCLASSES,
    TABLE,
    TYPES,
    UNNAMED,
    Trait,
)
from nnlr._model.scopes import (
    OUTPUT_HOOKS,
    Surroundings,
    class_facts,
    ends_model,
    module_class,
    named_head,
)

ROLES: Final = {
    "embedding": "a table of vectors looked up by index",
    "position": "position embeddings and relative-position tables",
    "token": "learned inputs: class, mask, register and prompt tokens, queries, levels",
    "norm": "gain and shift of a normalisation layer",
    "bias": "what a layer adds",
    "gain": "what a layer is multiplied with: LayerScale, weight-norm's magnitude, PReLU",
    "scalar": "one number: a temperature, a gate",
    "state": "the recurrence of a state-space layer: A_log, D, dt_bias",
    "vector": "any other vector",
    "matrix": "the weights of a linear map",
    "conv": "the weights of a convolution",
    "head": "the weights of an output layer",
    "router": "the weights that send tokens to experts",
    "lora_a": "the first, down-projecting matrix of a low-rank adapter",
    "lora_b": "the second, up-projecting matrix of a low-rank adapter",
    "adapter": "any other parameter of an adapter",
}

BASES: Final = ("type", "attribute", "table", "place", "name", "user")


class RoleWithBasis(NamedTuple):
    """A role, and what it follows from: one of :data:`BASES`."""

    role: str
    basis: str


# Nearly all roles follow from types: these are made once.
_BY_TYPE: Final = {role: RoleWithBasis(role, "type") for role in ROLES}

# Weights of torch.nn's classes, by the attribute that holds the module.
_POSITION: Final = re.compile(
    r"(.*_)?(pos|positions?|positional|wpe|rel|relative|distance)(_.*)?"
    r"|.*(pos|position)_?emb.*|(.*_)?(row|col(umn)?|temporal)_?emb\w*"
)
_POSITION_BIAS: Final = re.compile(r"rel(ative)?_pos\w*_bias")  # it may be a linear layer
_ROUTER: Final = re.compile(r"(.*_)?(router|gate|gating)")
_NORM: Final = re.compile(r".*(?<!Spectral)(?<!Weight)Norm")
_BARE_NORM: Final = re.compile(r"norm|(^|_)(ln|bn)(_|\d|$)")
_LORA: Final = re.compile(r"lora_?(?:(?P<lora_a>a|down)|(?P<lora_b>b|up))")


def axes(tensor: Tensor) -> int:
    """Number of axes longer than 1: 0 for a scalar, 1 for (1, 1, D) and (C, 1, 1)."""
    return sum(length != 1 for length in tensor.shape)


class Roles:
    """Finds the roles of one model's parameters; without a model those of plain tensors."""

    def __init__(self, model: nn.Module | None, around: Surroundings, last: Slot | None) -> None:
        inner = model if model is None else unwrap(model)
        inputs, table = _layer_of_hook(inner, "get_input_embeddings")
        self._input_table = None
        if inputs is not None and _role_of_type(module_class(inputs), "weight") == "embedding":
            self._input_table = table
        self._output_layer = _layer_of_hook(inner, *OUTPUT_HOOKS)
        self._around = around
        owner = owner_of(last.node, last.key)[0] if last and last.node else None
        self._last_layer = owner if owner and ends_model(owner) else None

    def of(self, slot: Slot, owner: Node, leaf: str, cls: type) -> RoleWithBasis:
        """The role of a parameter, given its owner, its name there and the owner's class."""
        node = slot.node or owner
        if node is not owner:
            self._around.scope(node)
        if node in self._around.tuners:
            adapted = _adapter_role(slot, *self._around.tuners[node])
            if adapted is not None:
                return RoleWithBasis(adapted, "attribute")
        role = _by_type(slot, owner.module, leaf, cls)
        if role in {"matrix", "conv"}:
            return self._of_weights(slot.tensor, owner, role)
        with_basis = (
            _BY_TYPE[role]
            if role
            else RoleWithBasis(_by_table(slot.tensor, owner.module, leaf), "table")
        )
        if with_basis.role == "matrix" and owner in self._around.heads:
            return RoleWithBasis("head", "name")
        if with_basis.role == "embedding":
            words = slot.tensor is self._input_table or slot.tensor is self._output_layer[1]
            if not words and _is_learned(slot.tensor, owner):
                return RoleWithBasis("token", "name")
            if _is_positional(outermost(owner)):
                return RoleWithBasis("position", "name")
        return with_basis

    def _of_weights(self, tensor: Tensor, owner: Node, role: str) -> RoleWithBasis:
        """The role of a matrix or convolution: by the model's hooks, then by names."""
        head, weight = self._output_layer
        if tensor is self._input_table:
            return RoleWithBasis("embedding", "attribute")
        if owner.module is head or tensor is weight:
            return RoleWithBasis("head", "attribute")
        if by_names := _by_names_around(outermost(owner)):
            return by_names
        if owner in self._around.heads:
            return RoleWithBasis("head", "name")
        return RoleWithBasis("head", "place") if owner is self._last_layer else _BY_TYPE[role]


def _by_names_around(place: Node) -> RoleWithBasis | None:
    """The role of weights that the names of their modules tell, other than a head's."""
    if _POSITION_BIAS.fullmatch(place.attr.lower()):
        return RoleWithBasis("position", "name")
    if (parent := place.parent) is None:
        return None
    if _role_of_class_name(class_facts(parent.cls).written or parent.cls, 2) == "router":
        return _BY_TYPE["router"]
    role = _role_of_attr(place.attr, outermost(parent).attr)
    beside = list(parent.module._modules.keys())
    if role == "router" and not any("expert" in attr.lower() for attr in beside):
        return None  # another kind of gate
    return RoleWithBasis(role, "name") if role else None


def _layer_of_hook(model: nn.Module | None, *hooks: str) -> tuple[nn.Module | None, Tensor | None]:
    """The layer that the first of a model's own hooks names, and its weight."""
    for hook in hooks:
        try:
            layer = getattr(model, hook)()
            weight = layer.weight
        except Exception:  # noqa: BLE001, S112  a hook that does not apply raises anything
            continue
        if isinstance(layer, nn.Module) and isinstance(weight, Tensor):
            return unwrap(layer), weight
    return None, None


def _is_learned(table: Tensor, owner: Node) -> bool:
    """Whether a table is taken as a whole, by its name: queries, not words that are looked up."""
    place, layer = outermost(owner), owner.module
    if isinstance(layer, nn.EmbeddingBag) or len(table) > MOST_LEARNED:
        return False
    if isinstance(layer, nn.Embedding) and (
        layer.padding_idx is not None or layer.sparse or layer.scale_grad_by_freq
    ):
        return False  # settings of what is looked up
    while place.parent is not None and UNNAMED.fullmatch(place.attr.lower()):
        cls = place.parent.cls
        if LEARNED_CLASSES.fullmatch(f"{cls.__module__}.{cls.__name__}".lower()):
            return True
        if _holds_layers(place.parent.module):
            return False
        place = outermost(place.parent)
    if place.parent is None or LEARNED.fullmatch(place.attr.lower()) is None:
        return False
    beside = place.parent.module._modules
    return not any(COMPARED.fullmatch(attr.lower()) for attr in beside)


def _holds_layers(module: nn.Module) -> bool:
    """Whether a module holds more than tables of vectors."""
    tables = (nn.Embedding, *TRANSPARENT)
    return any(
        not isinstance(part, tables) and any(True for _ in part.parameters(recurse=False))
        for part in module.modules()
        if part is not module
    )


def _is_positional(place: Node) -> bool:
    """Whether a table, or what it is a part of, is called one of positions."""
    if _POSITION.fullmatch(place.attr.lower()):
        return True
    if place.parent is None:
        return False
    whole = outermost(place.parent)
    return (
        _POSITION.fullmatch(whole.attr.lower()) is not None
        and re.search("tok|word", f"{whole.attr}.{place.attr}".lower()) is None
    )


@cache
def _role_of_attr(attr: str, above: str) -> str | None:
    """The role that the name of a module tells: a router, or a low-rank adapter."""
    for name in (attr.lower(), above.lower()):
        if lora := _LORA.fullmatch(name):
            return lora.lastgroup
    return "router" if _ROUTER.fullmatch(attr.lower()) else None


def _adapter_role(slot: Slot, tuner: nn.Module, attr: str) -> str | None:
    """The role of what a PEFT layer has added under ``attr``; ``None`` for anything else."""
    leaf = attr or slot.key
    if slot.key == "bias" or leaf not in getattr(tuner, "adapter_layer_names", ()):
        return None
    if "magnitude" in leaf:
        return "gain"
    lora = re.fullmatch(r"lora_(embedding_)?([ab])", leaf.lower())
    return f"lora_{lora[2]}" if lora else "adapter"


def _by_type(slot: Slot, module: nn.Module, leaf: str, cls: type) -> str | None:
    """The role of a parameter by the class of the module it belongs to."""
    if leaf != slot.key and _is_magnitude(slot):
        return "gain"
    role = _role_of_type(cls, leaf) or _by_class_name(cls, module, slot.tensor)
    if role != "embedding":
        return role
    if _by_table(slot.tensor, module, leaf) in {"position", "token"}:
        return None  # a class of embeddings may hold positions and tokens itself
    # One row is looked up by no index; a flat tensor is the shard of a table.
    rows = slot.tensor.shape[:-1]
    return "token" if rows and rows.numel() == 1 else role


def _is_magnitude(slot: Slot) -> bool:
    """Whether weight norm, new or old, has split this off: a gain, not a matrix."""
    if slot.key == "original0" and slot.node is not None:
        return any(isinstance(step, _WeightNorm) for step in slot.node.module.children())
    return slot.key.endswith("_g")


@cache
def _role_of_type(cls: type, leaf: str) -> str | None:
    """The role of a parameter of one of torch's own classes, or of a subclass."""
    by_name = _role_of_class_name(cls, 2)
    for classes, pattern, role in TYPES:
        if issubclass(cls, classes) and re.fullmatch(pattern, leaf):
            # A subclass may say more: a Linear that routes, an Embedding of positions.
            return by_name if (role, by_name) in SUBCLASSES else role
    return None


def _by_class_name(cls: type, module: nn.Module, tensor: Tensor) -> str | None:
    """The role of a raw parameter by the name of the user's class and the shapes."""
    count, name = axes(tensor), cls.__name__.lower()
    role = _role_of_class_name(cls, count)
    norm, conv = "norm" in name, "conv" in name
    if not (norm or conv or role) or _holds_weights(module):
        return None
    if norm and _is_norm(cls, module):
        return "norm"
    if conv and count > 1:  # (out, in, 1, 1) has 2 long axes
        return "conv" if tensor.ndim > 2 else "matrix"
    return role


@cache
def _role_of_class_name(cls: type, count: int) -> str | None:
    """The role that the name of a class gives its parameters with so many axes."""
    name = cls.__name__.lower()
    return next((trait.role for trait in CLASSES if _fits(trait, name, count)), None)


def _holds_weights(module: nn.Module) -> bool:
    """Whether weights hang below a module, other than its own in lists or parametrized."""
    return any(
        axes(tensor) > 1
        for attr, child in module._modules.items()
        if child is not None and attr != "parametrizations" and not isinstance(child, TRANSPARENT)
        for tensor in child.parameters()
    )


def _is_norm(cls: type, module: nn.Module) -> bool:
    """Whether all it owns are vectors of one length, or such vectors for each head."""
    tensors = [tensor for tensor in module._parameters.values() if tensor is not None]
    lengths = {tensor.numel() for tensor in tensors}
    vectors = len(lengths) == 1 and all(t.numel() in t.shape for t in tensors)
    alike = len({tensor.shape for tensor in tensors}) == 1
    return vectors or (alike and _NORM.fullmatch(cls.__name__) is not None)


def _by_table(tensor: Tensor, module: nn.Module, leaf: str) -> str:
    """The role of a raw parameter by its own name, and those beside it."""
    return next(
        trait.role
        for trait in _rows(leaf.lower(), axes(tensor))
        if trait.beside is None or _is_beside(trait.beside, module)
    )


def _is_beside(pattern: str, module: nn.Module) -> bool:
    """Whether a module has a parameter of such a name; asked only where the role turns on it."""
    names = list(module._parameters.keys())  # of a scripted module too
    return any(re.fullmatch(pattern, name.lower()) for name in names)


@cache
def _rows(leaf: str, count: int) -> tuple[Trait, ...]:
    """The rows of the table that a name and a number of axes fit."""
    return tuple(trait for trait in TABLE if _fits(trait, leaf, count))


def _fits(trait: Trait, name: str, count: int) -> bool:
    # DOTALL: torch allows a newline in a name.
    return count in trait.axes and re.fullmatch(trait.pattern, name, re.DOTALL) is not None


def role_of_bare(slot: Slot) -> RoleWithBasis:
    """The role of a tensor without a module, by its name and shape."""
    *path, leaf = slot.name.lower().split(".")
    owner = path[-1] if path else ""
    count = axes(slot.tensor)
    if leaf in {"weight", "bias"} and count <= 1 and _BARE_NORM.search(owner):
        role = "norm"
    elif leaf != "weight":
        role = next(trait.role for trait in _rows(leaf, count) if trait.beside is None)
    elif count < 2:
        role = "vector" if count else "scalar"
    elif (
        len(slot.tensor) <= MOST_LEARNED
        and re.search("emb|feat|token", owner)  # a `query` may be a layer
        and LEARNED.fullmatch(owner)
    ):
        role = "token"
    elif _POSITION.fullmatch(owner):
        role = "position"
    elif count == 2 and re.search(r"embed(?!.*proj)|^wte$|^shared$", owner):
        role = "embedding"
    elif lora := _role_of_attr(owner, ""):
        role = lora
    elif any(map(named_head, takewhile(lambda segment: not segment.isdigit(), path))):
        role = "head"
    else:
        role = "conv" if slot.tensor.ndim > 2 else "matrix"
    return RoleWithBasis(role, "name")
