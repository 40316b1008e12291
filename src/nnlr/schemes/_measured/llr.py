"""LLR: heavy-tail guided layer-wise rates for language models.

    lr_mult(l) = 1 + 4 (alpha(l) - min) / (max - min),   5 for embeddings and output layers

"One LR doesn't fit all" (2026, arXiv 2605.22297): TempBalance's exponents, with a line from one
multiplier to the next.
"""

from functools import partial

from nnlr._arguments import number
from nnlr._declare.scheme import Scheme
from nnlr.schemes._measured.assign import by_spectrum
from nnlr.schemes._measured.ends import embeddings_and_heads


def llr(
    mapping: str = "linear(1, 5)",
    *,
    every: int | str = 100,
    ramp: int = 50,
    ends: float = 5.0,
    min_eigenvalues: int = 50,
    max_size: int = 4096,
) -> Scheme:
    """Rates by the spectra of weights, above the base rate of a uniform run.

    Embeddings and output layers have ``ends`` times the base rate from the first step; what has
    no spectrum, norms above all, keeps the base rate, the least that the default mapping gives.
    Each refresh takes the eigenvalues of every matrix: ``attached.seconds`` says how long that
    took, ``max_size`` bounds it. Reference: arXiv 2605.22297, whose results are its authors' own.

    Args:
        mapping: From exponents to multipliers: ``"linear(s1, s2)"``, ``"rank(s1, s2)"``,
            ``"sqrt"``, ``"log2"`` or ``"sigmoid(4)"``.
        every: A period: optimizer steps, or ``"epoch"``, as ended by ``attached.end_epoch()``.
        ramp: Steps of the straight line to the new multipliers, >= 0.
        ends: Multiplier of embeddings and output layers, > 0.
        min_eigenvalues: A module with fewer keeps the base rate, >= 2.
        max_size: A module whose matrix has a longer shorter side keeps it, >= 2.

    Raises:
        ConfigError: If there is no such mapping.
        NnlrError: If another argument is none of these.

    Examples:
        >>> import nnlr
        >>> nnlr.llr(ends=3)
        llr(ends=3.0)
    """
    mult = number(ends, "ends", above=0)
    return by_spectrum(
        llr,
        partial(embeddings_and_heads, mult=mult),
        mapping=mapping,
        every=every,
        ramp=ramp,
        ends=mult,
        min_eigenvalues=min_eigenvalues,
        max_size=max_size,
    )
