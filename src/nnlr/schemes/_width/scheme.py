"""What the width schemes share: one growth, one initial factor and one fold per parameter."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, ClassVar, Final, Literal

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnlr._arguments import choice, number
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._model.marks import init_applied
from nnlr._model.names import nodes, unwrap
from nnlr._select.selector import Selector, as_selector
from nnlr._text import shown
from nnlr.errors import NnlrError
from nnlr.schemes._width.base import Base, base_dims, head_size, spread
from nnlr.schemes._width.exponents import forward_factors, mup_layers, query_factors
from nnlr.schemes._width.growth import AnyFanIn, FanIn, Growth, growths

Forward = Literal["folded", "in_model"]

FORWARDS: Final[tuple[Forward, ...]] = ("folded", "in_model")

AnyGrowth = Mapping[str | Selector, float]

HeadGrowth = Mapping[Selector, float]

Init = Literal["fan_in", "constant", "mup"]

INITS: Final[tuple[Init, ...]] = ("fan_in", "constant", "mup")

# torch draws their weights and biases from +-1 / sqrt(size of the weight's axis 1).
_LAYERS: Final = (nn.Linear, nn.Bilinear, _ConvNd)


def checked(
    forward: Forward,
    readout_input: Selector | str | None,
    head_growth: AnyGrowth | None,
    fan_in: AnyFanIn | None,
) -> dict[str, Any]:
    """The arguments that both width schemes take, checked."""
    through = None if readout_input is None else as_selector(readout_input, "readout_input")
    if forward == "in_model" and through is not None:
        raise NnlrError(
            f"readout_input={through!r} names what takes the readout's factor, and "
            "forward='in_model' says that the model has it already: pass one of them."
        )
    if not isinstance(head_growth, Mapping | None):
        raise NnlrError(
            "head_growth must map selectors of queries to the size of heads relative to the "
            f"base, such as {{'*.q_proj.*': 2}}, got {shown(head_growth)}."
        )
    axes = {} if fan_in is None else fan_in
    if not isinstance(axes, Mapping) or not all(
        isinstance(axis, int) and not isinstance(axis, bool) for axis in axes.values()
    ):
        raise NnlrError(
            f"fan_in must map selectors to axes, such as {{'*.experts.up': 1}}, got {shown(axes)}."
        )
    return {
        "forward": choice(forward, "forward", FORWARDS),
        "readout_input": through,
        "head_growth": {
            as_selector(name, "head_growth"): number(ratio, "head_growth", above=0)
            for name, ratio in (head_growth or {}).items()
        },
        "fan_in": {as_selector(name, "fan_in"): axis for name, axis in axes.items()},
    }


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
        folds = forward_factors(model, grown, self.forward, self.readout_input)
        for index, factor in query_factors(model, self.head_growth).items():
            folds[index] *= factor
        if self.init == "mup" or mup_layers(model):
            return [1.0] * len(grown), folds
        # muP wants the standard deviation of hidden weights to fall with the root of their
        # fan-in, and that of all else to stay what it is in the base.
        inits = [growth.width**-0.5 if growth.kind == "hidden" else 1.0 for growth in grown]
        if self.init == "fan_in":
            pairs = list(zip(model.params, grown, strict=True))
            weights = {
                name.rpartition(".")[0]: growth
                for param, growth in pairs
                if param.leaf == "weight" and param.ndim > 1
                for name in (f"{param.owner}.weight", *param.aliases)
            }
            for index, (param, growth) in enumerate(pairs):
                inits[index] /= _default_std(param, growth, weights.get(param.owner))
        return inits, folds

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What is probably not meant about base and model."""
        return [*self._on_widths(model), *self._on_init(model), *self._on_heads(model)]

    def _on_widths(self, model: ModelInfo) -> Iterator[Finding]:
        """Point out dimensions and layers that seem to be taken for what they are not."""
        if names := self.base.outgrown(model):
            yield warning(
                "width-finite",
                names,
                cause="Base and delta agree in a dimension that is another one in this model, so "
                "it counts as finite",
                fix="If it is a width, change it in the delta model too.",
            )
        grown = self.grown(model)
        pairs = list(zip(model.params, grown, strict=True))
        heads = [
            param.name for param, growth in pairs if _called_head(param) and growth.kind == "hidden"
        ]
        if heads:
            yield warning(
                "width-head",
                heads,
                cause="An output layer differs from the base in both dimensions, so it is treated "
                "as a hidden layer and not as a readout",
                fix="If its outputs (classes, vocabulary) are no width, give the base as many, or "
                "pass delta=.",
            )
        readouts = [
            param.name
            for param, growth in pairs
            if param.role in {"matrix", "conv", "head"}
            and growth.kind == "readout"
            and not _called_head(param)
        ]
        if len(readouts) > 1:
            yield note(
                "width-readouts",
                readouts,
                cause=f"{len(readouts)} weights sum over a width and give out something finite, "
                "so each is treated as a readout",
                fix="If one of them gives out a width, the base does not say so: its size has to "
                "differ in the base, or be among {width: base width}.",
            )
        shrunk = [p.name for p, growth in pairs if min(growth.infinite, default=1) < 1]
        if shrunk and all(max(growth.infinite, default=1) <= 1 for growth in grown):
            yield note(
                "width-narrower",
                shrunk,
                cause="The model is narrower than its base, so that rates rise",
                fix="If the two were swapped: resolve(wide, mup(narrow), ...).",
            )
        mu = mup_layers(model)
        if mu and any(base_dims(places[0].tensor) is None for places in model.places):
            yield warning(
                "width-mup-unset",
                mu,
                cause="The model has readouts of the package mup, but mup has not set its base "
                "shapes, so that they cannot run and the initial weights are not muP's",
                fix="Call mup.set_base_shapes(model, base) first; do not call apply_init.",
            )

    def _on_init(self, model: ModelInfo) -> Iterator[Finding]:
        """Compare the spread of hidden weights with what ``init`` says of it."""
        if model.module is not None and init_applied(unwrap(model.module)):
            return
        spreads, falls = self.base.spreads, []
        triples = zip(model.params, model.places, self.grown(model), strict=True)
        for param, places, growth in triples:
            before = next((spreads[n] for n in param.names if n in spreads), None)
            if growth.kind != "hidden" or before is None or abs(math.log(growth.width)) < 0.4:
                continue
            now = spread(places[0].tensor)
            if now and before:
                falls.append(math.log(before / now) / math.log(growth.width))
            if len(falls) == 12:  # enough to tell one law from another
                break
        constant = self.init in {"constant", "gpt2"}
        if falls and (median(falls) < 0.25) != constant:  # n ** -0.5, or not at all
            yield warning(
                "width-init",
                ("init",),
                cause=f"init={self.init!r} says that the spread of the initial hidden weights "
                f"{'does not depend on' if constant else 'falls with the root of'} the width; "
                f"from base to model it went like width^{0.0 - median(falls):.2f}",
                fix=f"If the weights are not trained yet, pass "
                f"init={'fan_in' if constant else 'constant'!r}.",
            )

    def _on_heads(self, model: ModelInfo) -> Iterator[Finding]:
        """Point out attention whose heads have grown, where no query is scaled for it."""
        if model.module is None:
            return
        owners = [model.params[index].owner for index in query_factors(model, self.head_growth)]
        grown = []
        for node in nodes(model.module):
            size, before = head_size(node.module), self.base.heads.get(node.path)
            if None not in {size, before} and size != before:
                inside = f"{node.path}." if node.path else ""
                if not any(f"{owner}.".startswith(inside) for owner in owners):
                    grown.append(node.path)
        if grown:
            yield warning(
                "width-attention",
                grown,
                cause="Heads are of another size than in the base. muP divides q k by that size, "
                "most models by its root, so attention sharpens with width",
                fix="Keep the size and add heads; or let the model divide by it; or scale "
                "the queries, where no norm follows them: "
                "head_growth={'*.q_proj.*': size / base size}.",
            )


def _called_head(param: ParamInfo) -> bool:
    """Whether a model says itself, or by a name, that a layer is its output layer."""
    return param.role == "head" and param.role_basis != "place"


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
