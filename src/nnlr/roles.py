"""What a parameter is for: its role, and how that was found out.

Roles come from module types first, then from what the model says of itself, then from one
table of names of raw parameters, and only then from names. No forward is ever run.

=============  =================================================================
basis          the role follows from
=============  =================================================================
``type``       the class of the module that owns the parameter, and its shape
``attribute``  a hook or marker of the model (``get_output_embeddings``, PEFT)
``table``      :data:`TABLE`: leaf name and shape of a raw parameter
``name``       names of modules, or names alone where there are no modules
``user``       ``resolve(..., roles=...)``
=============  =================================================================
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrizations import _WeightNorm

from nnlr.names import Node, Slot, lineage, parametrized_owner

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


class Trait(NamedTuple):
    """One row of :data:`TABLE`: raw parameters of this leaf name and number of axes."""

    role: str
    pattern: str
    axes: range = range(10)


# Raw parameters, by leaf name (lower case, whole name) and number of axes that are not 1.
# The first row that fits wins.
TABLE: Final = (
    Trait("lora_a", r".*lora_?(embedding_?)?a\d*|.*lora_?down"),
    Trait("lora_b", r".*lora_?(embedding_?)?b\d*|.*lora_?up"),
    Trait("position", r".*rel(ative)?_?pos.*|.*attention_bias(es)?|.*bias_table"),
    Trait("position", r"(.*_)?pos(ition)?(al)?(_?(emb|enc|embed)\w*)?(_[a-z0-9]+)?"),
    Trait("token", r".*_tokens?(_\w+)?|(cls|class|mask|reg|dist)_?(embed\w*|token\w*)|.*quer(y|ies)"),
    Trait("token", r".*(prompt|latent)s?(_embed\w*)?|probe"),
    Trait("state", r"a_log|dt_bias|a_logs|ds?|log_dt|dt|lambda_(re|im)|log_a_real|a_imag", range(3)),
    Trait("bias", r"(.*_)?bias(_\w+)?|b(ias)?\d*|.*_b|beta\d*", range(3)),
    Trait("gain", r"(.*_)?(gamma|gain|scale|scales|g|alpha)\w{0,2}|.*layer_?scale.*|ls\d*", range(1, 2)),
    Trait("gain", r"(.*_)?lambda.*|.*magnitude.*", range(1, 2)),
    Trait("embedding", r".*embed.*", range(2, 3)),
    Trait("scalar", r".*", range(1)),
    Trait("vector", r".*", range(1, 2)),
    Trait("matrix", r".*"),
)

# Names of output layers. Exact segments: a "head" inside an attention layer is not one.
HEADS: Final = frozenset(
    "head heads classifier lm_head cls_head fc_out embed_out score logits qa_outputs "
    "output_layer output_projection pre_logits".split()
)

_POSITION = re.compile(r"(.*_)?(pos|position|positional|wpe)(_.*)?|.*(pos_?emb|position_?emb|relative_att).*")
_ROUTER = re.compile(r"(.*_)?(router|gate|gating)")
_LORA = {"lora_a": "lora_a", "lora_down": "lora_a", "lora_b": "lora_b", "lora_up": "lora_b"}


def assign(slots: list[Slot], model: nn.Module | None) -> Iterator[Role]:
    """Yield the role of every slot, in order."""
    outputs, inputs = _embedding_weights(model)
    last = next((slot.node for slot in reversed(slots) if slot.node), None)
    for slot in slots:
        if slot.node is None:
            yield _by_name_alone(slot)
            continue
        role = _adapter(slot) or _by_type(slot)
        if role is None:
            role = _by_table(slot)
        elif role.basis == "type" and role.role in {"matrix", "conv", "embedding"}:
            role = _refined(slot.node, slot.tensor, role, last, outputs, inputs)
        yield role


def axes(tensor: Tensor) -> int:
    """Number of axes longer than 1: 0 for a scalar, 1 for (1, 1, D) and (C, 1, 1)."""
    return sum(length != 1 for length in tensor.shape)


def _by_type(slot: Slot) -> Role | None:
    node, key = slot.node, slot.key
    if node is None:
        return None
    owner = parametrized_owner(node, key)
    if owner is not None:
        magnitude = key == "original0" and any(
            isinstance(step, _WeightNorm) for step in node.module.children()
        )
        if magnitude:
            return Role("gain", "type")
        return _of_module(owner.module, node.attr, slot.tensor)
    return _of_module(node.module, key, slot.tensor)


def _of_module(module: nn.Module, key: str, tensor: Tensor) -> Role | None:
    role = _known_leaf(module_class(module), key)
    if role is None and (base := reparametrized(module, key)):
        role = "gain" if key.endswith("_g") else _known_leaf(module_class(module), base)
    if role is None:
        role = _by_class_name(module, tensor)
    return Role(role, "type") if role else None


def module_class(module: nn.Module) -> type:
    """The class a user wrote: without what scripting, sharding or parametrizing puts on top."""
    if (original := getattr(module, "original_name", None)) and _is_script(type(module)):
        return getattr(nn, str(original), type(module))
    return _written_class(type(module))


@cache
def _is_script(cls: type) -> bool:
    return "torch.jit._script.RecursiveScriptModule" in lineage(cls)


@cache
def _written_class(cls: type) -> type:
    made = (
        cls.__module__ == "torch.nn.utils.parametrize"
        or cls.__name__.startswith("FSDP")
        and "FSDPModule" in {base.__name__ for base in cls.__bases__}
    )
    written = (base for base in cls.__bases__ if base.__name__ != "FSDPModule")
    return _written_class(next(written)) if made and len(cls.__bases__) else cls


@cache
def _known_leaf(cls: type, key: str) -> str | None:
    """Role of a parameter that the class is documented to have."""
    if issubclass(cls, nn.MultiheadAttention):
        if key in {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"}:
            return "matrix"
        return "bias" if key in {"in_proj_bias", "bias_k", "bias_v"} else None
    if issubclass(cls, nn.RNNBase | nn.RNNCellBase):
        return {"weight": "matrix", "bias": "bias"}.get(key.partition("_")[0])
    if key not in {"weight", "bias"}:
        return None
    if issubclass(cls, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
        return "norm"
    if issubclass(cls, nn.Embedding | nn.EmbeddingBag):
        return "position" if "position" in cls.__name__.lower() else "embedding"
    if issubclass(cls, nn.PReLU):
        return "gain"
    if issubclass(cls, _ConvNd):
        return "conv" if key == "weight" else "bias"
    if issubclass(cls, nn.Linear | nn.Bilinear):
        routes = re.search(r"router|gating|topkgate", cls.__name__.lower())
        return "bias" if key == "bias" else "router" if routes else "matrix"
    return None


def _by_class_name(module: nn.Module, tensor: Tensor) -> str | None:
    """Role in a module of the user's own class, from the class's name and the shapes."""
    if any(child is not None for child in module._modules.values()):
        return None
    name = module_class(module).__name__.lower()
    count = axes(tensor)
    if "norm" in name and _owns_vectors_of_one_length(module):
        return "norm"
    if "layerscale" in name and count <= 1:
        return "gain"
    if tensor.ndim < 2 or count < 2:
        return None
    if "router" in name or "gating" in name or "topkgate" in name:
        return "router"
    if "embedding" in name and tensor.ndim == 2:
        return "position" if "position" in name else "embedding"
    if "conv" in name and tensor.ndim > 2:
        return "conv"
    if "linear" in name or ("conv1d" in name and tensor.ndim == 2):
        return "matrix"
    return None


def _owns_vectors_of_one_length(module: nn.Module) -> bool:
    own = [tensor for tensor in module._parameters.values() if tensor is not None]
    lengths = {tensor.numel() for tensor in own}
    return len(lengths) == 1 and all(tensor.numel() in {0, *tensor.shape} for tensor in own)


def reparametrized(module: nn.Module, key: str) -> str | None:
    """The attribute that old-style weight_norm, spectral_norm or prune computes from ``key``.

    Those put ``weight_g`` and ``weight_v``, or ``weight_orig``, where ``weight`` was, which
    stays behind as a plain tensor.
    """
    base = re.sub(r"_(g|v|orig)$", "", key)
    computed = base != key and base not in module._parameters
    return base if computed and isinstance(getattr(module, base, None), Tensor) else None


def _adapter(slot: Slot) -> Role | None:
    """Role of a parameter that belongs to a PEFT adapter."""
    node: Node | None = slot.node
    attr = slot.key
    while node is not None:
        if "peft.tuners.tuners_utils.BaseTunerLayer" in lineage(type(node.module)):
            names = getattr(node.module, "adapter_layer_names", ())
            if attr not in names:
                return None
            lower = attr.lower()
            if "magnitude" in lower:
                return Role("gain", "attribute")
            kind = "lora_a" if lower.endswith("_a") else "lora_b" if lower.endswith("_b") else ""
            return Role(kind if "lora" in lower and kind else "adapter", "attribute")
        node, attr = node.parent, node.attr
    return None


def _by_table(slot: Slot) -> Role:
    name = slot.key
    if slot.node is not None and name.isdigit() and slot.node.attr:
        name = slot.node.attr  # a ParameterList says nothing; the list's own name does
    return Role(_table_role(name.lower(), axes(slot.tensor), slot.tensor.ndim), "table")


@cache
def _table_role(leaf: str, count: int, ndim: int) -> str:
    for role, pattern, where in TABLE:
        # A bias of experts has an axis for the experts, all else counts its long axes.
        if (ndim if role == "bias" else count) in where and re.fullmatch(pattern, leaf):
            return role
    return "matrix"


def _refined(
    node: Node,
    tensor: Tensor,
    role: Role,
    last: Node | None,
    outputs: Tensor | None,
    inputs: Tensor | None,
) -> Role:
    """What names and the model's own hooks add to a role found by type."""
    if role.role == "embedding":
        return Role("position", "name") if _POSITION.fullmatch(node.attr.lower()) else role
    if tensor is inputs:
        return Role("embedding", "attribute")
    if tensor is outputs:
        return Role("head", "attribute")
    attr = node.attr.lower()
    if node.parent is not None and _ROUTER.fullmatch(attr) and _has_experts(node.parent.module):
        return Role("router", "name")
    if attr in _LORA or (node.parent is not None and node.parent.attr.lower() in _LORA):
        return Role(_LORA.get(attr) or _LORA[node.parent.attr.lower()], "name")  # type: ignore[union-attr]
    if any(up.attr in HEADS for up in node.above()) or (node.attr == "fc" and node is last):
        return Role("head", "name")
    return role


def _has_experts(module: nn.Module) -> bool:
    return any("expert" in attr.lower() for attr in module._modules)


def _embedding_weights(model: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    """Output and input weights, as the model's own accessors name them."""
    found: list[Tensor | None] = []
    for hooks in (("get_output_embeddings", "get_classifier"), ("get_input_embeddings",)):
        weight = None
        for hook in hooks:
            accessor = getattr(model, hook, None)
            if weight is None and callable(accessor):
                try:
                    weight = getattr(accessor(), "weight", None)
                except Exception:  # noqa: BLE001  a hook that does not apply says nothing
                    weight = None
        found.append(weight if isinstance(weight, Tensor) else None)
    return found[0], found[1]


def _by_name_alone(slot: Slot) -> Role:
    """Role of a bare tensor: its name and shape are all there is."""
    *path, leaf = slot.name.lower().split(".")
    owner = path[-1] if path else ""
    count = axes(slot.tensor)
    if count <= 1 and re.search(r"(^|_)(norm|ln|bn|layernorm|batchnorm)(_|\d|$)|norm", owner):
        return Role("norm", "name")
    if count == 2 and leaf == "weight":
        if _POSITION.fullmatch(owner):
            return Role("position", "name")
        if re.search(r"embed|wte|shared", owner):
            return Role("embedding", "name")
        if HEADS & set(path):
            return Role("head", "name")
        if owner in _LORA:
            return Role(_LORA[owner], "name")
    if leaf == "weight":
        kinds = {0: "scalar", 1: "vector", 2: "matrix"}
        return Role("conv" if slot.tensor.ndim > 2 else kinds[count], "name")
    return Role(_table_role(leaf, count, slot.tensor.ndim), "name")
