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
        """For each parameter the factor on its initial weights, and that to fold into it."""
        inits = init_mults(model, grown, "mup" if mup_layers(model) else self.init)
        folds = forward_factors(model, grown, self.forward, self.readout_input)
        for index, factor in query_factors(model, self.head_growth).items():
            folds[index] *= factor
        return inits, folds

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What is probably not meant about base and model."""
        queries = set(query_factors(model, self.head_growth))
        return [
            *width_findings(model, self.base, self.grown(model), self.init, mup_layers(model)),
            *attention_findings(model, self.base, queries),
        ]


def init_mults(model: ModelInfo, grown: Sequence[Growth], init: str) -> list[float]:
    """The factor on the initial weights of each parameter.

    muP wants the standard deviation of hidden weights to fall with the root of their fan-in,
    and that of all else to stay what it is in the base.
    """
    if init == "mup":
        return [1.0] * len(grown)
    targets = [growth.width**-0.5 if growth.kind == "hidden" else 1.0 for growth in grown]
    if init in {"constant", "gpt2"}:
        return targets
    weights = {
        name.rpartition(".")[0]: growth
        for param, growth in zip(model.params, grown, strict=True)
        if param.leaf == "weight" and param.ndim > 1
        for name in (f"{param.owner}.weight", *param.aliases)
    }
    return [
        target / _default_std(param, growth, weights.get(param.owner))
        for param, growth, target in zip(model.params, grown, targets, strict=True)
    ]


def _default_std(param: ParamInfo, growth: Growth, weight: Growth | None) -> float:
    """The std that torch gives a parameter by default, relative to that in the base."""
    cls = param.owner_type or object
    if issubclass(cls, nn.MultiheadAttention) and param.ndim > 1:
        # Xavier: 1 / root of the sum of fan-in and fan-out.
        now = param.shape
        before = [size / (mult or 1) for size, mult in zip(now, growth.mults, strict=True)]
        window = math.prod(before[2:]) / math.prod(now[2:])
        return math.sqrt((before[0] + before[1]) * window / (now[0] + now[1]))
    grown = growth.width_in
    if issubclass(cls, nn.RNNBase | nn.RNNCellBase):  # +-1 / sqrt(hidden size), all of them
        grown = growth.mults[1 if param.leaf.startswith("weight_hr") else 0]
    elif issubclass(cls, _LAYERS) and param.role != "embedding":
        axes = growth if param.ndim > 1 else weight  # of a bias: the weight beside it
        grown = axes and axes.mults[1]
    return 1.0 if grown is None else math.sqrt(1 / grown)
