"""Findings about the comparison of a model with a narrower one."""

import math
from collections.abc import Iterator, Sequence
from statistics import median

from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.marks import init_applied
from nnlr._model.names import nodes, unwrap
from nnlr.schemes._width.base import Base, base_dims, head_size, spread
from nnlr.schemes._width.growth import Growth


def width_findings(
    model: ModelInfo, base: Base, grown: Sequence[Growth], init: str, mu: list[str]
) -> Iterator[Finding]:
    """Point out what is probably not meant about a comparison with a base.

    ``init`` is what the user says of the model's own initialisation, ``mu`` names the weights
    of ``mup.MuReadout`` layers.
    """
    if names := base.outgrown(model):
        yield warning(
            "width-finite",
            names,
            cause="Base and delta agree in a dimension that is another one in this model, so "
            "it counts as finite",
            fix="If it is a width, change it in the delta model too.",
        )
    pairs = list(zip(model.params, grown, strict=True))
    if heads := [p.name for p, growth in pairs if p.role == "head" and growth.kind == "hidden"]:
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
        if param.role in {"matrix", "conv"} and growth.kind == "readout"
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
    if mu and any(base_dims(places[0].tensor) is None for places in model.places):
        yield warning(
            "width-mup-unset",
            mu,
            cause="The model has readouts of the package mup, but mup has not set its base "
            "shapes, so that they cannot run and the initial weights are not muP's",
            fix="Call mup.set_base_shapes(model, base) first; do not call apply_init.",
        )
    yield from _initialisation(model, base, grown, init)


def attention_findings(model: ModelInfo, base: Base, scaled: set[int]) -> Iterator[Finding]:
    """Point out attention whose heads have grown, without a query among ``scaled``."""
    if model.module is None:
        return
    owners = [model.params[index].owner for index in scaled]
    grown = []
    for node in nodes(model.module):
        size, before = head_size(node.module), base.heads.get(node.path)
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


def _initialisation(
    model: ModelInfo, base: Base, grown: Sequence[Growth], init: str
) -> Iterator[Finding]:
    """Compare the spread of hidden weights with what the user says of it."""
    if model.module is not None and init_applied(unwrap(model.module)):
        return
    falls = []
    for param, places, growth in zip(model.params, model.places, grown, strict=True):
        before = next((base.spreads[n] for n in param.names if n in base.spreads), None)
        if growth.kind != "hidden" or before is None or abs(math.log(growth.width)) < 0.4:
            continue
        now = spread(places[0].tensor)
        if now and before:
            falls.append(math.log(before / now) / math.log(growth.width))
        if len(falls) == 12:  # enough to tell one law from another
            break
    constant = init in {"constant", "gpt2"}
    if falls and (median(falls) < 0.25) != constant:  # n ** -0.5, or not at all
        yield warning(
            "width-init",
            ("init",),
            cause=f"init={init!r} says that the spread of the initial hidden weights "
            f"{'does not depend on' if constant else 'falls with the root of'} the width; "
            f"from base to model it went like width^{0.0 - median(falls):.2f}",
            fix=f"If the weights are not trained yet, pass "
            f"init={'fan_in' if constant else 'constant'!r}.",
        )
