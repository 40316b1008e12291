"""Canonical parameter names: what a parameter is called whatever the model is wrapped in.

One table says which attribute of which wrapper is left out of a name. A segment goes only
where its owner *is* that wrapper, so a user's own ``self.module`` keeps its name. Wrappers
are recognised by their qualified class name, so that none of their packages is imported.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Final

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from nnlr.errors import NnlrError

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

# The same for parts of a model; these segments stay where leaving them out would give two
# parameters one name (weight-norm's two originals, two saved copies of one module).
PARTS: Final[dict[str, tuple[str, ...]]] = {
    "base_layer": ("peft.tuners.tuners_utils.BaseTunerLayer",),
    "modules_to_save": ("peft.utils.other.ModulesToSaveWrapper",),
}

# Leading segments dropped from bare (name, tensor) pairs, where no owner can be asked.
PREFIXES: Final = (*(f"{name}." for name in WRAPPERS if "base" not in name), "base_model.model.")

DDP: Final = "torch.nn.parallel.distributed.DistributedDataParallel"


@cache
def lineage(cls: type) -> frozenset[str]:
    """Qualified names of a class and all its bases."""
    return frozenset(f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)


@cache
def _dropped(cls: type) -> frozenset[str]:
    known = lineage(cls)
    return frozenset(attr for attr, owners in WRAPPERS.items() if not known.isdisjoint(owners))


@cache
def _folded(cls: type) -> frozenset[str]:
    known = lineage(cls)
    return frozenset(attr for attr, owners in PARTS.items() if not known.isdisjoint(owners))


class Node:
    """A module at one place in the tree; a shared module has a node for each place.

    Attributes:
        module: The module.
        parent: The node above, or ``None`` for the root.
        attr: The attribute under which the parent holds it.
        path: Canonical path, ``""`` for the root.
        full: The path with the parts of :data:`PARTS` still in it.
    """

    __slots__ = ("attr", "full", "module", "parent", "path")

    def __init__(
        self, module: nn.Module, parent: "Node | None", attr: str, path: str, full: str
    ) -> None:
        self.module = module
        self.parent = parent
        self.attr = attr
        self.path = path
        self.full = full

    def raw(self) -> str:
        """The path as ``named_modules`` spells it."""
        above = self.parent.raw() if self.parent else ""
        return f"{above}.{self.attr}" if above else self.attr

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

    def raw(self) -> str:
        """The name as ``named_parameters`` spells it."""
        above = self.node.raw() if self.node else ""
        return f"{above}.{self.key}" if above else self.key


def nodes(model: nn.Module) -> Iterator[Node]:
    """Visit every place of the module tree, parents first, in ``named_modules`` order.

    Unlike ``named_modules`` a shared module is met at each of its places.
    """
    seen: set[nn.Module] = set()
    stack = [Node(model, None, "", "", "")]
    while stack:
        node = stack.pop()
        module = node.module
        if module in seen and any(up.module is module for up in node.above() if up is not node):
            continue  # a module inside itself
        seen.add(module)
        yield node
        children = module._modules
        if children:
            stack.extend(
                _child(node, attr, child)
                for attr, child in reversed(list(children.items()))
                if child is not None
            )


def _child(node: Node, attr: str, child: nn.Module) -> Node:
    cls = type(node.module)
    if attr in _dropped(cls):
        return Node(child, node, attr, node.path, node.full)
    full = f"{node.full}.{attr}" if node.full else attr
    if attr in _folded(cls) or _holds_saved_copies(node):
        return Node(child, node, attr, node.path, full)
    return Node(child, node, attr, f"{node.path}.{attr}" if node.path else attr, full)


def _holds_saved_copies(node: Node) -> bool:
    """Whether the children of this node are PEFT's ``modules_to_save.<adapter>``."""
    parent = node.parent
    return (
        node.attr == "modules_to_save"
        and parent is not None
        and "modules_to_save" in _folded(type(parent.module))
    )


def parametrized_owner(node: Node, key: str) -> Node | None:
    """The module whose tensor is computed from this one by a parametrization, if any."""
    if (
        key.startswith("original")
        and isinstance(node.module, ParametrizationList)
        and node.parent is not None
    ):
        return node.parent.parent  # owner > ModuleDict "parametrizations" > this list
    return None


def slots(source: "Source") -> list[Slot]:
    """Every place of every parameter, in the order of ``parameters()``.

    Tied tensors appear once for each name, and the first name is the one that
    ``named_parameters()`` gives.

    Args:
        source: A module, a mapping of names to tensors, or (name, tensor) pairs.

    Raises:
        NnlrError: If the source is something else, or two bare tensors share a name.
    """
    return _module_slots(source) if isinstance(source, nn.Module) else _bare_slots(source)


def _module_slots(model: nn.Module) -> list[Slot]:
    found = []
    holders: dict[str, Tensor] = {}
    collided = set()
    for node in nodes(model):
        parameters = node.module._parameters
        if not parameters:
            continue
        prefix = f"{node.path}." if node.path else ""
        for key, tensor in parameters.items():
            if tensor is None:
                continue
            owner = parametrized_owner(node, key)
            name = prefix + key if owner is None else _under(owner, node.attr)
            if holders.setdefault(name, tensor) is not tensor:
                collided.add(name)
            found.append(Slot(name, tensor, node, key))
    return _told_apart(found, collided) if collided else found


def _under(node: Node, key: str) -> str:
    return f"{node.path}.{key}" if node.path else key


def _told_apart(found: list[Slot], collided: set[str]) -> list[Slot]:
    """Give slots whose canonical names collide the parts of their names back."""
    for slot in found:
        if slot.name in collided and slot.node is not None:
            slot.name = f"{slot.node.full}.{slot.key}" if slot.node.full else slot.key
    holders: dict[str, Tensor] = {}
    again = {
        slot.name for slot in found if holders.setdefault(slot.name, slot.tensor) is not slot.tensor
    }
    for slot in found:
        if slot.name in again:
            slot.name = slot.raw()
    return found


def _bare_slots(source: "Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]") -> list[Slot]:
    pairs = _pairs(source)
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise NnlrError(f"The same name is given twice: {twice[0]!r}.", names=twice)
    prefix = ""
    while shared := next(
        (p for p in PREFIXES if names and all(n.startswith(prefix + p) for n in names)), None
    ):
        prefix += shared
    return [
        Slot(name.removeprefix(prefix), tensor, None, name.rpartition(".")[2])
        for name, tensor in pairs
    ]


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


Source = nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP, compile, PEFT and other wrappers around the whole of it."""
    while attrs := _dropped(type(model)) & model._modules.keys():
        inner = model._modules[next(iter(attrs))]
        if inner is None:
            break
        model = inner
    return model


def inside_ddp(model: nn.Module) -> bool:
    """Whether the model, or a wrapper around the whole of it, is a DDP instance."""
    while DDP not in lineage(type(model)):
        attrs = _dropped(type(model)) & model._modules.keys()
        inner = model._modules[next(iter(attrs))] if attrs else None
        if inner is None:
            return False
        model = inner
    return True


def resolve_name(name: str, known: Collection[str]) -> str | None:
    """The known canonical name that a raw or canonical spelling means, or ``None``.

    Examples:
        >>> resolve_name("module._orig_mod.fc.weight", {"fc.weight"})
        'fc.weight'
    """
    if name in known:
        return name
    plain = _without_wrappers(name.split("."))
    for segments in (plain, _without_parts(plain)):
        if (short := ".".join(segments)) in known:
            return short
    return None


def _without_wrappers(segments: list[str]) -> list[str]:
    text = ".".join(segments).removeprefix("base_model.model.")
    always = WRAPPERS.keys() - {"base_model", "model"}
    return [segment for segment in text.split(".") if segment not in always]


def _without_parts(segments: list[str]) -> list[str]:
    kept: list[str] = []
    rest = iter(segments)
    for segment in rest:
        if segment == "modules_to_save":
            next(rest, None)  # the adapter's name
        elif segment == "parametrizations":
            kept.append(next(rest, ""))
            next(rest, None)  # "original"
        elif segment != "base_layer":
            kept.append(segment)
    return kept
