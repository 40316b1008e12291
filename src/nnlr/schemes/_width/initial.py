"""What a model's own initialisation does with width, and what muP needs it to do."""

import math
from collections.abc import Sequence
from typing import Final, Literal

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr.schemes._width.growth import Growth

Init = Literal["fan_in", "constant", "mup"]

INITS: Final[tuple[Init, ...]] = ("fan_in", "constant", "mup")

# torch draws their weights and biases from +-1 / sqrt(size of the weight's axis 1).
_LAYERS: Final = (nn.Linear, nn.Bilinear, _ConvNd)

_RECURRENT: Final = (nn.RNNBase, nn.RNNCellBase)


def init_mults(model: ModelInfo, grown: Sequence[Growth], init: Init) -> list[float]:
    """What the initial weights of each parameter are to be multiplied with.

    muP wants the standard deviation of hidden weights to fall with the root of their fan-in,
    and that of all else to stay what it is in the base.
    """
    if init == "mup":
        return [1.0] * len(grown)
    wanted = [g.width**-0.5 if g.is_hidden else 1.0 for g in grown]
    if init == "constant":
        return wanted
    weights = {
        name.rpartition(".")[0]: growth
        for param, growth in zip(model.params, grown, strict=True)
        if param.leaf == "weight" and param.ndim > 1
        for name in (f"{param.owner}.weight", *param.aliases)
    }
    own = [
        _default(param, growth, weights.get(param.owner))
        for param, growth in zip(model.params, grown, strict=True)
    ]
    return [want / has for want, has in zip(wanted, own, strict=True)]


def _default(param: ParamInfo, growth: Growth, weight: Growth | None) -> float:
    """The std that torch gives a parameter by default, relative to that in the base."""
    cls = param.owner_type or object
    if issubclass(cls, nn.MultiheadAttention) and param.ndim > 1:
        return _xavier(param, growth)
    grown = growth.width_in
    if issubclass(cls, _RECURRENT):  # +-1 / sqrt(hidden size), all of them
        grown = growth.mults[1 if param.leaf.startswith("weight_hr") else 0]
    elif issubclass(cls, _LAYERS) and param.role != "embedding":
        axes = growth if param.ndim > 1 else weight  # of a bias: the weight beside it
        grown = axes and axes.mults[1]
    return 1.0 if grown is None else math.sqrt(1 / grown)


def _xavier(param: ParamInfo, growth: Growth) -> float:
    """The same for Xavier's std, 1 / root of the sum of both fans."""
    before = [size / (mult or 1) for size, mult in zip(param.shape, growth.mults, strict=True)]
    return math.sqrt(_fans(before) / _fans(param.shape))


def _fans(shape: Sequence[float]) -> float:
    return (shape[0] + shape[1]) * math.prod(shape[2:])
