"""What the width schemes share: one growth, one initial factor and one fold per parameter."""

import math
from collections.abc import Sequence
from typing import ClassVar, Final, Literal

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._select.selectors import Selector
from nnlr.schemes._width.base import Base
from nnlr.schemes._width.findings import attention_findings, width_findings
from nnlr.schemes._width.folding import (
    Forward,
    HeadGrowth,
    forward_factors,
    mup_layers,
    query_factors,
)
from nnlr.schemes._width.growth import FanIn, Growth, growths

Init = Literal["fan_in", "constant", "mup"]

INITS: Final[tuple[Init, ...]] = ("fan_in", "constant", "mup")

# torch draws their weights and biases from +-1 / sqrt(size of the weight's axis 1).
_LAYERS: Final = (nn.Linear, nn.Bilinear, _ConvNd)

_RECURRENT: Final = (nn.RNNBase, nn.RNNCellBase)


class WidthScheme(Scheme):
    """A scheme that compares a model with a narrower base; its subclasses are dataclasses."""

    # Whether the model may have another number of blocks than the base.
    any_depth: ClassVar[bool]

    base: Base
    init: str
    forward: Forward
    readout_input: Selector | None
    head_growth: HeadGrowth
    fan_in: FanIn

    def grown(self, model: ModelInfo) -> list[Growth]:
        """How much each parameter has grown since the base."""
        return growths(model, self.base, self.fan_in, any_depth=self.any_depth)

    def inits_and_folds(
        self, model: ModelInfo, grown: Sequence[Growth]
    ) -> tuple[list[float], list[float]]:
        """For each parameter the factor on its initial weights and that of the forward pass.

        The latter is folded into the parameter.
        """
        inits = init_mults(model, grown, "mup" if mup_layers(model) else self.init)
        folds = forward_factors(model, grown, self.forward, self.readout_input)
        for index, factor in query_factors(model, self.head_growth).items():
            folds[index] *= factor
        return inits, folds

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What of base and model is probably not meant."""
        queries = set(query_factors(model, self.head_growth))
        return [
            *width_findings(model, self.base, self.grown(model), self.init, mup_layers(model)),
            *attention_findings(model, self.base, queries),
        ]


def init_mults(model: ModelInfo, grown: Sequence[Growth], init: str) -> list[float]:
    """What the initial weights of each parameter are to be multiplied with.

    muP wants the standard deviation of hidden weights to fall with the root of their fan-in,
    and that of all else to stay what it is in the base.
    """
    if init == "mup":
        return [1.0] * len(grown)
    wanted = [g.width**-0.5 if g.is_hidden else 1.0 for g in grown]
    if init in {"constant", "gpt2"}:
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
