"""Modules made up from names: for tensors without modules, and modules whose classes are lost.

A state file, an exported program and a traced module know only what their parameters are
called. Names with numbers make lists, shapes tell layers, and everything else gets a class
that it shares with what has parts of the same names.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Final

from torch import Tensor, nn

from nnlr._model.describe import ModelInfo
from nnlr._model.names import nodes
from nnlr.depth._blocks.tree import SINGLE_LAYERS

_ENDS_IN_NUMBER: Final = re.compile(r"(.*?)(\d+)")
_CONVS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LOST: Final = ("torch.export", "torch.fx", "torch.jit")


def has_lost_its_classes(module: nn.Module) -> bool:
    """Whether it was exported or traced: a list in it may be a module with numbers as names."""
    return any(
        node.cls.__module__.startswith(_LOST)
        or (node.cls is nn.Module and all(map(str.isdecimal, node.module._modules)))
        for node in nodes(module, bare=False)
        if node.module._modules
    )


def module_from_names(model: ModelInfo) -> nn.Module:
    """A module with parts and parameters of these names.

    Layers of torch are used as they are. Of all else, only the names count.

    Examples:
        >>> import torch
        >>> from nnlr._model.describe import describe
        >>> names = {f"blocks.{at}.fc.weight": torch.zeros(2, 4) for at in range(2)}
        >>> module_from_names(describe(names)).get_submodule("blocks.1.fc").in_features
        4
    """
    root = _Names()
    for param, places in zip(model.params, model.places, strict=True):
        for slot in places:
            *path, leaf = slot.name.split(".")
            names = root
            for segment in path:
                names = names.kids.setdefault(segment, _Names())
            names.tensors[leaf] = slot.tensor
            names.is_lookup = param.role in {"embedding", "position", "token"}
            if isinstance(slot.module, SINGLE_LAYERS):
                names.layer = slot.module
    return root.module()


class _Names:
    """What stands below one segment of the names."""

    def __init__(self) -> None:
        self.kids: dict[str, _Names] = {}
        self.tensors: dict[str, Tensor] = {}
        self.layer: nn.Module | None = None  # the layer of torch that it is
        self.is_lookup = False

    def module(self) -> nn.Module:
        """The module with these parts."""
        if self.layer is not None:
            return self.layer
        kids = {key: self.kids[key].module() for key in _in_order(self.kids)}
        made = self._list_or_layer()
        if made is None:  # not `or`: a list that is empty so far is false
            looks = tuple((key, type(kid)) for key, kid in kids.items())
            made = _class_of(looks, tuple(self.tensors))()
        made._modules = dict(kids)
        made._parameters = dict(self.tensors)  # type: ignore[arg-type]  # tensors of a file, too
        return made

    def _list_or_layer(self) -> nn.Module | None:
        """A list if all names are numbers, or the layer that the shapes tell."""
        if self.kids:
            is_list = not self.tensors and all(map(str.isdecimal, self.kids))
            return nn.ModuleList() if is_list else None
        shapes = {leaf: tuple(tensor.shape) for leaf, tensor in self.tensors.items()}
        if "weight_ih_l0" in shapes:
            (_, width), (_, hidden) = shapes["weight_ih_l0"], shapes["weight_hh_l0"]
            layers = sum(re.fullmatch(r"weight_ih_l\d+", leaf) is not None for leaf in shapes)
            both = any(leaf.endswith("_reverse") for leaf in shapes)
            return nn.RNN(width, hidden, layers, bidirectional=both, device="meta")
        shape = shapes.get("weight", ())
        if len(shape) == 2:
            rows, columns = shape
            if set(shapes) == {"weight"} and self.is_lookup:
                return nn.Embedding(rows, columns, device="meta")
            return nn.Linear(columns, rows, bias=False, device="meta")
        if 3 <= len(shape) <= 5:
            inputs = shape[0] if shape[1] == 1 else shape[1]  # depthwise, as a rule
            return _CONVS[len(shape) - 3](inputs, shape[0], 1, device="meta")
        return nn.LayerNorm(shape, device="meta") if len(shape) == 1 else None


def _in_order(names: Iterable[str]) -> list[str]:
    """Names in their order, but those that differ by a number in the order of the numbers.

    Examples:
        >>> _in_order(["layer_10", "out", "layer_2"])
        ['layer_2', 'out', 'layer_10']
    """
    names = list(names)
    numbered: dict[str, list[str]] = {}
    for name in names:
        if match := _ENDS_IN_NUMBER.fullmatch(name):
            numbered.setdefault(match[1], []).append(name)
    rows = {
        stem: iter(sorted(row, key=lambda name: int(name.removeprefix(stem))))
        for stem, row in numbered.items()
    }
    stems = [match and match[1] for match in map(_ENDS_IN_NUMBER.fullmatch, names)]
    return [
        name if stem is None else next(rows[stem]) for name, stem in zip(names, stems, strict=True)
    ]


@cache
def _class_of(kids: tuple[tuple[str, type], ...], leaves: tuple[str, ...]) -> type[nn.Module]:
    """A class for what has parts and parameters of these names."""
    return type("Part", (nn.Module,), {})
