"""The modules around a module: its ancestors, the output layer or adapter that it is in."""

import re
from functools import cache
from typing import Final, NamedTuple

from torch import nn

from nnlr._model.names import Node, lineage, unwrap, wrapped_attrs

_HEAD: Final = re.compile(
    r"(.*_)?(heads?|classifier)|score|(pre_)?logits|fc_out|embed_out|qa_outputs"
    r"|output_(layer|projection)"
)


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
        heads: Places asked for that are, or are inside, what is named an output layer.
        tuners: Places asked for that are inside a PEFT layer -> that layer, and the
            attribute of that layer which leads there.
    """

    def __init__(self) -> None:
        self.heads: set[Node] = set()
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
        if parent in self.heads or (
            named_head(node.attr) and not any(map(_repeated, node.above()))
        ):
            self.heads.add(node)
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


def _repeated(node: Node) -> bool:
    """Whether a module is one of several equal blocks; these hold no output layer."""
    if node.parent is None or not node.attr.isdigit():
        return False
    siblings = node.parent.module._modules.values()
    inner = [type(unwrap(sibling)) for sibling in siblings if sibling is not None]
    return inner.count(type(unwrap(node.module))) > 1
