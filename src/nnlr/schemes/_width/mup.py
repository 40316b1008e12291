"""muP: settings tuned on a narrow model that stay the best on a wide one.

    n = width / base width                       hidden    vector-like   readout
    Adam    lr_mult                              1 / n     1             1
            wd_mult                              n         1             1
    SGD     lr_mult = 1 / wd_mult                out / in  n             n
    std of the initial weights, to the base's    n ** -.5  1             1
    factor in the forward pass                   1         1             1 / n

Tensor Programs V (Yang et al. 2022, arXiv 2203.03466), as the authors' package ``mup`` has
it. The readout's forward factor is folded into its weight (:mod:`nnlr.schemes._width.folding`), so
that the model need not be changed.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

from torch import nn

from nnlr._arguments import as_call, choice, flag, number
from nnlr._declare.factor import UPDATES, Factor, Update
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Slot, lineage
from nnlr._select.selectors import Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import listed, plural, shown
from nnlr.errors import NnlrError
from nnlr.schemes._width.base import AnyBase, Base, as_base, shapes
from nnlr.schemes._width.findings import attention_findings, width_findings
from nnlr.schemes._width.folding import Scales
from nnlr.schemes._width.growth import AnyFanIn, FanIn, Growth, as_fan_in, growths
from nnlr.schemes._width.initial import INITS, Init, init_mults

__all__ = [
    "FORWARDS",
    "AnyGrowth",
    "Forward",
    "HeadGrowth",
    "MuP",
    "as_growth",
    "forward_factors",
    "mup",
    "mup_layers",
    "query_factors",
    "refuse_computed",
    "refuse_folding_twice",
    "refuse_halves",
    "shapes",
]

Forward = Literal["folded", "in_model"]

FORWARDS: Final[tuple[Forward, ...]] = ("folded", "in_model")

AnyGrowth = Mapping[str | Selector, float]

HeadGrowth = Mapping[Selector, float]

# Norms of queries and keys, by their paths: attn.q_norm, attn.norm_k, attn.q_layernorm.
_QK_NORM: Final = re.compile(
    r"(.*\.)?((q|k|query|key)_?(layer_?)?(norm|ln)|(layer_?)?norm_?(q|k))(\..*)?"
).fullmatch

_MU_READOUT: Final = "mup.layer.MuReadout"


def mup(
    base: AnyBase | None = None,
    *,
    delta: AnyBase | None = None,
    optimizer: Update = "adamw",
    init: Init = "fan_in",
    forward: Forward = "folded",
    readout_input: Selector | str | None = None,
    head_growth: AnyGrowth | None = None,
    fan_in: AnyFanIn | None = None,
    decoupled_wd: bool = False,
) -> Scheme:
    """The maximal update parametrization, relative to a base model.

    A layer whose input is n times as wide as in the base gets, under Adam,
    ``lr_mult = 1 / n`` and ``wd_mult = n``; vector-like parameters keep 1. The page
    ``docs/schemes/mup.md`` has the table. Reference: arXiv 2203.03466.

    Args:
        base: The narrow model at which the base rates were tuned (on the meta device will
            do), its shapes ``{name: shape}``, the path of a file with them
            (:func:`shapes`, or ``mup``'s own), or ``{width: base width}``. ``None`` reads
            what ``mup.set_base_shapes`` has left on the parameters.
        delta: Another model or shapes. Where base and delta are equal a dimension is finite,
            where they differ infinite. Without it a dimension is infinite where base and
            model differ, which is right unless something else differs too (a vocabulary).
        optimizer: ``"adamw"`` for AdamW and what else normalises gradients and has decay
            apart from them; ``"adam"`` where decay is added to the gradient; ``"sgd"``. The
            first two differ only in the decay of a folded readout. ``plan.optimizer`` refuses
            torch's optimizers of another kind. With ``"adam"`` the decay is that of
            ``MuAdam``, which no width leaves alone: rather use AdamW, or no decay.
        init: What the model's own initialisation does with width. ``"fan_in"``: torch's
            default, or He's: the variance of weights is 1 / fan-in (and N(0, 1) for an
            ``nn.Embedding``). ``"constant"``: a fixed standard deviation for all weights,
            and zero biases, as in GPT-2 and most of transformers. ``"mup"``: what muP wants.
        forward: ``"folded"``: the model knows nothing of muP. ``"in_model"``: it multiplies
            the input of its readout by 1 / n itself. ``mup.MuReadout`` is recognised.
        readout_input: Where the readout is tied to the embedding, its 1 / n cannot be folded
            into the weight. Names of gain and shift of the norm right before the readout,
            which then take it: ``"transformer.ln_f.*"``.
        head_growth: ``{"*.q_proj.*": size / base size}``, where the heads of attention are
            larger than in the base: muP divides q k by their size, most models by its root.
            The rest is folded into weight and bias of the queries, which can be done where
            these are parameters of their own and no norm follows.
        fan_in: ``{selector: axis}``: the axis that a layer sums over, for stacked experts
            and other parameters of which nothing tells it.
        decoupled_wd: The optimizer's decay is not multiplied by its learning rate (torch's
            AdamW is *not* of this kind): leave it as it is.

    Raises:
        NnlrError: If an argument is out of range; at resolve, if base and model do not
            correspond, a parameter has more than two infinite dimensions, or a tied readout
            needs ``readout_input``.

    Examples:
        >>> import nnlr
        >>> def net(n):
        ...     return nn.Sequential(nn.Linear(3, n), nn.Linear(n, n), nn.Linear(n, 2))
        >>> plan = nnlr.resolve(net(256), mup(net(64)), lr=0.1, weight_decay=0.01)
        >>> rows = [row for row in plan if row.name.endswith("weight")]
        >>> [(row.lr_mult, row.wd_mult, row.init_mult) for row in rows]
        [(1.0, 1.0, 1.0), (0.25, 4.0, 1.0), (0.25, 4.0, 0.5)]
    """
    through = None if readout_input is None else as_selector(readout_input, "readout_input")
    refuse_folding_twice(forward, through)
    return MuP(
        as_base(base, delta),
        optimizer=choice(optimizer, "optimizer", UPDATES),
        init=choice(init, "init", INITS),
        forward=choice(forward, "forward", FORWARDS),
        readout_input=through,
        head_growth=as_growth(head_growth),
        fan_in=as_fan_in(fan_in),
        decoupled_wd=flag(decoupled_wd, "decoupled_wd"),
    )


class MuP(Scheme):
    """The maximal update parametrization; made by :func:`mup`."""

    def __init__(
        self,
        base: Base,
        *,
        optimizer: Update,
        init: Init,
        forward: Forward,
        readout_input: Selector | None,
        head_growth: HeadGrowth,
        fan_in: FanIn,
        decoupled_wd: bool,
    ) -> None:
        self.base = base
        self.optimizer = optimizer
        self.init = init
        self.forward = forward
        self.readout_input = readout_input
        self.head_growth = head_growth
        self.fan_in = fan_in
        self.decoupled_wd = decoupled_wd

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor for all parameters that have grown alike and serve alike."""
        grown = growths(model, self.base, self.fan_in)
        inits = init_mults(model, grown, "mup" if mup_layers(model) else self.init)
        folds = forward_factors(model, grown, self.forward, self.readout_input)
        for index, factor in query_factors(model, self.head_growth).items():
            folds[index] *= factor
        shared: dict[object, Factor] = {}
        factors = []
        for growth, init, fold in zip(grown, inits, folds, strict=True):
            key = (growth, init, fold)
            if key not in shared:
                shared[key] = self._factor(*key)
            factors.append(shared[key])
        return factors

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What of base and model is probably not meant."""
        grown = growths(model, self.base, self.fan_in)
        mu = mup_layers(model)
        queries = set(query_factors(model, self.head_growth))
        return [
            *width_findings(model, self.base, grown, self.init, mu),
            *attention_findings(model, self.base, queries),
        ]

    def _factor(self, growth: Growth, init: float, fold: float) -> Factor:
        scales = self._scales(growth)._replace(init=init)
        if fold != 1:
            scales = scales.folded(fold, self.optimizer)
        if self.decoupled_wd:
            scales = scales._replace(wd=1.0)
        return scales.factor(self.optimizer)

    def _scales(self, growth: Growth) -> Scales:
        width = growth.width
        if growth.is_hidden:
            ratio = width / growth.width_out if self.optimizer == "sgd" else width
            return Scales(lr=1 / ratio, wd=ratio, why=f"hidden, {width:.3g} x as wide")
        if not growth.infinite:
            return Scales(why="finite")
        kind = "readout" if growth.is_readout else "vector-like"
        why = f"{kind}, {width:.3g} x as wide"
        if self.optimizer == "sgd":
            return Scales(lr=width, wd=1 / width, why=why)
        return Scales(why=why)

    def __repr__(self) -> str:
        given = {
            "optimizer": self.optimizer,
            "init": self.init,
            "forward": self.forward,
            "readout_input": self.readout_input,
            "head_growth": self.head_growth or None,
            "fan_in": self.fan_in or None,
            "decoupled_wd": self.decoupled_wd,
        }
        return as_call(mup, self.base, **given)


def as_growth(given: AnyGrowth | None) -> HeadGrowth:
    """Check what a user said of the size of heads.

    Raises:
        NnlrError: If it is no mapping of selectors to numbers > 0.
    """
    if not isinstance(given, Mapping | None):
        raise NnlrError(
            "head_growth must map selectors of queries to the size of heads relative to the "
            f"base, such as {{'*.q_proj.*': 2}}, got {shown(given)}."
        )
    return {
        as_selector(name, "head_growth"): number(ratio, "head_growth", above=0)
        for name, ratio in (given or {}).items()
    }


def refuse_folding_twice(forward: object, readout_input: object) -> None:
    """Refuse to be told where to fold what the model multiplies with itself.

    Raises:
        NnlrError: If both are given.
    """
    if forward == "in_model" and readout_input is not None:
        raise NnlrError(
            f"readout_input={readout_input!r} names what takes the readout's factor, and "
            "forward='in_model' says that the model has it already: pass one of them."
        )


def mup_layers(model: ModelInfo) -> list[str]:
    """Names of weights that belong to the readouts of the package ``mup``."""
    return [
        param.name
        for param, places in zip(model.params, model.places, strict=True)
        if any(map(_is_mu_readout, places)) and param.ndim > 1
    ]


def _is_mu_readout(slot: Slot) -> bool:
    cls: type = type(slot.module)
    return _MU_READOUT in lineage(cls)


def _is_tied(places: Sequence[Slot]) -> bool:
    """Whether a table is looked up at one place and multiplied with at another."""
    tables = [isinstance(s.module, nn.Embedding | nn.EmbeddingBag) for s in places]
    return any(tables) and not all(tables)


def forward_factors(
    model: ModelInfo,
    grown: Sequence[Growth],
    forward: Forward,
    readout_input: Selector | None,
) -> list[float]:
    """The factor on what each parameter gives, which is to be folded into it.

    Raises:
        NnlrError: If a tied or computed readout cannot take its factor.
    """
    folds = [1.0] * len(grown)
    if forward == "in_model":
        return folds
    tied = {}
    for index, (growth, places) in enumerate(zip(grown, model.places, strict=True)):
        if any(map(_is_mu_readout, places)):
            continue
        if _is_tied(places):
            tied[index] = growth.width
        elif growth.is_readout and growth.width != 1:
            folds[index] = 1 / growth.width
            refuse_computed(model, index)
    if readout_input is not None:
        what = f"readout_input={readout_input!r}"
        taken = must_match(readout_input, model, what, may_be_optional=False)
        for index in taken:
            folds[index] = 1 / _only_width(model, tied, what)
        refuse_halves(model, taken, what)
    elif any(width != 1 for width in tied.values()):
        raise _needs_input(model, tied)
    return folds


def query_factors(model: ModelInfo, head_growth: HeadGrowth) -> dict[int, float]:
    """The factor on queries that makes 1 / root of the heads' size into 1 / size.

    Raises:
        NnlrError: If a norm follows them, which would undo it.
    """
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


def _only_width(model: ModelInfo, tied: Mapping[int, float], what: str) -> float:
    if len(set(tied.values())) != 1:
        raise NnlrError(
            f"{what} takes the factor of a readout that is tied to an embedding, and "
            f"{model.label} has {plural(len(tied), 'such readout')}"
            f"{' of different widths' if tied else ': leave it out'}."
        )
    return next(iter(tied.values()))


def _needs_input(model: ModelInfo, tied: Mapping[int, float]) -> NnlrError:
    names = [model.params[index].name for index in tied]
    norms = [param.owner for param in model.params if param.role == "norm"]
    likely = f" ({norms[-1] + '.*'!r} is the last norm by order)" if norms else ""
    return NnlrError(
        f"{listed(names)}: one tensor is embedding and readout. The readout's factor 1 / n "
        "cannot be folded into it, for it would scale the embedding too.\n"
        "  Name gain and shift of the norm right before the readout, which can take it: "
        f"readout_input='...'{likely};\n"
        "  or untie them; or multiply in the model and pass forward='in_model'.",
        names=names,
    )
