"""muP: settings tuned on a narrow model that stay the best on a wide one.

    n = width / base width                       hidden    vector-like   readout
    Adam    lr_mult                              1 / n     1             1
            wd_mult                              n         1             1
    SGD     lr_mult = 1 / wd_mult                out / in  n             n
    Muon    lr_mult = 1 / wd_mult                1         1             n ** -.5
    std of the initial weights, to the base's    n ** -.5  1             1
    factor in the forward pass                   1         1             1 / n

Tensor Programs V (Yang et al. 2022, arXiv 2203.03466), as the authors' package ``mup`` has
it. The readout's forward factor is folded into its weight (:mod:`.exponents`), so that the
model need not be changed. Muon's line, for its factor sqrt(max(1, out / in)), is the spectral
condition (Yang, Simon and Bernstein 2023, arXiv 2310.17813).
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

from nnlr._arguments import Call, choice, flag
from nnlr._declare.factor import UPDATES, Factor, Update
from nnlr._declare.scheme import Scheme
from nnlr._model.describe import ModelInfo
from nnlr._select.selector import Selector
from nnlr.schemes._width.base import AnyBase, Base, as_base
from nnlr.schemes._width.exponents import Scales
from nnlr.schemes._width.growth import AnyFanIn, FanIn
from nnlr.schemes._width.scheme import (
    INITS,
    AnyGrowth,
    Forward,
    HeadGrowth,
    Init,
    WidthScheme,
    checked,
)


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
            (:func:`nnlr.config.shapes`, or ``mup``'s own), or ``{width: base width}``. ``None``
            reads what ``mup.set_base_shapes`` has left on the parameters.
        delta: Another model or shapes. Where base and delta are equal a dimension is finite,
            where they differ infinite. Without it a dimension is infinite where base and
            model differ, which is right unless something else differs too (a vocabulary).
        optimizer: ``"adamw"`` for AdamW and what else normalises gradients and has decay
            apart from them; ``"adam"`` where decay is added to the gradient; ``"sgd"``;
            ``"muon"`` for Muon with its original shape factor or the spectral one. The
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
        >>> from torch import nn
        >>> def net(n):
        ...     return nn.Sequential(nn.Linear(3, n), nn.Linear(n, n), nn.Linear(n, 2))
        >>> plan = nnlr.resolve(net(256), mup(net(64)), lr=0.1, weight_decay=0.01)
        >>> rows = [row for row in plan if row.name.endswith("weight")]
        >>> [(row.lr_mult, row.wd_mult, row.init_mult) for row in rows]
        [(1.0, 1.0, 1.0), (0.25, 4.0, 1.0), (0.25, 4.0, 0.5)]
    """
    return MuP(
        as_base(base, delta),
        optimizer=choice(optimizer, "optimizer", UPDATES),
        init=choice(init, "init", INITS),
        decoupled_wd=flag(decoupled_wd, "decoupled_wd"),
        **checked(forward, readout_input, head_growth, fan_in),
    )


@dataclass(frozen=True, repr=False, eq=False)
class MuP(Call, WidthScheme):
    """The maximal update parametrization; made by :func:`mup`."""

    _call: ClassVar[str] = "mup"
    any_depth: ClassVar[bool] = False

    base: Base
    _: KW_ONLY
    optimizer: Update = "adamw"
    init: Init = "fan_in"
    forward: Forward = "folded"
    readout_input: Selector | None = None
    head_growth: HeadGrowth = field(default_factory=dict)
    fan_in: FanIn = field(default_factory=dict)
    decoupled_wd: bool = False

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The factor for how much each parameter has grown."""
        factors = []
        shared: dict[object, Factor] = {}  # equal factors are one object, so that steps are shared
        grown = self.grown(model)
        parts = zip(model.params, grown, *self.inits_and_folds(model, grown), strict=True)
        for param, growth, init, fold in parts:
            if self.optimizer == "muon":
                scales = Scales.of_muon(growth, param.shape)._replace(init=init)
            else:
                scales = Scales.of_width(growth, self.optimizer)._replace(init=init)
            if not growth.infinite:
                scales = scales._replace(why="finite")
            if fold != 1:
                scales = scales.folded(fold, self.optimizer)
            if self.decoupled_wd:
                scales = scales._replace(wd=1.0)
            # Muon's rate stays only where its own factor follows the shape.
            neutral = self.optimizer != "muon" or set(growth.infinite) <= {1}
            key = (scales, neutral)
            if key not in shared:
                shared[key] = scales.factor(self.optimizer, neutral=neutral)
            factors.append(shared[key])
        return factors
