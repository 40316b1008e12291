"""CompleteP: settings tuned on a narrow and shallow model that hold for a wide, deep one.

    n = width / base width        in blocks:                  in blocks:        outside blocks:
    l = blocks / base blocks      hidden weights              norms, biases     embedding, final
                                                                                norm, unembedding
    AdamW   lr_mult               n ** -1 * l ** (alpha - 1)  l ** (alpha - 1)  1
            wd_mult               n                           1                 1
            eps_mult              n ** -1 * l ** -alpha       the same          n ** -1
    std of the initial weights    n ** -.5                    1                 1
    factor in the forward pass    l ** -alpha on every residual branch; 1 / n on the readout

Dey et al. 2025, arXiv 2505.01618, table 1 and equation 40; alpha = 1 is CompleteP. Both
factors of the forward pass are folded into parameters (:mod:`.exponents`), so that the model
need not be changed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from statistics import mode
from typing import ClassVar, Final, Literal

from torch import nn

from nnlr._arguments import Written, as_call, choice, number, whole
from nnlr._declare.factor import Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo, describe
from nnlr._select.selector import Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import listed, plural
from nnlr.depth._given import INDEXERS, as_indexer
from nnlr.depth._layer import Indexer, Layers, layers_of
from nnlr.errors import NnlrError
from nnlr.schemes._layer_decay import AnyIndexer
from nnlr.schemes._width.base import AnyBase, Base, as_base
from nnlr.schemes._width.exponents import Scales, refuse_computed, refuse_halves
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

Form = Literal["as_published", "as_released"]

FORMS: Final[tuple[Form, ...]] = ("as_published", "as_released")

AnyInit = Init | Literal["gpt2"]

_INITS: Final[tuple[AnyInit, ...]] = (*INITS, "gpt2")


# The number of blocks in each tower.
Blocks = Mapping[str, int]


def complete_p(
    base: AnyBase,
    *,
    delta: AnyBase | None = None,
    base_depth: int | None = None,
    alpha: float = 1.0,
    form: Form = "as_published",
    indexer: AnyIndexer = "auto",
    residual_out: Selector | str | None = None,
    init: AnyInit = "fan_in",
    forward: Forward = "folded",
    readout_input: Selector | str | None = None,
    head_growth: AnyGrowth | None = None,
    fan_in: AnyFanIn | None = None,
) -> Scheme:
    """Scale width and depth at once, relative to a base model; for AdamW.

    With n times the width and l times the blocks, hidden weights of a block get
    ``lr_mult = l ** (alpha - 1) / n`` and ``wd_mult = n``, and residual branches a factor
    of ``l ** -alpha``. The page ``docs/schemes/complete_p.md`` has the table. Reference:
    arXiv 2505.01618.

    Args:
        base: The narrow, shallow model at which the base rates were tuned: as for
            :func:`nnlr.mup`, but it may have fewer blocks.
        delta: As for :func:`nnlr.mup`.
        base_depth: Number of blocks of the base; needed where ``base`` is no model, because
            shapes do not tell.
        alpha: How fast residual branches shrink with depth, in [0.5, 1]; 1 is CompleteP.
        form: ``"as_published"`` scales eps outside the blocks with width only (the paper's
            equation 40). ``"as_released"`` scales it there with depth too, as the authors'
            code did until they corrected it; their experiments ran with that.
        indexer: What a block is; as for :func:`nnlr.layer_decay`.
        residual_out: The parameters that end every residual branch (weights, and biases
            where there are any), which take its factor: ``"*.c_proj.*"``. Nothing in a model
            tells safely which these are, so they have to be named; the message of the error
            proposes some.
        init: As for :func:`nnlr.mup`; ``"gpt2"`` is ``"constant"`` for models that start
            the weights of ``residual_out`` smaller by the root of the number of blocks, as
            GPT-2 does and CompleteP does not.
        forward: ``"folded"``: the model knows nothing of CompleteP. ``"in_model"``: it
            multiplies residual branches and the input of the readout itself.
        readout_input: As for :func:`nnlr.mup`: the norm before a readout that is tied.
        head_growth: As for :func:`nnlr.mup`: queries of heads that are larger.
        fan_in: As for :func:`nnlr.mup`.

    Raises:
        NnlrError: If an argument is out of range; at resolve, if base and model do not
            correspond, or ``residual_out`` is needed or does not end every block.

    Examples:
        >>> import nnlr
        >>> class Block(nn.Module):
        ...     def __init__(self, n):
        ...         super().__init__()
        ...         self.up, self.out = nn.Linear(n, 2 * n), nn.Linear(2 * n, n)
        ...     def forward(self, x):
        ...         return x + self.out(self.up(x).relu())
        >>> def net(n, count):
        ...     blocks = nn.Sequential(*(Block(n) for _ in range(count)))
        ...     return nn.Sequential(nn.Linear(3, n), blocks)
        >>> def block(param):
        ...     return int(param.name.split(".")[1]) if param.name[0] == "1" else None
        >>> scheme = complete_p(net(8, 2), indexer=block, residual_out="*.out.*")
        >>> plan = nnlr.resolve(net(32, 4), scheme, lr=0.1, weight_decay=0.01)
        >>> up, out = plan["1.3.up.weight"], plan["1.3.out.weight"]
        >>> (up.lr_mult, up.eps_mult), (out.lr_mult, out.eps_mult)
        ((0.25, 0.125), (0.125, 0.25))
    """
    ends = None if residual_out is None else as_selector(residual_out, "residual_out")
    by = as_indexer(indexer)
    if base is None:
        raise NnlrError("complete_p needs a base: complete_p(small_model).")
    narrow = as_base(base, delta)
    blocks: Blocks | int
    if base_depth is not None:
        blocks = whole(base_depth, "base_depth", minimum=1)
    elif isinstance(base, nn.Module):
        blocks = _blocks(layers_of(by, describe(base)))
    else:
        raise NnlrError(
            "Shapes do not tell how many blocks the base has: pass base_depth=, or the base "
            "model itself."
        )
    return CompleteP(
        narrow,
        blocks,
        alpha=number(alpha, "alpha", minimum=0.5, maximum=1),
        form=choice(form, "form", FORMS),
        indexer=by,
        residual_out=ends,
        init=choice(init, "init", _INITS),
        **checked(forward, readout_input, head_growth, fan_in),
    )


def _blocks(layers: Layers) -> dict[str, int]:
    """The number of blocks in layer tower."""
    blocks = {(layer.tower, layer.depth) for layer in layers if layer and layer.part == "block"}
    return Counter(tower for tower, _ in sorted(blocks))


@dataclass(frozen=True, repr=False, eq=False)
class CompleteP(WidthScheme):
    """Width and depth at once; made by :func:`complete_p`."""

    any_depth: ClassVar[bool] = True

    base: Base
    base_blocks: Blocks | int
    _: KW_ONLY
    alpha: float
    form: Form
    indexer: Indexer
    residual_out: Selector | None
    init: AnyInit
    forward: Forward
    readout_input: Selector | None
    head_growth: HeadGrowth
    fan_in: FanIn

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The factor for how much each parameter has grown, and how much deeper its tower is."""
        grown = self.grown(model)
        depths = self._depths(model)
        ends = self._ends(model, depths)
        inits, folds = self.inits_and_folds(model, grown)
        for index, depth in ends.items():
            if self.forward == "folded":
                folds[index] *= depth**-self.alpha
            if self.init == "gpt2" and model.params[index].ndim > 1:
                inits[index] *= depth**0.5
        # The width that gradients depend on: of the readouts, else the most frequent one.
        readouts = [growth.width for growth in grown if growth.kind == "readout"]
        others = [growth.width for growth in grown if growth.infinite]
        width = mode(readouts or others or [1.0])
        deepest = max((depth for depth in depths if depth is not None), default=1.0)
        factors = []
        for growth, in_block, init, fold in zip(grown, depths, inits, folds, strict=True):
            scales = Scales.of_width(growth, "adamw")._replace(eps=1 / width, init=init)
            if in_block is not None:
                scales = scales._replace(
                    lr=scales.lr * in_block ** (self.alpha - 1),
                    eps=scales.eps * in_block**-self.alpha,
                    why=f"in a block, {scales.why}, {in_block:.3g} x as deep",
                )
            elif self.form == "as_released":
                scales = scales._replace(eps=scales.eps * deepest**-self.alpha)
            if fold != 1:
                scales = scales.folded(fold, "adamw")
            factors.append(scales.factor("adamw"))
        return factors

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Those of the indexer."""
        return self.indexer.findings(model)

    def _depths(self, model: ModelInfo) -> list[float | None]:
        """For each parameter in a block, how many times as many blocks there are."""
        layers = layers_of(self.indexer, model)
        ours = _blocks(layers)
        if not ours:
            raise NnlrError(
                f"{self.indexer!r} finds no blocks in {model.label}: complete_p scales with "
                "their number. Pass an indexer that does, or use mup for width alone."
            )
        theirs = self.base_blocks
        if isinstance(theirs, int):
            theirs = dict.fromkeys(ours, theirs)
        if apart := sorted(ours.keys() ^ theirs.keys()):
            raise NnlrError(
                f"Base and {model.label} do not have the same towers of blocks: only one of "
                f"them has {listed(map(repr, apart))}.",
                towers=apart,
            )
        return [
            ours[layer.tower] / theirs[layer.tower]
            if layer is not None and layer.part == "block"
            else None
            for layer in layers
        ]

    def _ends(self, model: ModelInfo, depths: Sequence[float | None]) -> dict[int, float]:
        """The parameters that end residual branches, and the depth ratio of each."""
        if self.residual_out is None:
            needed = self.forward == "folded" or self.init == "gpt2"
            if needed and any(depth not in {None, 1.0} for depth in depths):
                raise _unnamed(model, depths)
            return {}
        what = f"residual_out={self.residual_out!r}"
        ends = {}
        for index in sorted(must_match(self.residual_out, model, what, may_be_optional=False)):
            depth = depths[index]
            if depth is None:
                raise NnlrError(
                    f"{what} matches {model.params[index].name!r}, which is in no block. Name "
                    "only what ends a residual branch inside a block.",
                    name=model.params[index].name,
                )
            refuse_computed(model, index)
            ends[index] = depth
        refuse_halves(model, ends, what)
        counts: Counter[tuple[str, int]] = Counter()
        for index, layer in enumerate(layers_of(self.indexer, model)):
            if layer is not None and layer.part == "block":
                counts[layer.tower, layer.depth] += index in ends
        if bare := [block for block, count in counts.items() if not count]:
            tower, layer_number = bare[0]
            raise NnlrError(
                f"{what} names nothing in {plural(len(bare), 'block')} of {model.label}, such "
                f"as layer {layer_number}{f' of {tower}' if tower else ''}: every residual "
                "branch needs its end named."
            )
        return ends

    def written_as(self) -> Written:
        """The call of :func:`complete_p`."""
        name = repr(self.indexer).removesuffix("()")
        arguments = {
            "base_depth": self.base_blocks if isinstance(self.base_blocks, int) else None,
            "alpha": self.alpha,
            "form": self.form,
            "indexer": name if name in INDEXERS else self.indexer,
            "residual_out": self.residual_out,
            "init": self.init,
            "forward": self.forward,
            "readout_input": self.readout_input,
            "head_growth": self.head_growth or None,
            "fan_in": self.fan_in or None,
        }
        return as_call(complete_p, self.base, **arguments)


def _unnamed(model: ModelInfo, depths: Sequence[float | None]) -> NnlrError:
    """The error that residual_out is needed, with a guess of what it may be."""
    last = {}  # for each part of each block the last weights, by the names of modules alone
    for param, depth in zip(model.params, depths, strict=True):
        if depth is not None and param.ndim > 1:
            above = param.owner.rpartition(".")[0]
            last[above] = f"'*.{param.owner.rpartition('.')[2]}.*'"
    likely = sorted(set(last.values()))
    return NnlrError(
        f"{model.label} has another number of blocks than the base, so that every residual "
        "branch is scaled, x + f(x) / l; this factor goes into the parameters that end the "
        "branches. Name them (weights and biases): residual_out=nnlr.glob(...) | ....\n"
        f"  The last weights of the parts of blocks are {listed(likely)}, by name and order "
        "only: see for yourself which of them f(x) ends with.\n"
        "  If the model multiplies the branches itself, pass forward='in_model'."
    )
