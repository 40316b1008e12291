"""Canonical parameter names: what a parameter is called whatever the model is wrapped in.

One table says which attribute of which wrapper is left out of a name. A segment goes only
where its owner *is* that wrapper, so a user's own ``self.module`` keeps its name. Wrappers
are recognised by their qualified class name, so that none of their packages is imported.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.optim import Optimizer

from nnlr._arguments import is_listing
from nnlr._text import listed, shown
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

# Keys of most parameters; these are neither magnitudes nor pruned originals.
_PLAIN_KEYS: Final = frozenset({"weight", "bias"})

# Containers that hold parameters for the module above them.
TRANSPARENT: Final = (nn.ParameterList, nn.ParameterDict)


@cache
def lineage(cls: type) -> frozenset[str]:
    """Qualified names of a class and all its bases."""
    return frozenset(f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)


@cache
def wrapped_attrs(cls: type) -> frozenset[str]:
    """Attributes in which a wrapper of this class holds the model; none for others."""
    return frozenset(
        attr for attr, owners in WRAPPERS.items() if not lineage(cls).isdisjoint(owners)
    )


@cache
def _unnamed_attrs(cls: type) -> frozenset[str]:
    """Attributes of this class that are left out of names."""
    parts = (attr for attr, owners in PARTS.items() if not lineage(cls).isdisjoint(owners))
    return wrapped_attrs(cls).union(parts)


@dataclass(slots=True, eq=False)
class Node:
    """A module at one place in the tree; a shared module has a node for each place."""

    module: nn.Module
    cls: type  # the module's class
    parent: "Node | None"  # the node above; None for the root
    attr: str  # the attribute under which the parent holds it
    path: str  # canonical path, "" for the root

    def raw(self, *, wrappers: bool = True) -> str:
        """The path as ``named_modules`` writes it, or that without wrappers."""
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


@dataclass(slots=True, eq=False)
class Slot:
    """One place where a module holds a parameter; a tied parameter has several."""

    name: str  # canonical name
    tensor: Tensor
    node: Node | None  # the module whose _parameters hold it; None for bare tensors
    key: str  # its key there

    @property
    def module(self) -> nn.Module | None:
        """The module that holds it; ``None`` for bare tensors."""
        return self.node.module if self.node else None

    def raw(self, *, wrappers: bool = True) -> str:
        """The name as ``named_parameters`` writes it, or that without wrappers.

        Of a bare tensor the canonical name, the only one there is.
        """
        if self.node is None:
            return self.name
        return _joined(self.node.raw(wrappers=wrappers), self.key)


def _joined(path: str, leaf: str) -> str:
    return f"{path}.{leaf}" if path else leaf


def nodes(model: nn.Module, *, bare: bool = True) -> Iterator[Node]:
    """Visit every place of the module tree, parents first, in ``named_modules`` order.

    Unlike in ``named_modules`` a shared module comes at each of its places.

    Args:
        model: The root.
        bare: Visit modules too that hold neither parameters nor modules.
    """
    seen: set[nn.Module] = set()
    stack = [Node(model, type(model), None, "", "")]
    while stack:
        node = stack.pop()
        module = node.module
        if module in seen and any(up.module is module for up in node.above() if up is not node):
            continue  # a module inside itself
        seen.add(module)
        yield node
        if not module._modules:
            continue
        unnamed = _unnamed_attrs(node.cls)
        path, parent = node.path, node.parent
        prefix = f"{path}." if path else ""
        # The children of PEFT's `modules_to_save` are named after adapters.
        saved = (
            node.attr == "modules_to_save"
            and parent is not None
            and node.attr in _unnamed_attrs(parent.cls)
        )
        children = [
            Node(
                child, type(child), node, attr, path if saved or attr in unnamed else prefix + attr
            )
            for attr, child in module._modules.items()
            if child is not None and (bare or child._parameters or child._modules)
        ]
        stack.extend(reversed(children))


def outermost(node: Node) -> Node:
    """The node that gives a module its name: that of its outermost wrapper, if it has any."""
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
def _holds_for_others(cls: type) -> bool:
    """Whether modules of this class hold parameters for the module above them."""
    return issubclass(cls, (*TRANSPARENT, ParametrizationList))


def owner_of(node: Node, key: str) -> tuple[Node, str]:
    """The module that a parameter belongs to, and the parameter's name there.

    Parameter lists and dicts, parametrizations, weight norm and pruning are passed over.
    """
    if key in _PLAIN_KEYS and not _holds_for_others(node.cls):
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
    """
    if not isinstance(source, nn.Module):
        return _bare_slots(source)
    hanging = []
    for node in nodes(source, bare=False):
        if not node.module._parameters:
            continue
        prefix = f"{node.path}." if node.path else ""
        for key, tensor in node.module._parameters.items():
            if tensor is None:
                continue
            owner = parametrized_owner(node, key)
            name = prefix + key if owner is None else _joined(owner.path, node.attr)
            hanging.append(Slot(name, tensor, node, key))
    # Names that two tensors share get longer: without wrappers only, then as torch writes them.
    for wrappers in (False, True):
        if len({slot.name for slot in hanging}) == len(hanging):
            break
        holders: dict[str, Tensor] = {}
        shared = {
            slot.name
            for slot in hanging
            if holders.setdefault(slot.name, slot.tensor) is not slot.tensor
        }
        for slot in hanging:
            if slot.name in shared:
                slot.name = slot.raw(wrappers=wrappers)
    return hanging


def _bare_slots(source: object) -> list[Slot]:
    """The slots of tensors without modules, with the prefix of wrappers that all names have cut."""
    expected = "a torch.nn.Module, a mapping of names to tensors, or (name, tensor) pairs"
    if isinstance(source, Mapping):
        pairs = list(source.items())
    elif is_listing(source) and not isinstance(source, Tensor | type):
        pairs = list(source)
    else:
        hint = ""
        if isinstance(source, Optimizer):
            hint = " An optimizer has no names: pass the model, or model.named_parameters()."
        if isinstance(source, type):
            hint = " Make one first: the class has no parameters."
        raise NnlrError(f"model must be {expected}, got {shown(source)}.{hint}")
    for pair in pairs:
        if not (
            isinstance(pair, tuple)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], Tensor)
        ):
            raise NnlrError(f"model must be {expected}; it holds {_held(pair)}")
    names = [name for name, _ in pairs]
    if any(not name or name.endswith(".") for name in names):
        raise NnlrError("A tensor of the model has no name: each needs one that is not empty.")
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise NnlrError(f"{listed(map(repr, twice))}: each name may be given once.", names=twice)
    start = 0
    while prefix := next(
        (p for p in PREFIXES if names and all(name.startswith(p, start) for name in names)), ""
    ):
        start += len(prefix)
    return [Slot(name[start:], tensor, None, name.rpartition(".")[2]) for name, tensor in pairs]


def _held(pair: object) -> str:
    """What stands where a name and a tensor should, and what was probably meant."""
    if isinstance(pair, Tensor):
        kind = type(pair).__name__
        return f"{kind}. Plain tensors have no names: pass model.named_parameters(), or the model."
    if not isinstance(pair, tuple) or len(pair) != 2:
        return f"{shown(pair)}."
    name, value = pair
    hint = ""
    if isinstance(value, nn.Module):
        hint = " To resolve several modules as one model: torch.nn.ModuleDict({...})."
    elif isinstance(value, Mapping):
        hint = " Of a whole checkpoint pass the part that holds the weights."
    return f"{shown(name)}: {shown(value)}.{hint}"


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
        modules = inner._modules
        cls: type = type(inner)
        attrs = wrapped_attrs(cls)
        inner = next((modules[attr] for attr in attrs if attr in modules), None)


def resolve_name(name: str, names: Collection[str]) -> str | None:
    """The canonical name among ``names`` that a raw or canonical name means, or ``None``.

    Of several that fit, the longest: the one for which the least is left out.

    Examples:
        >>> resolve_name("module._orig_mod.fc.weight", {"fc.weight"})
        'fc.weight'
        >>> resolve_name("fc.parametrizations.weight.original", {"fc.weight"})
        'fc.weight'
    """
    if name in names:
        return name
    shortened: set[tuple[str, ...]] = {()}
    before = ""
    for segment in name.split("."):
        if segment == "model":
            may_go = before == "base_model"
        else:
            may_go = (
                segment in {"parametrizations", "original", *WRAPPERS, *PARTS}
                or before == "modules_to_save"
            )
        longer = {(*path, segment) for path in shortened}
        shortened = longer | shortened if may_go else longer
        before = segment
    fits = [path for path in map(".".join, shortened) if path in names]
    return max(fits, key=lambda path: (path.count("."), path), default=None)
