"""The tree of a model's modules that hold weights, free of wrappers, for finding its blocks.

What a module is called plays no part here, only its class, its shapes and its place.
"""

from collections.abc import Iterator
from itertools import chain

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from nnlr._model.describe import ModelInfo
from nnlr._model.names import TRANSPARENT, Node, nodes
from nnlr._model.scopes import class_facts, module_class

LISTS = (nn.ModuleList, nn.Sequential)


class Bundle(nn.Module):
    """Stands for the i-th members of parallel lists, which make one layer together."""


class Unit:
    """A module with weights: what it holds, and what it looks like.

    Attributes:
        path: Canonical path.
        cls: Class as the user wrote it; of something wrapped, that of what is inside.
        module: The module itself.
        own: Positions of the parameters that it holds directly.
        kids: Its parts that hold weights, in order.
        attr: The attribute under which its parent holds it.
        looks: A number that units of equal class, shapes and parts share.
        numel: Elements of all its parameters.
    """

    __slots__ = ("attr", "cls", "kids", "looks", "module", "numel", "own", "path")

    def __init__(self, path: str, cls: type, module: nn.Module, attr: str = "") -> None:
        self.path = path
        self.cls = cls
        self.module = module
        self.attr = attr
        self.own: list[int] = []
        self.kids: list[Unit] = []
        self.looks = 0
        self.numel = 0

    def below(self) -> Iterator["Unit"]:
        """This unit and all in it, parents first."""
        yield self
        for kid in self.kids:
            yield from kid.below()

    def params(self) -> Iterator[int]:
        """Positions of all parameters in it."""
        return chain.from_iterable(unit.own for unit in self.below())


class Tree:
    """All units of a model, and what can be asked about them.

    Attributes:
        model: The model described.
        root: The unit of the whole model.
    """

    def __init__(self, model: ModelInfo, module: nn.Module) -> None:
        self.model = model
        self._looks: dict[tuple[object, ...], int] = {}
        self._made: list[Unit] = []
        self.root = self._grown(module)
        for unit in reversed(self._made):  # parts first
            unit.kids = [kid for kid in unit.kids if kid.numel]
            self._look(unit)

    def _grown(self, module: nn.Module) -> Unit:
        index = {id(places[0].tensor): at for at, places in enumerate(self.model.places)}
        units: dict[Node, Unit] = {}
        closed: set[Unit] = set()
        for node in nodes(module, bare=False):
            unit = units[node] = self._unit(node, units, closed)
            for tensor in node.module._parameters.values():
                if tensor is not None:
                    unit.own.append(index[id(tensor)])
        return self._made[0]

    def _unit(self, node: Node, units: dict[Node, Unit], closed: set[Unit]) -> Unit:
        """The unit that this place belongs to: its own, or that of what it is part of."""
        parent = node.parent
        if parent is None:
            around = None
        elif node.cls is ParametrizationList and parent.parent is not None:
            around = units[parent.parent]
            closed.add(around)
        else:
            around = units[parent]
            if node.path == parent.path:  # inside a wrapper
                around.cls, around.module = module_class(node.module), node.module
                if class_facts(node.cls).tunes:
                    closed.add(around)
                return around
        if around is not None and (
            (around in closed and node.path != around.path) or issubclass(node.cls, TRANSPARENT)
        ):
            return around
        unit = Unit(node.path, module_class(node.module), node.module)
        self._made.append(unit)
        if around is not None:
            unit.attr = node.attr
            around.kids.append(unit)
        if class_facts(node.cls).tunes:
            closed.add(unit)
        return unit

    def _look(self, unit: Unit) -> None:
        """Fill in what follows from the parts."""
        params = self.model.params
        unit.numel = sum(params[at].numel for at in unit.own)
        unit.numel += sum(kid.numel for kid in unit.kids)
        seen: tuple[object, ...] = (
            unit.cls,
            tuple(params[at].shape for at in unit.own),
            tuple(kid.looks for kid in unit.kids),
        )
        unit.looks = self._looks.setdefault(seen, len(self._looks))

    def bundled(self, members: list[Unit]) -> Unit:
        """One unit of several, each the i-th of a list."""
        unit = Unit(members[0].path, Bundle, members[0].module)
        unit.kids = members
        self._look(unit)
        return unit

    def listed(self, units: list[Unit], like: Unit) -> Unit:
        """One list of several units that stands where ``like`` stood."""
        made = Unit(like.path, nn.ModuleList, like.module)
        made.kids = units
        self._look(made)
        return made

    def is_norm(self, unit: Unit) -> bool:
        """Whether it is a normalisation layer, by its class."""
        params = [self.model.params[at] for at in unit.own]
        return not unit.kids and all(
            param.role == "norm" and param.role_basis == "type" for param in params
        )

    def is_conv(self, unit: Unit) -> bool:
        """Whether it is one convolution, or norms, or both."""
        leaves = [leaf for leaf in self.leaves(unit) if not self.is_norm(leaf)]
        return len(leaves) < 2 and all(issubclass(leaf.cls, _ConvNd) for leaf in leaves)

    def is_lookup(self, unit: Unit) -> bool:
        """Whether it looks something up: embeddings, and at most norms and vectors."""
        kinds = [
            None if self.is_vectors(leaf) else issubclass(leaf.cls, nn.Embedding)
            for leaf in self.leaves(unit)
        ]
        return True in kinds and False not in kinds

    def is_vectors(self, unit: Unit) -> bool:
        """Whether it holds nothing but vectors."""
        params = self.model.params
        return all(sum(size > 1 for size in params[at].shape) < 2 for at in unit.params())

    def is_composite(self, unit: Unit) -> bool:
        """Whether it can be a block: made of several layers, or a layer of one's own.

        torch's own leaf layers are none, except for recurrent and attention layers.
        """
        if unit.kids:
            return True
        if issubclass(unit.cls, (nn.RNNBase, nn.MultiheadAttention)):
            return True
        return not _is_torch_layer(unit.cls) and not self.is_vectors(unit)

    def takes(self, unit: Unit) -> set[int]:
        """Widths that one layer takes in."""
        return self._widths(unit)[0]

    def gives(self, unit: Unit) -> set[int]:
        """Widths that one layer gives out."""
        return self._widths(unit)[1]

    def _widths(self, unit: Unit) -> tuple[set[int], set[int]]:
        module = unit.module
        if issubclass(unit.cls, nn.Linear):
            return {_int(module, "in_features")}, {_int(module, "out_features")}
        if issubclass(unit.cls, _ConvNd):
            return {_int(module, "in_channels")}, {_int(module, "out_channels")}
        if issubclass(unit.cls, nn.Embedding):
            return set(), {_int(module, "embedding_dim")}
        sizes = {size for at in unit.own for size in self.model.params[at].shape if size > 1}
        return sizes, sizes

    def leaves(self, unit: Unit) -> Iterator[Unit]:
        """The layers in a unit: what holds parameters and no other part does."""
        return (part for part in unit.below() if part.own and not part.kids)


def _int(module: nn.Module, attr: str) -> int:
    return int(getattr(module, attr))


def _is_torch_layer(cls: type) -> bool:
    """Whether a class is, or derives from, one of torch's layers that hold weights."""
    return issubclass(
        cls,
        (
            nn.Linear,
            nn.Bilinear,
            nn.Embedding,
            nn.EmbeddingBag,
            nn.LayerNorm,
            nn.GroupNorm,
            nn.RMSNorm,
            nn.PReLU,
            _ConvNd,
            _NormBase,
        ),
    )


def is_list(unit: Unit) -> bool:
    """Whether its parts follow one another: a list, or a dict of equal parts."""
    if issubclass(unit.cls, LISTS):
        return True
    if not issubclass(unit.cls, nn.ModuleDict):
        return False
    return len(unit.kids) > 1 and len({kid.cls for kid in unit.kids}) == 1
