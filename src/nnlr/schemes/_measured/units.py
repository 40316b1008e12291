"""Units: the parameters that move together, as tensors, modules or layers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnlr._declare.moves import unit_of
from nnlr._model.describe import ModelInfo
from nnlr._model.names import owner_of
from nnlr.depth import as_indexer
from nnlr.depth._layer import Layer, Layers, layers_of
from nnlr.errors import NnlrError

By = Literal["tensor", "module", "layer"]

BY: Final[tuple[By, ...]] = ("tensor", "module", "layer")


@dataclass(frozen=True, slots=True)
class Unit:
    """Parameters that move together.

    Attributes:
        name: The tensor, module or layer.
        members: Positions of its parameters in ``model.params``.
        layer: The layer that it is, if it is one.
    """

    name: str
    members: tuple[int, ...]
    layer: Layer | None


def units_of(model: ModelInfo, by: By, among: Iterable[int]) -> list[Unit]:
    """The units of some parameters, in the model's order.

    ``"module"``: what one module owns, its bias with its weight. A batch norm belongs to the
    layer that it stands beside: the convolution or linear layer just before it, if that gives as
    many channels; else, and where a batch norm is the first, the k-th one in a module to the k-th
    layer there, if that gives or takes as many. ``"layer"``: what :func:`nnlr.depth.auto` puts
    into one layer; outside every tower, modules.
    """
    names = [param.name for param in model.params]
    if by != "tensor":
        follows = _batch_norms(model)
        names = [follows.get(param.owner, param.owner) or model.label for param in model.params]
    layers: Layers = [None] * len(names)
    if by == "layer":
        try:
            layers = layers_of(as_indexer("auto"), model)
        except NnlrError as error:
            cause = str(error).partition("\n")[0]
            raise NnlrError(f"by='layer': {cause} Pass by='module' or by='tensor'.") from error
        names = [unit_of(layer) or name for name, layer in zip(names, layers, strict=True)]
    members: dict[str, list[int]] = {}
    for index in sorted(among):
        members.setdefault(names[index], []).append(index)
    return [Unit(name, tuple(those), layers[those[0]]) for name, those in members.items()]


def _batch_norms(model: ModelInfo) -> dict[str, str]:
    """The paths of batch norms, and of the layers that they belong to."""
    modules: dict[str, dict[str, nn.Module]] = {}
    for place, *_ in model.places:
        if place.node is not None:
            owner, _leaf = owner_of(place.node, place.key)
            siblings = modules.setdefault(owner.path.rpartition(".")[0], {})
            siblings.setdefault(owner.path, owner.module)
    follows: dict[str, str] = {}
    for siblings in modules.values():
        norms = [path for path, module in siblings.items() if isinstance(module, _BatchNorm)]
        layers = [path for path, module in siblings.items() if _channels(module)]
        follows |= {
            norm: layer
            for norm, layer in zip(norms, layers, strict=False)
            if siblings[norm].num_features in _channels(siblings[layer])
        }
        follows |= _after(siblings)
    return follows


def _after(siblings: Mapping[str, nn.Module]) -> dict[str, str]:
    """Batch norms, and the layers before them; none if a batch norm is the first of all.

    Several batch norms in a row belong to as many layers before them, in order.
    """
    norms = {path for path, module in siblings.items() if isinstance(module, _BatchNorm)}
    runs = [[*run][::-1] for _, run in groupby(siblings, key=norms.__contains__)]
    follows: dict[str, str] = {}
    for before, after in (
        zip(runs[::2], runs[1::2], strict=False) if runs[0][0] not in norms else ()
    ):
        layers = iter(before)
        for norm in after:
            wide = siblings[norm].num_features
            layer = next((each for each in layers if wide in _channels(siblings[each])[:1]), None)
            follows |= {norm: layer} if layer else {}
    return follows


def _channels(module: nn.Module) -> tuple[int, ...]:
    """How many channels a convolution or linear layer gives and takes; of others nothing."""
    for names in (("out_channels", "in_channels"), ("out_features", "in_features")):
        if all(isinstance(getattr(module, name, None), int) for name in names):
            return tuple(getattr(module, name) for name in names)
    return ()
