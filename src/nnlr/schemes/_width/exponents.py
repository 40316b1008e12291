"""The exponents of width, and of factors in the forward pass, on one parameter's settings.

A layer ``y = c * (W x)`` is the layer ``y = V x`` with ``V = c W``, and V follows c W exactly,
step for step, if it is trained with

    ============================  ========  =========  =======  =====
    optimizer                     lr        decay      eps      init
    ============================  ========  =========  =======  =====
    SGD, with momentum too        c ** 2    c ** -2    -        c
    Adam (decay in the gradient)  c         c ** -2    c ** -1  c
    AdamW (decoupled decay)       c         c ** -1    c ** -1  c
    Muon                          c         c ** -1    c ** -1  c
    ============================  ========  =========  =======  =====

because the gradient of V is that of W divided by c, and Adam's step does not depend on the
scale of gradients once eps has that scale. Clipping by the norm of the gradient does see it.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from torch import nn

from nnlr._declare.factor import Factor, Update
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Slot, lineage
from nnlr._select.selector import Selector
from nnlr._select.suggestions import must_match
from nnlr._text import listed, plural
from nnlr.errors import NnlrError
from nnlr.schemes._width.growth import Growth

# Norms of queries and keys, by their paths: attn.q_norm, attn.norm_k, attn.q_layernorm.
_QK_NORM: Final = re.compile(
    r"(.*\.)?((q|k|query|key)_?(layer_?)?(norm|ln)|(layer_?)?norm_?(q|k))(\..*)?"
).fullmatch

# Exponents of c for lr, weight decay and eps.
_FOLD_EXPONENTS: Final = {
    "sgd": (2, -2, 0),
    "adam": (1, -2, -1),
    "adamw": (1, -1, -1),
    "muon": (1, -1, -1),
}

# Exponents of the growth of fan-in and of fan-out for lr; decay has the opposite. Others: 0.
_WIDTH_EXPONENTS: Final = {
    ("hidden", "adam"): (-1, 0),
    ("hidden", "adamw"): (-1, 0),
    ("hidden", "sgd"): (-1, 1),
    ("readout", "sgd"): (1, 0),
    ("vector-like", "sgd"): (1, 0),
}


class Scales(NamedTuple):
    """Factors on the settings of one parameter, before they become a ``Factor``."""

    lr: float = 1.0
    wd: float = 1.0
    eps: float = 1.0
    init: float = 1.0
    why: str = ""

    @classmethod
    def of_width(cls, growth: Growth, optimizer: Update) -> "Scales":
        """Those for how much wider a parameter is, and for what it does."""
        fan_in, fan_out = _WIDTH_EXPONENTS.get((growth.kind, optimizer), (0, 0))
        width, width_out = growth.width, growth.width_out if fan_out else 1.0
        return cls(
            lr=width**fan_in * width_out**fan_out,
            wd=width**-fan_in * width_out**-fan_out,
            why=f"{growth.kind}, {width:.3g} x as wide",
        )

    @classmethod
    def of_muon(cls, growth: Growth, shape: Sequence[int]) -> "Scales":
        """Those by which the spectral norm of an update goes like ``sqrt(out / in)``.

        Muon's is ``sqrt(max(1, rows / columns))``, which is that of a hidden matrix whose sides
        have grown alike: its rate stays. Kernels count as matrices ``(out, all else)``.
        """
        why = f"{growth.kind}, {growth.width:.3g} x as wide"
        if growth.fan_in is None:
            return cls(why=why)
        mults = [mult or 1.0 for mult in growth.mults]
        now = shape[0] / math.prod(shape[1:])
        before = now / mults[0] * math.prod(mults[1:])
        due = math.prod(mults) / mults[growth.fan_in] ** 2  # growth of out by that of in
        lr = (due * max(1, before) / max(1, now)) ** 0.5
        return cls(lr=lr, wd=1 / lr, why=f"{why}, by Muon")

    def folded(self, c: float, optimizer: Update) -> "Scales":
        """The same for ``c`` times the parameter."""
        lr, wd, eps = _FOLD_EXPONENTS[optimizer]
        return Scales(
            self.lr * c**lr,
            self.wd * c**wd,
            self.eps * c**eps,
            self.init * c,
            f"{self.why}, forward x {c:.3g}",
        )

    def factor(self, optimizer: Update, *, neutral: bool = True) -> Factor:
        """The factor; its decay is meant as it is, whatever the learning rate.

        ``neutral`` says that factors of 1 are right for any optimizer.
        """
        rates = self.lr, self.wd, self.eps, self.init
        return Factor(
            lr_mult=self.lr,
            wd_mult=self.wd,
            eps_mult=self.eps,
            init_mult=self.init,
            why=self.why,
            compensates_decay=True,
            update=None if set(rates) == {1} and neutral else optimizer,
        )


def mup_layers(model: ModelInfo) -> list[str]:
    """Names of weights that belong to the readouts of the package ``mup``."""
    return [
        param.name
        for param, places in zip(model.params, model.places, strict=True)
        if any(map(_is_mu_readout, places)) and param.ndim > 1
    ]


def _is_mu_readout(slot: Slot) -> bool:
    """Whether a readout of the package ``mup`` holds it."""
    cls: type = type(slot.module)
    return "mup.layer.MuReadout" in lineage(cls)


def forward_factors(
    model: ModelInfo,
    grown: Sequence[Growth],
    forward: str,
    readout_input: Selector | None,
) -> list[float]:
    """The factor on what each parameter gives, which is to be folded into it."""
    folds = [1.0] * len(grown)
    if forward == "in_model":
        return folds
    tied = {}
    for index, (growth, places) in enumerate(zip(grown, model.places, strict=True)):
        if any(map(_is_mu_readout, places)):
            continue
        tables = [isinstance(s.module, nn.Embedding | nn.EmbeddingBag) for s in places]
        if any(tables) and not all(tables):  # looked up at one place, multiplied with at another
            tied[index] = growth.width
        elif growth.kind == "readout" and growth.width != 1:
            folds[index] = 1 / growth.width
            refuse_computed(model, index)
    if readout_input is not None:
        what = f"readout_input={readout_input!r}"
        taken = must_match(readout_input, model, what, may_be_optional=False)
        if len(set(tied.values())) != 1:
            raise NnlrError(
                f"{what} takes the factor of a readout that is tied to an embedding, and "
                f"{model.label} has {plural(len(tied), 'such readout')}"
                f"{' of different widths' if tied else ': leave it out'}."
            )
        for index in taken:
            folds[index] = 1 / next(iter(tied.values()))
        refuse_halves(model, taken, what)
    elif any(width != 1 for width in tied.values()):
        names = [model.params[index].name for index in tied]
        norms = [param.owner for param in model.params if param.role == "norm"]
        likely = f" ({norms[-1] + '.*'!r} is the last norm by order)" if norms else ""
        raise NnlrError(
            f"{listed(names)}: one tensor is embedding and readout. The readout's factor 1 / n "
            "cannot be folded into it, for it would scale the embedding too.\n"
            "  Name gain and shift of the norm right before the readout, which can take it: "
            f"readout_input='...'{likely};\n"
            "  or untie them; or multiply in the model and pass forward='in_model'.",
            names=names,
        )
    return folds


def query_factors(model: ModelInfo, head_growth: Mapping[Selector, float]) -> dict[int, float]:
    """The factor on queries that makes 1 / root of the heads' size into 1 / size."""
    factors = {}
    norms = [p.owner for p in model.params if p.role == "norm" and _QK_NORM(p.owner)]
    for selector, growth in head_growth.items():
        what = f"head_growth={{{selector!r}: {growth:g}}}"
        taken = must_match(selector, model, what, may_be_optional=False)
        refuse_halves(model, taken, what)
        for index in taken:
            param = model.params[index]
            above, dot, _ = param.owner.rpartition(".")
            if near := [norm for norm in norms if norm.startswith(above + dot)]:
                raise NnlrError(
                    f"{what}: {param.name!r} is followed by the norm {near[0]!r}, which "
                    "undoes any factor. With such a norm the model itself has to divide by "
                    "the size of the heads; leave head_growth out.",
                    name=param.name,
                )
            refuse_computed(model, index)
            factors[index] = growth**-0.5
    return factors


def refuse_computed(model: ModelInfo, index: int) -> None:
    """Refuse to fold into what is not the weight itself, such as weight norm's direction."""
    param = model.params[index]
    if model.places[index][0].key != param.leaf:
        raise NnlrError(
            f"{param.name!r} is computed from {model.places[index][0].key!r} by a "
            "parametrization, so a factor of the forward pass cannot be folded into it. Take "
            "the parametrization off, or multiply in the model and pass forward='in_model'.",
            name=param.name,
        )


def refuse_halves(model: ModelInfo, taken: Collection[int], what: str) -> None:
    """Refuse to fold into the weight of a layer and not into its bias, or the reverse.

    A layer is a module without others inside: parameters that hang on a block or on an
    attention module beside its layers are each for themselves.
    """
    above = {path for param in model.params for path, _ in param.ancestors[:-1]}
    layers = {model.params[index].owner for index in taken} - above
    for index, param in enumerate(model.params):
        if param.owner in layers and index not in taken:
            raise NnlrError(
                f"{what} matches parameters of {param.owner!r} but not {param.name!r}: a "
                "factor goes into a layer as a whole, weight and bias.",
                name=param.name,
            )
