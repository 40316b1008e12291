"""Blockwise learning rates: what is less sharp learns faster. Experimental.

    lr_mult(p) = ratio of the kind of block that p is in
    norm 1, value and output 4, feed-forward 6, query and key 8, embedding 10

Wang et al. 2025, "The Sharpness Disparity Principle in Transformers", arXiv 2502.19002. The
authors measured the mean curvature of these five kinds in language models and found the
order embedding << query, key < feed-forward < value, output << norm, from early in training
to the end; the ratios are what they then tuned by hand.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from nnlr._arguments import as_call, choice, number
from nnlr._declare.factor import Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note
from nnlr._model.describe import ModelInfo
from nnlr._select.selectors import Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import shown
from nnlr.errors import NnlrError, PatternError
from nnlr.schemes._transformer_blocks import BLOCKS, OF_ATTENTION, Block, classify

# Words for the trace.
_WHY: Final[Mapping[Block, str]] = {
    "embedding": "embedding",
    "position": "position embedding",
    "qk": "query and key",
    "vo": "value and output",
    "fused": "query, key and value in one",
    "ffn": "feed-forward",
    "norm": "norm",
    "head": "output layer",
    "other": "no block that blockwise knows",
}

# Findings: a short name, the cause and the fix.
_EXPERIMENTAL: Final = (
    "blockwise-experimental",
    (
        "blockwise rates are experimental: their authors report nearly 2x faster training "
        "(arXiv 2502.19002), others a worse result than with one rate (arXiv 2605.22297)"
    ),
    "Tune the uniform rate first, and compare with it.",
)

_FUSED: Final = (
    "blockwise-fused",
    "query, key and value in one tensor can have one rate only, which is the ratio fused",
    "Split the projection if each is to have its own.",
)

_OTHER: Final = (
    "blockwise-other",
    "of no kind of block that blockwise knows, so these keep the base rate",
    "Name their kind with blocks={pattern: kind} if they have one.",
)


def blockwise(
    *,
    embedding: float = 10.0,
    qk: float = 8.0,
    ffn: float = 6.0,
    vo: float = 4.0,
    norm: float = 1.0,
    fused: float | None = None,
    head: float = 1.0,
    position: float = 1.0,
    blocks: Mapping[str | Selector, Block] | None = None,
) -> Scheme:
    """Blockwise learning rates of transformers, by sharpness. Experimental.

    ``lr_mult`` is the ratio of the kind of block; biases go with their layer. The base rate
    is that of the norms, the sharpest: the one that a uniform AdamW was tuned to.

    The authors report lower losses than AdamW on GPT-2 and LLaMA of 0.12B to 2B parameters,
    "nearly 2x" faster. A paper on a competing method (arXiv 2605.22297) finds it worse than
    a uniform rate: perplexity 23.28 against 21.94 at 60M, 18.54 against 17.86 at 135M, 14.91
    against 12.96 at 350M. Compare with a tuned uniform rate before you rely on it.

    Args:
        embedding: Ratio of token embeddings, >= 0. A tied output layer gets it too, as in
            the authors' GPT-2.
        qk: Ratio of query and key projections, >= 0.
        ffn: Ratio of feed-forward matrices, experts included, >= 0.
        vo: Ratio of value and output projections, >= 0.
        norm: Ratio of normalisation layers, >= 0. The authors found it best not raised.
        fused: Ratio of a tensor that holds query, key and value at once, >= 0. ``None`` is
            the smaller of ``qk`` and ``vo``, which no part of the tensor is too sharp for;
            the authors split such tensors.
        head: Ratio of an output layer of its own, >= 0. The authors' code leaves it at the
            base rate unless told; the paper above used 10.
        position: Ratio of position embeddings, >= 0; likewise.
        blocks: Patterns or selectors -> kind of block, where the names of the model say too
            little; the first that matches counts. Kinds are the ratios above, and
            ``"other"``, which gets 1.

    Raises:
        NnlrError: If a ratio is out of range or a kind unknown; at resolve, if no attention is
            found.
        PatternError: At resolve, if an entry of ``blocks`` matches nothing, or nothing that
            earlier ones have left.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16)
        >>> plan = nnlr.resolve(layer, blockwise(), lr=1e-3, weight_decay=0)
        >>> for name in ("self_attn.in_proj_weight", "linear1.weight", "norm1.weight"):
        ...     print(name, plan[name].lr_mult)
        self_attn.in_proj_weight 4.0
        linear1.weight 6.0
        norm1.weight 1.0
    """
    ratios: dict[Block, float] = {
        "embedding": number(embedding, "embedding"),
        "qk": number(qk, "qk"),
        "ffn": number(ffn, "ffn"),
        "vo": number(vo, "vo"),
        "norm": number(norm, "norm"),
        "head": number(head, "head"),
        "position": number(position, "position"),
    }
    split = min(ratios["qk"], ratios["vo"])
    ratios["fused"] = split if fused is None else number(fused, "fused")
    if not isinstance(blocks, Mapping | None):
        raise NnlrError(
            "blocks must be a mapping such as {'*.mixer.*': 'ffn'}, got "
            f"{shown(blocks, typed=True)}."
        )
    named = {
        as_selector(chosen, "blocks"): choice(block, f"blocks[{chosen!r}]", BLOCKS)
        for chosen, block in (blocks or {}).items()
    }
    return Blockwise(ratios, named, fused)


class Blockwise(Scheme):
    """Rates by kind of block; made by :func:`blockwise`."""

    def __init__(
        self,
        ratios: Mapping[Block, float],
        named: Mapping[Selector, Block],
        fused: float | None,
    ) -> None:
        self.ratios = ratios
        self.named = named
        self.fused = fused

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor for each kind of block."""
        found = self.blocks(model)
        if not OF_ATTENTION & set(found):
            raise NnlrError(
                f"{self!r} finds no attention in {model.label}: its ratios are for "
                "transformers. If it is one, name the parts: "
                "blocks={'*.my_query.*': 'qk', ...}.",
            )
        factor_of = {
            block: Factor(lr_mult=self.ratios.get(block, 1.0), why=_WHY[block])
            for block in set(found)
        }
        return [factor_of[block] for block in found]

    def blocks(self, model: ModelInfo) -> list[Block]:
        """The kind of block of each parameter."""
        found = classify(model)
        settled: set[int] = set()
        for selector, block in self.named.items():
            what = f"blocks[{selector!r}]"
            chosen = must_match(selector, model, what, may_be_optional=False)
            if chosen <= settled:
                raise PatternError(
                    f"{what} has no effect: earlier entries took all that it matches.\n"
                    "  Move it up, or narrow these.",
                    pattern=repr(selector),
                    nearest=[],
                )
            for index in chosen - settled:
                found[index] = block
            settled |= chosen
        return found

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """That it is experimental; what is fused; what is no block of the paper's."""
        blocks = list(zip(model.params, self.blocks(model), strict=True))
        trained = [(p.name, block) for p, block in blocks if p.requires_grad]
        concerned = (
            ([p.name for p, block in blocks if block in OF_ATTENTION], _EXPERIMENTAL),
            ([name for name, block in trained if block == "fused"], _FUSED),
            ([name for name, block in trained if block == "other"], _OTHER),
        )
        return [note(kind, at, cause=cause, fix=fix) for at, (kind, cause, fix) in concerned if at]

    def __repr__(self) -> str:
        given = {block: ratio for block, ratio in self.ratios.items() if block != "fused"}
        named = dict(self.named) or None
        return as_call(blockwise, **given, fused=self.fused, blocks=named)
