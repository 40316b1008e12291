"""Layer-wise learning-rate decay: the lower a layer, the slower it learns.

    lr_mult(p) = max(min_mult, decay ** (last - layer(p)))
                 * patch_embed_mult                          [patch embedding]
                 * 0, locked                                 [where less than lock_below]

XLNet (Yang et al. 2019, arXiv 1906.08237), ELECTRA (Clark et al. 2020, arXiv 2003.10555),
BEiT (Bao et al. 2021, arXiv 2106.08254). What differs between papers is not the formula but
which layer a parameter belongs to: see :mod:`nnlr.depth`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from nnlr._arguments import Written, as_call, choice, number
from nnlr._declare.factor import Factor, Step, Trace
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._select.selector import Selector
from nnlr._text import plural
from nnlr.depth._given import as_indexer, written_indexer
from nnlr.depth._layer import (
    FINAL_NORMS,
    FinalNorm,
    Indexer,
    Layer,
    Layers,
    layers_of,
    with_final_norm,
)
from nnlr.errors import NnlrError

AnyIndexer = str | Indexer | Callable[[ParamInfo], int | None] | Mapping[str | Selector, int]


def layer_decay(
    decay: float,
    indexer: AnyIndexer = "auto",
    *,
    min_mult: float = 0.0,
    final_norm: FinalNorm | None = None,
    patch_embed_mult: float = 1.0,
    lock_below: float = 0.0,
) -> Scheme:
    """Layer-wise learning-rate decay: ``lr_mult = decay ** (last - layer)``.

    ``last`` is the number of the top layer. Published values of ``decay`` lie between 0.65
    (BEiT, MAE) and 0.9 for most models; none is given by default, as the right one depends
    on model and data. References: arXiv 1906.08237 (XLNet), 2003.10555 (ELECTRA),
    2106.08254 (BEiT).

    Args:
        decay: Factor from one layer to the next one below, in (0, 1]. 1 changes nothing.
        indexer: Which layer a parameter is in: a name of :data:`nnlr.depth.INDEXERS`, an
            indexer, a function of ``ParamInfo``, or a mapping of patterns to layers.
        min_mult: No layer gets less than this, in [0, 1]; timm's ``min_scale``.
        final_norm: ``"last_block"`` or ``"head"``: where the norm after the last block
            counts; ``None`` leaves it to the indexer.
        patch_embed_mult: One more factor for the patch embedding, > 0; DINOv2 uses 0.2.
        lock_below: Lock what would get less than this, in [0, 1]: no gradient and no
            optimizer state (timm's ``no_opt_scale``). 0 locks nothing.

    Raises:
        NnlrError: If a number is out of range; at resolve, if no depth is found, or a layer
            is so far down that nothing is left of its rate in a float.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> scheme = layer_decay(0.5, lambda p: int(p.name.split(".")[0]))
        >>> plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
        >>> [row.lr for row in plan if row.name.endswith("weight")]
        [0.25, 0.5, 1.0]
    """
    scheme = LayerDecay(
        number(decay, "decay", above=0, maximum=1),
        as_indexer(indexer),
        min_mult=number(min_mult, "min_mult", maximum=1),
        final_norm=final_norm
        if final_norm is None
        else choice(final_norm, "final_norm", FINAL_NORMS),
        patch_embed_mult=number(patch_embed_mult, "patch_embed_mult", above=0),
        lock_below=number(lock_below, "lock_below", maximum=1),
    )
    least = scheme.min_mult * min(1.0, scheme.patch_embed_mult)
    if 0 < scheme.lock_below <= least:
        raise NnlrError(
            f"lock_below={scheme.lock_below:g} can lock nothing: min_mult lets no multiplier "
            f"fall below {least:g}. Leave one of them out.",
            value=scheme.lock_below,
        )
    return scheme


@dataclass(frozen=True, repr=False, eq=False)
class LayerDecay(Scheme):
    """Layer-wise decay; made by :func:`layer_decay`."""

    decay: float
    indexer: Indexer
    _: KW_ONLY
    min_mult: float
    final_norm: FinalNorm | None
    patch_embed_mult: float
    lock_below: float

    def layers(self, model: ModelInfo) -> Layers:
        """The layer of every parameter, with the final norm where it was asked for."""
        layers = layers_of(self.indexer, model)
        if self.final_norm is None:
            return layers
        return with_final_norm(layers, self.final_norm)

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor for each layer of each tower; 1 outside every tower."""
        layers = self.layers(model)
        basis = self.indexer.basis(model)
        factor_of = {layer: self._factor(layer, basis) for layer in set(layers)}
        return [factor_of[layer] for layer in layers]

    def _factor(self, layer: Layer | None, basis: str) -> Factor:
        if layer is None:
            return Factor(why="outside every tower")
        mult = self.decay**layer.below
        why = f"{self.decay:g}^{layer.below}, {layer}{basis and f' {basis}'}"
        if mult < self.min_mult:
            mult = self.min_mult
            why += f", not below {self.min_mult:g}"
        if layer.part == "patch_embed" and self.patch_embed_mult != 1:
            mult *= self.patch_embed_mult
            why += f", patch embedding x {self.patch_embed_mult:g}"
        if not mult:  # 0 would lock the layer, and nobody asked for that
            raise NnlrError(
                f"{self!r} gives {layer} a multiplier of 0 in a float: {why}. Bring decay "
                "nearer to 1, or set min_mult.",
                value=self.decay,
            )
        return Factor(lr_mult=mult, why=why, layer=layer)

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """The factors, and a second one of 0 for what is locked.

        Two, so that what is unlocked later learns at the rate of its layer.
        """
        traces = super().steps(model)
        why = f"locked: less than {self.lock_below:g}"
        lock = Step(repr(self), Factor(lr_mult=0, why=why))
        return {
            index: trace if trace[0].factor.lr_mult >= self.lock_below else (*trace, lock)
            for index, trace in traces.items()
        }

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """The indexer's; arguments for a part that it finds nowhere; parameters in no layer."""
        layers = self.layers(model)
        parts = {layer.part for layer in layers if layer}
        findings = [*self.indexer.findings(model)]
        findings += [
            warning(
                "layer-decay-without-effect",
                (),
                f"{self.indexer!r} knows no {part.replace('_', ' ')} in this model, so "
                f"{argument} of layer_decay has no effect",
                "Leave it out, or write a rule for these parameters.",
            )
            for argument, part, is_set in (
                ("final_norm", "final_norm", self.final_norm is not None),
                ("patch_embed_mult", "patch_embed", self.patch_embed_mult != 1),
            )
            if is_set and part not in parts
        ]
        pairs = zip(model.params, layers, strict=True)
        outside = [param.name for param, layer in pairs if layer is None]
        if outside:
            findings.append(
                note(
                    "layer-decay-outside",
                    outside,
                    f"{self.indexer!r} finds no layer for {plural(len(outside), 'parameter')}, so "
                    "layer_decay leaves the learning rate there as it is",
                    "If they belong to a layer, say so with a mapping of patterns to layers.",
                )
            )
        return findings

    def written_as(self) -> Written:
        """The call of :func:`layer_decay`."""
        return as_call(
            layer_decay,
            self.decay,
            indexer=written_indexer(self.indexer),
            min_mult=self.min_mult,
            final_norm=self.final_norm,
            patch_embed_mult=self.patch_embed_mult,
            lock_below=self.lock_below,
        )
