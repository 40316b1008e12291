"""AlphaDecay: the lighter the tail of a module's spectrum, the stronger its weight decay.

    wd_mult(l) = mapping(alpha)(l),   alpha by the Hill estimator, see spectrum

He et al. (2025, arXiv 2506.14562), for language models.
"""

from functools import partial

from nnlr._arguments import flag
from nnlr._declare.scheme import Scheme
from nnlr.schemes._measured.assign import by_spectrum
from nnlr.schemes._measured.ends import ends


def alpha_decay(
    mapping: str = "linear(0.6666, 3)",
    *,
    every: int | str = 500,
    ramp: int = 0,
    min_eigenvalues: int = 50,
    max_size: int = 4096,
    keep_first: bool = True,
    keep_last: bool = True,
) -> Scheme:
    """Weight decay by the spectra of weights: modules with light tails decay more.

    A bias and a batch norm follow their layer. What has no spectrum keeps the base decay. Each
    refresh takes the eigenvalues of every matrix: ``attached.seconds`` says how long that took,
    ``max_size`` bounds it. Reference: arXiv 2506.14562, whose results are its authors' own.

    Args:
        mapping: From exponents to multipliers: ``"linear(s1, s2)"``, ``"rank(s1, s2)"``,
            ``"sqrt"``, ``"log2"`` or ``"sigmoid(4)"``.
        every: A period: optimizer steps, or ``"epoch"``, as ended by ``attached.end_epoch()``.
        ramp: Steps of the straight line to the new multipliers, >= 0.
        min_eigenvalues: A module with fewer keeps the base decay, >= 2.
        max_size: A module whose matrix has a longer shorter side keeps it, >= 2.
        keep_first: Whether the first layer with weights, or an embedding, keeps it.
        keep_last: Whether the output layer does.

    Raises:
        ConfigError: If there is no such mapping.
        NnlrError: If another argument is none of these.

    Examples:
        >>> import nnlr
        >>> nnlr.alpha_decay(every=1000)
        alpha_decay(every=1000)
    """
    fixed = partial(ends, first=flag(keep_first, "keep_first"), last=flag(keep_last, "keep_last"))
    return by_spectrum(
        alpha_decay,
        fixed,
        setting="weight_decay",
        mapping=mapping,
        every=every,
        ramp=ramp,
        min_eigenvalues=min_eigenvalues,
        max_size=max_size,
        keep_first=keep_first,
        keep_last=keep_last,
    )
