"""The modules around a module: its ancestors, the output layer or adapter that it is in."""

import re
from functools import cache
from typing import Final, NamedTuple

from torch import nn

from nnlr._model.names import Node, lineage, outermost, unwrap, wrapped_attrs

_HEAD: Final = re.compile(
    r"(.*_)?(heads?(_dist\w*)?|classifier)|score|(.*_)?logits(_(dense|layer|proj\w*))?|fc_out"
    r"|embed_out|qa_outputs|output_(layer|projection)|unembed\w*|ctc_\w+|(.*_)?pred|predict_\w+|(feat|prob)_out"
    r"|(class|box|bbox)(es)?_(embed|predictor)"
)

# Methods by which a model says what its output layer is.
OUTPUT_HOOKS: Final = ("get_output_embeddings", "get_classifier")

# Layers of a network: what holds one is no output layer, whatever it is called.
_OF_A_NETWORK: Final = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)


def module_class(module: nn.Module) -> type:
    """The class a user wrote, under what scripting, sharding or parametrizing made of it."""
    cls: type = type(module)
    written = class_facts(cls).written
    if written is not None:
        return written
    scripted: type = getattr(nn, str(module.original_name), cls)
    return scripted


class ClassFacts(NamedTuple):
    """What is found out once about a module's class."""

    written: type | None  # what the user wrote; None if scripted: only the instance knows
    wraps: bool  # whether it is a wrapper of nnlr._model.names.WRAPPERS
    tunes: bool  # whether it is a PEFT layer


@cache
def class_facts(cls: type) -> ClassFacts:
    """The facts about a class."""
    bases = lineage(cls)
    scripted = "torch.jit._script.ScriptModule" in bases  # traced ones too
    return ClassFacts(
        written=None if scripted else _written(cls),
        wraps=bool(wrapped_attrs(cls)),
        tunes="peft.tuners.tuners_utils.BaseTunerLayer" in bases,
    )


def _written(cls: type) -> type:
    """The class C under FSDP2's (FSDPModule, C) and parametrize's (C,), made at run time."""
    bases = [base for base in cls.__bases__ if base.__name__ != "FSDPModule"]
    sharded = len(bases) < len(cls.__bases__) and cls.__name__.startswith("FSDP")
    parametrized = cls.__module__ == "torch.nn.utils.parametrize" and cls.__name__.startswith(
        "Parametrized"
    )
    return _written(bases[0]) if bases and (sharded or parametrized) else cls


class Scope(NamedTuple):
    """A module in the tree, and the modules around it; wrappers are left out.

    Attributes:
        path: Canonical path, ``""`` for the root.
        cls: The class as the user wrote it; ``None`` where there are only tensors.
        above: The module around it.
    """

    path: str
    cls: type | None = None
    above: "Scope | None" = None


class Surroundings:
    """The modules around each module of a model, found once for each place.

    Attributes:
        heads: Places asked for that are, or are inside, what is named an output layer. Of
            a whole network with such a name only those that its last layer is in.
        tuners: Places asked for that are inside a PEFT layer -> that layer, and the
            attribute of that layer which leads there.
    """

    def __init__(self) -> None:
        self.heads: set[Node] = set()
        self._last_layers: dict[Node, nn.Module] = {}  # of places in a network named a head
        self.tuners: dict[Node, tuple[nn.Module, str]] = {}
        self._scopes: dict[Node, Scope] = {}

    def scope(self, node: Node) -> Scope:
        """The scope of the module at this place."""
        scope = self._scopes.get(node)
        if scope is not None:
            return scope
        cls, parent, above = class_facts(node.cls), node.parent, None
        if parent is not None:
            above = self.scope(parent)
            if class_facts(parent.cls).wraps:
                above = above.above
        scope = Scope(node.path, cls.written or module_class(node.module), above)
        self._scopes[node] = scope
        if named_head(node.attr) and not any(map(_repeated, node.above())):
            self.heads.add(node)
            if _is_network(node.module):
                self._last_layers[node] = _last_layer(node.module)
        elif parent in self.heads:
            last = self._last_layers.get(parent)
            if last is None:
                self.heads.add(node)
            elif any(module is last for module in node.module.modules()):
                self.heads.add(node)
                self._last_layers[node] = last
        if cls.tunes:
            self.tuners[node] = (node.module, "")
        elif self.tuners and parent in self.tuners:
            tuner, attr = self.tuners[parent]
            self.tuners[node] = (tuner, attr or node.attr)
        return scope


@cache
def named_head(attr: str) -> bool:
    """Whether an attribute has a name that output layers have."""
    return _HEAD.fullmatch(attr.lower()) is not None


def _is_network(module: nn.Module) -> bool:
    """Whether a module attends, recurs or repeats blocks: more than layers that give outputs.

    A list of heads is one for each of several outputs.
    """
    for part in module.modules():
        if isinstance(part, _OF_A_NETWORK) or "attention" in type(part).__name__.lower():
            return True
        blocks = [type(child) for child in part.children() if any(True for _ in child.children())]
        listed = part is module and isinstance(part, nn.ModuleList)
        if len(blocks) > len(set(blocks)) and not listed:
            return True
    return False


def _last_layer(module: nn.Module) -> nn.Module:
    """The last module inside that holds weights of its own; the module itself if none does."""
    last = module
    for part in module.modules():
        if any(weight.ndim > 1 for weight in part.parameters(recurse=False)):
            last = part
    return last


def _repeated(node: Node) -> bool:
    """Whether a module is one of several equal blocks; these hold no output layer."""
    if node.parent is None or not node.attr.isdigit():
        return False
    siblings = node.parent.module._modules.values()
    inner = [type(unwrap(sibling)) for sibling in siblings if sibling is not None]
    return inner.count(type(unwrap(node.module))) > 1


def ends_model(layer: Node) -> bool:
    """Whether the last layer of a model gives what the model gives, by where it stands.

    It does at the end of plain Sequentials, as a child of the model, or both; not beside another
    layer with as many outputs, as the projections of two towers stand, and not in a model with a
    hook for its output layer, which says so itself. torchvision's models end with an ``fc``, some
    of them deeper.
    """
    place = outermost(layer)
    plain = {*list(layer.module._parameters.keys())} <= {"weight", "bias"}
    if not plain or place.parent is None or all(map(_holds_one, place.parent.above())):
        return False
    if place.attr == "fc":
        return True
    if any(hasattr(node.module, hook) for node in place.parent.above() for hook in OUTPUT_HOOKS):
        return False
    while place.parent is not None and _forward(place.parent) is nn.Sequential.forward:
        place = outermost(place.parent)
    if place.parent is None:
        return True
    model, *around = place.parent.above()
    if module_class(model.module).__module__.startswith("torch.nn.") or not all(
        map(_holds_one, around)
    ):
        return False  # a part of one of torch's own modules
    before = [_outputs(child) for child in _filled(model)][-2:-1]
    return place is not outermost(layer) or before != [_outputs(layer.module)]


def _outputs(layer: nn.Module) -> int | None:
    """How many outputs a layer has that says so."""
    inner = unwrap(layer)
    outputs: int | None = getattr(inner, "out_features", getattr(inner, "out_channels", None))
    return outputs


def _filled(node: Node) -> list[nn.Module]:
    """The children of a module that have parameters."""
    children = [child for child in node.module._modules.values() if child is not None]
    return [child for child in children if any(True for _ in child.parameters())]


def _forward(node: Node) -> object:
    """The forward of a module's class, as the user wrote it."""
    return getattr(module_class(node.module), "forward", None)


def _holds_one(node: Node) -> bool:
    """Whether a module holds one other that has parameters, and none of its own."""
    own = [param for param in node.module._parameters.values() if param is not None]
    return len(_filled(node)) == 1 and not own
