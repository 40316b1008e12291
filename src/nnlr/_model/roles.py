"""What a parameter is for: its role, and how that was found out.

Roles come from module types first, then from what the model says of itself, then from one
table of names of raw parameters, and only then from names. No forward is ever run.

=============  =================================================================
basis          the role follows from
=============  =================================================================
``type``       the class of the module that owns the parameter, and its shape
``attribute``  a hook or marker of the model (``get_output_embeddings``, PEFT)
``table``      :data:`nnlr._model.role_tables.TABLE`: leaf and shape of a raw parameter
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
from nnlr._model.role_tables import CLASSES, SUBCLASSES, TABLE, TYPES, Trait
from nnlr._model.scopes import Surroundings, class_facts, module_class, named_head

ROLES: Final = {
    "embedding": "a table of vectors looked up by index",
    "position": "position embeddings and relative-position tables",
    "token": "learned tokens: class, mask, register, query",
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

BASES: Final = ("type", "attribute", "table", "name", "user")


class Role(NamedTuple):
    """A role and how it was found out."""

    role: str
    basis: str


_BY_TYPE: Final = {role: Role(role, "type") for role in ROLES}

# Weights of torch.nn's classes, by the attribute that holds the module.
_POSITION: Final = re.compile(
    r"(.*_)?(pos|positions?|positional|wpe|rel|relative|distance)(_.*)?"
    r"|.*(pos|position)_?emb.*"
)

_ROUTER: Final = re.compile(r"(.*_)?(router|gate|gating)")

_NORM: Final = re.compile(r".*(?<!Spectral)(?<!Weight)Norm")

_BARE_NORM: Final = re.compile(r"norm|(^|_)(ln|bn)(_|\d|$)")

_LORA: Final = re.compile(r"lora_?(?:(?P<lora_a>a|down)|(?P<lora_b>b|up))")

_ROUTER_BY_NAME: Final = Role("router", "name")


def axes(tensor: Tensor) -> int:
    """Number of axes longer than 1: 0 for a scalar, 1 for (1, 1, D) and (C, 1, 1)."""
    return sum(length != 1 for length in tensor.shape)


class Roles:
    """Finds the roles of one model's parameters.

    Args:
        model: The model, or ``None`` where there are only tensors.
        around: What stands around its modules.
        last: Its last parameter.
    """

    def __init__(self, model: nn.Module | None, around: Surroundings, last: Slot | None) -> None:
        inner = model if model is None else unwrap(model)
        inputs, table = _asked(inner, "get_input_embeddings")
        self._table = table if inputs is not None and _is_table(inputs) else None
        self._outputs = _asked(inner, "get_output_embeddings", "get_classifier")
        self._around = around
        self._last = owner_of(last.node, last.key)[0] if last and last.node else None

    def of(self, slot: Slot, owner: Node, leaf: str, cls: type) -> Role:
        """The role of a parameter, given its owner, its name there and the owner's class."""
        node = slot.node or owner
        if node is not owner:
            self._around.scope(node)
        if node in self._around.tuners:
            adapted = _adapter(slot, *self._around.tuners[node])
            if adapted is not None:
                return Role(adapted, "attribute")
        role = _by_type(slot, owner.module, leaf, cls)
        if role in {"matrix", "conv"}:
            return self._of_weights(slot.tensor, owner, role)
        found = role or _by_table(slot.tensor, owner.module, leaf)
        if found == "embedding" and _is_positional(outermost(owner)):
            return Role("position", "name")
        return _BY_TYPE[role] if role else Role(found, "table")

    def _of_weights(self, tensor: Tensor, owner: Node, role: str) -> Role:
        """What the model's own hooks, and then names, add to a matrix or convolution."""
        head, weight = self._outputs
        if tensor is self._table:
            return Role("embedding", "attribute")
        if owner.module is head or tensor is weight:
            return Role("head", "attribute")
        place = outermost(owner)
        if place.parent is not None and (named := _by_attr(place, place.parent)):
            return named
        if owner in self._around.heads or (owner is self._last and place.attr == "fc"):
            return Role("head", "name")
        return _BY_TYPE[role]


def _asked(model: nn.Module | None, *hooks: str) -> tuple[nn.Module | None, Tensor | None]:
    """The layer that a model's own hook names, and its weight."""
    for hook in hooks:
        try:
            layer = getattr(model, hook)()
            weight = layer.weight
        except Exception:  # noqa: BLE001, S112  a hook that does not apply raises anything
            continue
        if isinstance(layer, nn.Module) and isinstance(weight, Tensor):
            return unwrap(layer), weight
    return None, None


def _is_table(layer: nn.Module) -> bool:
    return _known_leaf(module_class(layer), "weight") == "embedding"


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


def _by_attr(place: Node, parent: Node) -> Role | None:
    """The role of a router, or of a low-rank adapter written by hand."""
    role = _at(place.attr, outermost(parent).attr, parent.cls)
    if role is _ROUTER_BY_NAME and not _holds_experts(parent.module):
        return None
    return role


@cache
def _at(attr: str, above: str, cls: type) -> Role | None:
    if _class_role(class_facts(cls).written or cls, 2) == "router":
        return _BY_TYPE["router"]
    named = _named(attr, above)
    if named == "router":
        return _ROUTER_BY_NAME
    return Role(named, "name") if named else None


@cache
def _named(attr: str, above: str) -> str | None:
    for name in (attr.lower(), above.lower()):
        if lora := _LORA.fullmatch(name):
            return lora.lastgroup
    return "router" if _ROUTER.fullmatch(attr.lower()) else None


def _holds_experts(module: nn.Module) -> bool:
    return any("expert" in attr.lower() for attr in module._modules)


def _adapter(slot: Slot, tuner: nn.Module, attr: str) -> str | None:
    """The role of what a PEFT layer has added under ``attr``; ``None`` for the rest."""
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
    known = _known_leaf(cls, leaf) or _by_class_name(cls, module, slot.tensor)
    if known != "embedding":
        return known
    if _by_table(slot.tensor, module, leaf) in {"position", "token"}:
        return None  # a class of embeddings may hold positions and tokens itself
    # One row is looked up by no index; a flat tensor is the shard of a table.
    rows = slot.tensor.shape[:-1]
    return "token" if rows and rows.numel() == 1 else known


def _is_magnitude(slot: Slot) -> bool:
    """Whether weight norm, new or old, has split this off: a gain, not a matrix."""
    if slot.key == "original0" and slot.node is not None:
        return any(isinstance(step, _WeightNorm) for step in slot.node.module.children())
    return slot.key.endswith("_g")


@cache
def _known_leaf(cls: type, leaf: str) -> str | None:
    # A subclass may say more: a Linear that routes, an Embedding of positions.
    named = _class_role(cls, 2)
    for classes, pattern, role in TYPES:
        if issubclass(cls, classes) and re.fullmatch(pattern, leaf):
            return named if (role, named) in SUBCLASSES else role
    return None


def _by_class_name(cls: type, module: nn.Module, tensor: Tensor) -> str | None:
    """The role of a raw parameter by the name of the user's class and the shapes."""
    count = axes(tensor)
    if not _may_be_named(cls, count) or _holds_weights(module):
        return None
    if "norm" in cls.__name__.lower() and _is_norm(cls, module):
        return "norm"
    if "conv" in cls.__name__.lower() and count > 1:  # (out, in, 1, 1) has 2 long axes
        return "conv" if tensor.ndim > 2 else "matrix"
    return _class_role(cls, count)


@cache
def _class_role(cls: type, count: int) -> str | None:
    """What the name of a class says of its parameters with so many axes."""
    name = cls.__name__.lower()
    return next((t.role for t in CLASSES if _fits(t, name, count)), None)


@cache
def _may_be_named(cls: type, count: int) -> bool:
    """Whether the name of a class says anything at all, before its instances are asked."""
    named = re.search("norm|conv", cls.__name__.lower())
    return named is not None or _class_role(cls, count) is not None


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
    own = [tensor for tensor in module._parameters.values() if tensor is not None]
    lengths = {tensor.numel() for tensor in own}
    vectors = len(lengths) == 1 and all(t.numel() in t.shape for t in own)
    alike = len({tensor.shape for tensor in own}) == 1
    return vectors or (alike and _NORM.fullmatch(cls.__name__) is not None)


def _by_table(tensor: Tensor, module: nn.Module, leaf: str) -> str:
    others = [other.lower() for other in module._parameters]
    return next(
        trait.role
        for trait in _rows(leaf.lower(), axes(tensor))
        if trait.beside is None or any(re.fullmatch(trait.beside, o) for o in others)
    )


@cache
def _rows(leaf: str, count: int) -> tuple[Trait, ...]:
    """The rows of the table that a name and a number of axes fit."""
    return tuple(trait for trait in TABLE if _fits(trait, leaf, count))


def _fits(trait: Trait, name: str, count: int) -> bool:
    return count in trait.axes and re.fullmatch(trait.pattern, name) is not None


def role_of_bare(slot: Slot) -> Role:
    """The role of a tensor without a module: its name and shape are all there is."""
    *path, leaf = slot.name.lower().split(".")
    owner = path[-1] if path else ""
    count = axes(slot.tensor)
    if leaf in {"weight", "bias"} and count <= 1 and _BARE_NORM.search(owner):
        return Role("norm", "name")
    if leaf != "weight":
        traits = (t for t in _rows(leaf, count) if t.beside is None)
        return Role(next(traits).role, "name")
    return Role(_bare_weight(path, owner, slot.tensor.ndim, count), "name")


def _bare_weight(path: list[str], owner: str, ndim: int, count: int) -> str:
    """The role of a tensor called ``weight``, by the names of the modules around it."""
    if count < 2:
        return "vector" if count else "scalar"
    if _POSITION.fullmatch(owner):
        return "position"
    if count == 2 and re.search(r"embed(?!.*proj)|^wte$|^shared$", owner):
        return "embedding"
    if lora := _named(owner, ""):
        return lora
    before_numbers = takewhile(lambda segment: not segment.isdigit(), path)
    if any(map(named_head, before_numbers)):
        return "head"
    return "conv" if ndim > 2 else "matrix"
