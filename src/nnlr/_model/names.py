"""Canonical parameter names: what a parameter is called whatever the model is wrapped in.

One table says which attribute of which wrapper is left out of a name. A segment goes only
where its owner *is* that wrapper, so a user's own ``self.module`` keeps its name. Wrappers
are recognised by their qualified class name, so that none of their packages is imported.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Final

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from nnlr._text import listed
from nnlr.errors import NnlrError

Source = nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]

# Attribute that holds the wrapped model -> the classes whose attribute it is.
WRAPPERS: Final[dict[str, tuple[str, ...]]] = {
    "module": (
        "torch.nn.parallel.distributed.DistributedDataParallel",
        "torch.nn.parallel.data_parallel.DataParallel",
        "torch.optim.swa_utils.AveragedModel",
        "deepspeed.runtime.engine.DeepSpeedEngine",
    ),
    "_orig_mod": ("torch._dynamo.eval_frame.OptimizedModule",),
    "_fsdp_wrapped_module": (
        "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel",
    ),
    "_checkpoint_wrapped_module": (
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper",
    ),
    "base_model": ("peft.peft_model.PeftModel", "peft.mixed_model.PeftMixedModel"),
    "model": ("peft.tuners.tuners_utils.BaseTuner",),
}

# The same for parts of a model. Unlike wrappers, these may hold several parameters of one
# name (weight-norm's two originals, two saved copies of a module), which then keep theirs.
PARTS: Final[dict[str, tuple[str, ...]]] = {
    "base_layer": ("peft.tuners.tuners_utils.BaseTunerLayer",),
    "modules_to_save": ("peft.utils.other.ModulesToSaveWrapper",),
}

# Dropped from the front of bare names, where no owner can be asked, if all names have it.
# PEFT's `model.` counts only behind its `base_model.`: many models have a part so called.
PREFIXES: Final = (
    "base_model.model.",
    *(f"{attr}." for attr in WRAPPERS if "model" not in attr),
)

DDP: Final = "torch.nn.parallel.distributed.DistributedDataParallel"

# What most parameters are called; these are neither magnitudes nor pruned originals.
_PLAIN_KEYS: Final = frozenset({"weight", "bias"})

# Containers that a parameter's owner is looked for behind.
TRANSPARENT: Final = (nn.ParameterList, nn.ParameterDict)


@cache
def lineage(cls: type) -> frozenset[str]:
    """Qualified names of a class and all its bases."""
    return frozenset(f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)


@cache
def wrapped_attrs(cls: type) -> frozenset[str]:
    """Attributes in which a wrapper of this class holds the model; none for others."""
    return _listed_under(cls, WRAPPERS)


@cache
def _unnamed_attrs(cls: type) -> frozenset[str]:
    return wrapped_attrs(cls) | _listed_under(cls, PARTS)


def _listed_under(cls: type, table: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    known = lineage(cls)
    return frozenset(attr for attr, owners in table.items() if not known.isdisjoint(owners))


class Node:
    """A module at one place in the tree; a shared module has a node for each place.

    Attributes:
        module: The module.
        cls: Its class.
        parent: The node above, or ``None`` for the root.
        attr: The attribute under which the parent holds it.
        path: Canonical path, ``""`` for the root.
    """

    __slots__ = ("attr", "cls", "module", "parent", "path")

    def __init__(self, module: nn.Module, parent: "Node | None", attr: str, path: str) -> None:
        self.module = module
        self.cls: type = type(module)
        self.parent = parent
        self.attr = attr
        self.path = path

    def raw(self, *, wrappers: bool = True) -> str:
        """The path as ``named_modules`` spells it, or that without wrappers."""
        if self.parent is None:
            return ""
        above = self.parent.raw(wrappers=wrappers)
        if not wrappers and self.attr in wrapped_attrs(self.parent.cls):
            return above
        return _joined(above, self.attr)

    def above(self) -> Iterator["Node"]:
        """This node, its parent, and so on up to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class Slot:
    """One place where a parameter hangs: a name, a tensor, and who holds it.

    Attributes:
        name: Canonical name.
        tensor: The parameter.
        node: The module whose ``_parameters`` hold it; ``None`` for bare tensors.
        key: Its key there.
    """

    __slots__ = ("key", "name", "node", "tensor")

    def __init__(self, name: str, tensor: Tensor, node: Node | None, key: str) -> None:
        self.name = name
        self.tensor = tensor
        self.node = node
        self.key = key

    @property
    def module(self) -> nn.Module | None:
        """The module that holds it; ``None`` for bare tensors."""
        return self.node.module if self.node else None

    def raw(self, *, wrappers: bool = True) -> str:
        """The name as ``named_parameters`` spells it, or that without wrappers.

        Of a bare tensor the canonical name, the only one that is kept.
        """
        if self.node is None:
            return self.name
        return _joined(self.node.raw(wrappers=wrappers), self.key)


def _joined(path: str, leaf: str) -> str:
    return f"{path}.{leaf}" if path else leaf


def nodes(model: nn.Module, *, bare: bool = True) -> Iterator[Node]:
    """Visit every place of the module tree, parents first, in ``named_modules`` order.

    Unlike ``named_modules`` a shared module is met at each of its places.

    Args:
        model: The root.
        bare: Visit modules too that hold neither parameters nor modules.
    """
    seen: set[nn.Module] = set()
    stack = [Node(model, None, "", "")]
    while stack:
        node = stack.pop()
        module = node.module
        if module in seen and _inside_itself(node):
            continue
        seen.add(module)
        yield node
        if module._modules:
            stack.extend(reversed(_children(node, bare=bare)))


def _inside_itself(node: Node) -> bool:
    return any(up.module is node.module for up in node.above() if up is not node)


def _children(node: Node, *, bare: bool) -> list[Node]:
    unnamed = _unnamed_attrs(node.cls)
    path = node.path
    prefix = f"{path}." if path else ""
    # The children of PEFT's `modules_to_save` are named after adapters.
    saved = node.attr == "modules_to_save" and _is_unnamed(node)
    return [
        Node(child, node, attr, path if saved or attr in unnamed else prefix + attr)
        for attr, child in node.module._modules.items()
        if child is not None and (bare or child._parameters or child._modules)
    ]


def _is_unnamed(node: Node) -> bool:
    parent = node.parent
    return parent is not None and node.attr in _unnamed_attrs(parent.cls)


def outermost(node: Node) -> Node:
    """The place that a module's name is from: that of what wraps it, if anything does."""
    while node.parent is not None and node.path == node.parent.path:
        node = node.parent
    return node


def parametrized_owner(node: Node, key: str) -> Node | None:
    """The module whose tensor is computed from this one by a parametrization, if any."""
    if node.cls is not ParametrizationList or not key.startswith("original"):
        return None
    holder = node.parent  # owner > ModuleDict "parametrizations" > this list
    return None if holder is None else holder.parent


def reparametrized(module: nn.Module, key: str) -> str | None:
    """The attribute that old-style weight_norm, spectral_norm or prune computes from ``key``.

    Those put ``weight_g`` and ``weight_v``, or ``weight_orig``, where ``weight`` was, which
    stays behind as a plain tensor.
    """
    base, _, suffix = key.rpartition("_")
    if suffix not in {"g", "v", "orig"} or base in module._parameters:
        return None
    # Not getattr: a user's property of that name must not run, and a buffer is no result.
    return base if isinstance(module.__dict__.get(base), Tensor) else None


@cache
def _stands_between(cls: type) -> bool:
    """Whether modules of this class hold parameters for others."""
    return issubclass(cls, (*TRANSPARENT, ParametrizationList))


def owner_of(node: Node, key: str) -> tuple[Node, str]:
    """The module that a parameter belongs to, and the parameter's name there.

    Parameter lists and dicts, parametrizations, weight norm and pruning are looked through.
    """
    if key in _PLAIN_KEYS and not _stands_between(node.cls):
        return node, key
    while isinstance(node.module, TRANSPARENT):
        place = outermost(node)
        if place.parent is None:
            break
        key = place.attr if key.isdigit() else key
        node = place.parent
    owner = parametrized_owner(node, key)
    if owner is not None:
        return owner, node.attr
    return node, reparametrized(node.module, key) or key


def slots(source: Source) -> list[Slot]:
    """Every place of every parameter, in the order of ``parameters()``.

    Tied tensors appear once for each name, and the first name is the one that
    ``named_parameters()`` gives.

    Args:
        source: A module, a mapping of names to tensors, or (name, tensor) pairs.

    Raises:
        NnlrError: If the source is something else, or two bare tensors share a name.
    """
    if isinstance(source, nn.Module):
        return _module_slots(source)
    return _bare_slots(_pairs(source))


def _module_slots(model: nn.Module) -> list[Slot]:
    found = []
    for node in nodes(model, bare=False):
        if not node.module._parameters:
            continue
        prefix = f"{node.path}." if node.path else ""
        for key, tensor in node.module._parameters.items():
            if tensor is None:
                continue
            owner = parametrized_owner(node, key)
            name = prefix + key if owner is None else _joined(owner.path, node.attr)
            found.append(Slot(name, tensor, node, key))
    for spelled in (_without_wrappers, Slot.raw):
        if not (collided := _collided(found)):
            break
        for slot in found:
            if slot.name in collided:
                slot.name = spelled(slot)
    return found


def _without_wrappers(slot: Slot) -> str:
    return slot.raw(wrappers=False)


def _collided(found: list[Slot]) -> set[str]:
    """Names that two tensors share."""
    if len({slot.name for slot in found}) == len(found):
        return set()
    holders: dict[str, Tensor] = {}
    return {
        slot.name for slot in found if holders.setdefault(slot.name, slot.tensor) is not slot.tensor
    }


def _bare_slots(pairs: list[tuple[str, Tensor]]) -> list[Slot]:
    names = [name for name, _ in pairs]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise NnlrError(f"{listed(map(repr, twice))}: each name may be given once.", names=twice)
    start = _shared_prefix(names)
    return [Slot(name[start:], tensor, None, name.rpartition(".")[2]) for name, tensor in pairs]


def _shared_prefix(names: list[str]) -> int:
    """Length of the wrappers' segments that all names begin with."""
    start = 0
    while names and (
        prefix := next(
            (p for p in PREFIXES if all(name.startswith(p, start) for name in names)),
            None,
        )
    ):
        start += len(prefix)
    return start


def _pairs(source: object) -> list[tuple[str, Tensor]]:
    wanted = "a torch.nn.Module, a mapping of names to tensors, or (name, tensor) pairs"
    if isinstance(source, Mapping):
        pairs = list(source.items())
    elif isinstance(source, Iterable) and not isinstance(source, str | Tensor):
        pairs = list(source)
    else:
        raise NnlrError(f"model must be {wanted}, got {type(source).__name__}.")
    for pair in pairs:
        if not (
            isinstance(pair, tuple)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], Tensor)
        ):
            hint = (
                " Plain tensors have no names: pass model.named_parameters(), or the model."
                if isinstance(pair, Tensor)
                else ""
            )
            raise NnlrError(f"model must be {wanted}; it holds {type(pair).__name__}.{hint}")
    return pairs


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP, compile, PEFT and other wrappers around the whole of it."""
    *_, innermost = unwrapping(model)
    return innermost


def inside_ddp(model: nn.Module) -> bool:
    """Whether the model, or a wrapper around the whole of it, is a DDP instance."""
    classes: list[type] = [type(layer) for layer in unwrapping(model)]
    return any(DDP in lineage(cls) for cls in classes)


def unwrapping(model: nn.Module) -> Iterator[nn.Module]:
    """The model, what it wraps, what that wraps, and so on."""
    inner: nn.Module | None = model
    while inner is not None:
        yield inner
        held = inner._modules
        cls: type = type(inner)
        attrs = wrapped_attrs(cls)
        inner = next((held[attr] for attr in attrs if attr in held), None)


def resolve_name(name: str, known: Collection[str]) -> str | None:
    """The known canonical name that a raw or canonical spelling means, or ``None``.

    Of several that fit, the longest: the one for which the least is left out.

    Examples:
        >>> resolve_name("module._orig_mod.fc.weight", {"fc.weight"})
        'fc.weight'
        >>> resolve_name("fc.parametrizations.weight.original", {"fc.weight"})
        'fc.weight'
    """
    if name in known:
        return name
    spellings: set[tuple[str, ...]] = {()}
    before = ""
    for segment in name.split("."):
        kept = {(*spelling, segment) for spelling in spellings}
        spellings = kept | spellings if _may_go(segment, before) else kept
        before = segment
    fits = [fit for spelling in spellings if (fit := ".".join(spelling)) in known]
    return max(fits, key=lambda fit: (fit.count("."), fit), default=None)


def _may_go(segment: str, before: str) -> bool:
    """Whether a segment of a raw name may be missing in the canonical one."""
    if segment == "model":
        return before == "base_model"
    computed = segment in {"parametrizations", "original"}
    adapter = before == "modules_to_save"
    return computed or adapter or segment in WRAPPERS or segment in PARTS
