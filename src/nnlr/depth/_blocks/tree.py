"""The tree of a model's modules that hold weights, without wrappers, and groups of blocks in it.

What a module is called plays no part here, only its class, its shapes and its place.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from typing import Final, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from nnlr._model.describe import ModelInfo
from nnlr._model.names import TRANSPARENT, Node, nodes
from nnlr._model.scopes import class_facts, module_class
from nnlr.depth._blocks.code import takes_by_code
from nnlr.depth._blocks.source import UnreadableError, Used

LISTS: Final = (nn.ModuleList, nn.Sequential)

# torch's own layers that hold weights; those that can be a block are not among them.
SINGLE_LAYERS: Final = (
    *(nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm),
    *(nn.RMSNorm, nn.PReLU, _ConvNd, _NormBase),
)

# Layers that take a width and give a width, be one of them 1.
_PROJECTIONS: Final = (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, _ConvNd)

# Attributes that hold what chooses among the members of a list.
_ROUTER: Final = re.compile(r"gate|gating|rout", re.IGNORECASE)

# A name that ends in a number.
_NUMBERED: Final = re.compile(r"(.*?)(\d+)")


class Bundle(nn.Module):
    """Class of a unit that joins the i-th members of parallel lists to one layer."""


@dataclass(eq=False)
class Unit:
    """A module that holds weights."""

    path: str  # canonical
    cls: type  # as the user wrote it; of something wrapped, that of what is inside
    module: nn.Module
    attr: str = ""  # the attribute under which its parent holds it
    parent: "Unit | None" = None
    direct: list[int] = field(default_factory=list)  # positions of parameters it holds directly
    kids: list["Unit"] = field(default_factory=list)  # its parts that hold weights, in order
    looks: int = 0  # a number that units of equal class, shapes and parts share
    numel: int = 0  # elements of all its parameters
    is_vectors: bool = False  # whether it holds nothing but vectors
    by_code: bool = False  # whether its parts are in the order in which its code uses them

    @property
    def is_list(self) -> bool:
        """Whether its parts follow one another: a list, or a dict of equal parts."""
        if issubclass(self.cls, LISTS):
            return True
        if not issubclass(self.cls, nn.ModuleDict):
            return False
        return len(self.kids) > 1 and len({kid.cls for kid in self.kids}) == 1

    def below(self) -> Iterator["Unit"]:
        """This unit and all in it, parents first."""
        yield self
        for kid in self.kids:
            yield from kid.below()

    @cached_property
    def leaves(self) -> Sequence["Unit"]:
        """The layers in it: units with parameters and without parts."""
        if self.kids:
            return [leaf for kid in self.kids for leaf in kid.leaves]
        return [self] if self.direct else []

    def params(self) -> Iterator[int]:
        """Positions of all parameters in it."""
        return chain.from_iterable(unit.direct for unit in self.below())


@dataclass(slots=True, eq=False)
class ModelStep:
    """A block, or something that stands before, between or after blocks."""

    params: list[int]  # positions of its parameters
    unit: Unit  # of single parameters, and of a part of a unit, the owner
    block: bool = False  # whether it is a block
    whole: bool = True  # whether it is the whole unit
    around: tuple["BlockGroup", ...] = ()  # groups around it, outermost first; set with towers

    @classmethod
    def of(cls, unit: Unit, *, block: bool = False) -> "ModelStep":
        """The step of a whole unit."""
        return cls(list(unit.params()), unit, block)


@dataclass(slots=True, eq=False)
class BlockGroup:
    """A unit that holds blocks, and what else it holds, in order."""

    unit: Unit
    items: list["ModelStep | BlockGroup"]
    listed: bool = False  # whether it is a list, whose members follow one another
    branches: bool = False  # whether it is a list of whole models side by side

    @classmethod
    def of(
        cls, unit: Unit, items: Iterable["ModelStep | BlockGroup"], *, listed: bool
    ) -> "BlockGroup":
        """The group of a unit: a step for each parameter it holds directly, then the items."""
        singles = [ModelStep([at], unit, whole=False) for at in unit.direct]
        return cls(unit, [*singles, *items], listed)

    def steps(self) -> Iterator[ModelStep]:
        """All steps in it, in order."""
        for item in self.items:
            if isinstance(item, BlockGroup):
                yield from item.steps()
            else:
                yield item

    def blocks(self) -> list[ModelStep]:
        """All blocks in it, in order."""
        return [step for step in self.steps() if step.block]


class Width(NamedTuple):
    """A width, and whether it counts the channels of a map."""

    size: int
    is_map: bool = False


def are_numbered(before: Unit, after: Unit) -> bool:
    """Whether the names of two parts say that one follows the other: ``fc1`` and ``fc2``."""
    first, second = (_NUMBERED.fullmatch(unit.attr) for unit in (before, after))
    return bool(first and second and first[1] == second[1] and int(first[2]) + 1 == int(second[2]))


class Tree:
    """All units of a model, and questions about them."""

    def __init__(self, model: ModelInfo, module: nn.Module, *, by_code: bool = False) -> None:
        self.model = model
        self.by_code = by_code  # whether parts stand in the order in which code uses them
        self.doubts: list[str] = []  # why an order is not certain
        self._looks: dict[tuple[object, ...], int] = {}
        self._orders: dict[tuple[object, ...], list[int] | None] = {}
        positions = {id(places[0].tensor): at for at, places in enumerate(model.places)}
        made: list[Unit] = []
        units: dict[Node, Unit] = {}
        closed: set[Unit] = set()
        for node in nodes(module, bare=False):
            unit = units[node] = _unit_of(node, units, closed, made)
            for tensor in node.module._parameters.values():
                if tensor is not None:
                    unit.direct.append(positions[id(tensor)])
        self.root = made[0]
        for unit in reversed(made):  # parts first
            unit.kids = self._in_order([kid for kid in unit.kids if kid.numel], unit)
            self._measure(unit)

    def _in_order(self, kids: list[Unit], unit: Unit) -> list[Unit]:
        """The parts of a unit in the order in which its code uses them, if that is certain."""
        if not self.by_code or len(kids) < 2 or unit.is_list:
            return kids
        key = (unit.cls, tuple((kid.attr, kid.looks) for kid in kids))
        if key not in self._orders:
            self._orders[key] = _code_order([kid.module for kid in kids], unit.module)
        unit.by_code = self._orders[key] is not None
        return [kids[at] for at in self._orders[key] or range(len(kids))]

    def _measure(self, unit: Unit) -> None:
        """Set the size and the looks of a unit whose parts have theirs."""
        params = [self.model.params[at] for at in unit.direct]
        unit.numel = sum(param.numel for param in params) + sum(kid.numel for kid in unit.kids)
        traits: tuple[object, ...] = (
            unit.cls,
            tuple(param.shape for param in params),
            tuple(kid.looks for kid in unit.kids),
        )
        unit.looks = self._looks.setdefault(traits, len(self._looks))
        unit.is_vectors = all(kid.is_vectors for kid in unit.kids) and not (
            any(sum(size > 1 for size in param.shape) > 1 for param in params)
            or (params and issubclass(unit.cls, _PROJECTIONS))
        )

    def joined(self, kids: list[Unit], cls: type, like: Unit) -> Unit:
        """One unit of several, of this class, that stands where ``like`` stands."""
        unit = Unit(like.path, cls, like.module, kids=kids)
        self._measure(unit)
        return unit

    def is_norm(self, unit: Unit) -> bool:
        """Whether it is a normalisation layer, by its class."""
        params = [self.model.params[at] for at in unit.direct]
        if unit.direct and issubclass(unit.cls, nn.LayerNorm):
            return True
        return not unit.kids and all(
            param.role == "norm" and param.role_basis == "type" for param in params
        )

    def is_conv(self, unit: Unit) -> bool:
        """Whether it is one convolution, or norms, or both."""
        leaves = [leaf for leaf in unit.leaves if not self.is_norm(leaf)]
        return len(leaves) < 2 and all(issubclass(leaf.cls, _ConvNd) for leaf in leaves)

    def is_lookup(self, unit: Unit) -> bool:
        """Whether it is embeddings, and at most norms and vectors beside them."""
        layers = [leaf for leaf in unit.leaves if not leaf.is_vectors]
        lookups = (nn.Embedding, nn.EmbeddingBag)
        return bool(layers) and all(issubclass(leaf.cls, lookups) for leaf in layers)

    def is_composite(self, unit: Unit) -> bool:
        """Whether it can be a block: made of several layers, or a layer of the user's own.

        Of torch's own layers only recurrent and attention layers can.
        """
        if unit.kids or issubclass(unit.cls, (nn.RNNBase, nn.MultiheadAttention)):
            return True
        return not issubclass(unit.cls, SINGLE_LAYERS) and not unit.is_vectors

    def stands_apart(self, unit: Unit) -> bool:
        """Whether members of a list or dict stand side by side, whatever widths they take.

        So do experts, which a router beside them chooses from, and what a dict holds by names
        that do not count.
        """
        if issubclass(unit.cls, nn.ModuleDict):
            return not all(are_numbered(a, b) for a, b in pairwise(unit.kids))
        if unit.parent is None or not unit.is_list:
            return False
        routers = [
            self.model.params[at]
            for kid in unit.parent.kids
            if kid is not unit
            for at in kid.params()
            if _ROUTER.search(kid.attr) or self.model.params[at].role == "router"
        ]
        beside = (self.model.params[at] for at in unit.parent.direct)
        routers += [param for param in beside if param.role == "router"]
        return any(len(unit.kids) in param.shape for param in routers)

    @cached_property
    def all_outputs(self) -> set[int]:
        """The widths that any layer of the model gives."""
        return self.output_widths(self.root)

    @cached_property
    def all_maps(self) -> frozenset[Width]:
        """The widths of all maps in the model: what may be put beside another one."""
        convs = [leaf for leaf in self.root.leaves if issubclass(leaf.cls, _ConvNd)]
        sizes = set[int]().union(*map(self.output_widths, convs))
        images = set[int]().union(*map(self.input_widths, convs)) & {1, 2, 3, 4}
        return frozenset(Width(size, is_map=True) for size in sizes | images)

    def input_widths(self, unit: Unit) -> set[int]:
        """The widths that the layers of a unit take in."""
        return {width for leaf in unit.leaves for width in self._widths(leaf)[0]}

    def output_widths(self, unit: Unit) -> set[int]:
        """The widths that the layers of a unit give out."""
        return {width for leaf in unit.leaves for width in self._widths(leaf)[1]}

    def _widths(self, leaf: Unit) -> tuple[set[int], set[int]]:
        """The input widths and the output widths of one layer."""
        for cls, inputs, outputs in (
            (nn.Linear, "in_features", "out_features"),
            (_ConvNd, "in_channels", "out_channels"),
            ((nn.Embedding, nn.EmbeddingBag), "", "embedding_dim"),
            (nn.MultiheadAttention, "embed_dim", "embed_dim"),
        ):
            if issubclass(leaf.cls, cls):
                widths_in = {int(getattr(leaf.module, inputs))} if inputs else set()
                return widths_in, {int(getattr(leaf.module, outputs))}
        if isinstance(leaf.module, nn.RNNBase):
            width = leaf.module.proj_size or leaf.module.hidden_size
            return {leaf.module.input_size}, {width * (1 + leaf.module.bidirectional)}
        sizes = {size for at in leaf.direct for size in self.model.params[at].shape if size > 1}
        return sizes, sizes


def _unit_of(node: Node, units: dict[Node, Unit], closed: set[Unit], made: list[Unit]) -> Unit:
    """The unit of a place: that of the module which it is a part of, or a new one in ``made``.

    The parts of units in ``closed``, parametrized modules and PEFT layers, get no units.
    """
    parent = node.parent
    around = None if parent is None else units[parent]
    if parent and parent.parent and node.cls is ParametrizationList:
        around = units[parent.parent]
        closed.add(around)
    elif parent and around and node.path == parent.path:  # inside a wrapper
        around.cls, around.module = module_class(node.module), node.module
        if class_facts(node.cls).tunes:
            closed.add(around)
        return around
    if around and (
        (around in closed and node.path != around.path) or issubclass(node.cls, TRANSPARENT)
    ):
        return around
    unit = Unit(node.path, module_class(node.module), node.module, node.attr)
    made.append(unit)
    if around:
        unit.parent = around
        around.kids.append(unit)
    if class_facts(node.cls).tunes:
        closed.add(unit)
    return unit


def _code_order(kids: list[nn.Module], module: nn.Module) -> list[int] | None:
    """The positions of the parts of a module in the order in which its code uses them.

    What it uses in no certain order, or not at all, stays where it is. ``None`` if it cannot
    be read.
    """
    order = list(range(len(kids)))
    try:
        takes = takes_by_code(module)
    except UnreadableError:
        return None
    owner = {id(part): at for at, kid in enumerate(kids) for part in kid.modules()}
    before: list[set[int]] = [set() for _ in kids]
    for used, sources in takes.items():
        at = owner.get(id(used.module))
        if at is not None:
            before[at] |= {owner[id(each.module)] for each in sources if id(each.module) in owner}
            before[at] -= {at}
    lists = [used.module for used in takes if used.member and Used(used.module) not in takes]
    used_first = list(dict.fromkeys(owner.get(id(module)) for module in lists))

    def is_ready(at: int) -> bool:
        """Whether no part that is left comes before it; of two in turn, the one used first."""
        return not any(
            at not in before[each]
            or ({at, each} <= set(used_first) and used_first.index(each) < used_first.index(at))
            for each in before[at].intersection(order)
        )

    in_order: list[int] = []
    while order:
        in_order.append(next(filter(is_ready, order), order[0]))
        order.remove(in_order[-1])
    return in_order
