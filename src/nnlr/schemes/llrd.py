"""Layer-wise learning-rate decay: the lower a layer, the slower it learns.

    lr_mult(p) = max(min_mult, decay ** (last - layer(p))) * patch_embed_mult   [patch embedding]

XLNet (Yang et al. 2019, arXiv 1906.08237), ELECTRA (Clark et al. 2020, arXiv 2003.10555),
BEiT (Bao et al. 2021, arXiv 2106.08254). What differs between papers is not the formula but
which layer a parameter belongs to: see :mod:`nnlr.depth`.
"""

from collections.abc import Callable, Mapping, Sequence

from nnlr.depth import Indexer, Layer, as_indexer, with_final_norm
from nnlr.describe import ModelInfo, ParamInfo
from nnlr.layers import FINAL_NORMS, FinalNorm
from nnlr.scheme import Factor, Scheme
from nnlr.select import Selector
from nnlr.values import as_call, choice, number

AnyIndexer = (
    str | Indexer | Callable[[ParamInfo], int | None] | Mapping[str | Selector, int]
)


def layer_decay(
    decay: float,
    indexer: AnyIndexer = "auto",
    *,
    min_mult: float = 0.0,
    final_norm: FinalNorm | None = None,
    patch_embed_mult: float = 1.0,
) -> Scheme:
    """Layer-wise learning-rate decay: ``lr_mult = decay ** (last - layer)``.

    Args:
        decay: Factor from one layer to the next one below, in (0, 1]. 1 changes nothing.
        indexer: Which layer a parameter is in: a name of :data:`nnlr.depth.INDEXERS`, an
            indexer, a function of ``ParamInfo``, or a mapping of patterns to layers.
        min_mult: No layer gets less than this, >= 0.
        final_norm: ``"last_block"`` or ``"head"``: where the norm after the last block
            counts; ``None`` leaves it to the indexer.
        patch_embed_mult: One more factor for the patch embedding, >= 0; DINOv2 uses 0.2.

    Raises:
        NnlrError: If a number is out of range; at resolve, if no depth is found.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> plan = nnlr.resolve(net, layer_decay(0.5), lr=1, weight_decay=0)
        >>> [row.lr for row in plan if row.name.endswith("weight")]
        [0.25, 0.5, 1.0]
    """
    return LayerDecay(
        number(decay, "decay", above=0, maximum=1),
        as_indexer(indexer),
        number(min_mult, "min_mult"),
        None if final_norm is None else choice(final_norm, "final_norm", FINAL_NORMS),
        number(patch_embed_mult, "patch_embed_mult"),
    )


class LayerDecay(Scheme):
    """Layer-wise decay; made by :func:`layer_decay`."""

    def __init__(
        self,
        decay: float,
        indexer: Indexer,
        min_mult: float,
        final_norm: FinalNorm | None,
        patch_embed_mult: float,
    ) -> None:
        self.decay = decay
        self.indexer = indexer
        self.min_mult = min_mult
        self.final_norm = final_norm
        self.patch_embed_mult = patch_embed_mult

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor for each layer of each tower; 1 outside every tower."""
        layers = self.indexer.layers(model)
        if self.final_norm is not None:
            layers = with_final_norm(layers, self.final_norm)
        factor_of = {layer: self._factor(layer) for layer in set(layers)}
        return [factor_of[layer] for layer in layers]

    def _factor(self, layer: Layer | None) -> Factor:
        if layer is None:
            return Factor(why="outside every tower")
        mult = max(self.min_mult, self.decay**layer.below)
        why = f"{self.decay:g}^{layer.below}, {layer}"
        if mult > self.decay**layer.below:
            why += f", not below {self.min_mult:g}"
        if layer.part == "patch_embed" and self.patch_embed_mult != 1:
            mult *= self.patch_embed_mult
            why += f", patch embedding x {self.patch_embed_mult:g}"
        return Factor(lr_mult=mult, why=why, layer=layer)

    def __repr__(self) -> str:
        given = {
            "indexer": repr(self.indexer),
            "min_mult": self.min_mult,
            "final_norm": self.final_norm,
            "patch_embed_mult": self.patch_embed_mult,
        }
        return as_call(layer_decay, self.decay, **given)
