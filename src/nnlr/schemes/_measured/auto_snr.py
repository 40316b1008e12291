"""Auto-SNR: only tensors whose gradient stands out of its noise learn.

    lr_mult(p) = 1 if SNR(p) >= threshold else 0
    SNR(p) = mean over batches of mean g^2 / (var of g over the first axis + 1e-8)

Lee, Chen et al. (2023, arXiv 2210.11466), after the evidence-based criterion of Mahsereci et al.
(2017, arXiv 1703.09580).
"""

from nnlr._arguments import as_call, choice, number
from nnlr._declare.scheme import Scheme
from nnlr.schemes._measured.assign import Assign
from nnlr.schemes._measured.auto_rgn import BATCH_NORM, BatchNorm
from nnlr.schemes._measured.units import By


def auto_snr(
    every: int | str = "epoch",
    *,
    threshold: float = 0.95,
    batches: int = 5,
    by: By = "tensor",
    batch_norm: BatchNorm = "lock",
) -> Scheme:
    """Rates of 1 or 0 by the signal-to-noise ratio of the gradient.

    As published, the variance is over the first axis of the tensor, not over samples, so that for
    n rows the ratio is about ``(n - 1) / n + mean^2 / var`` wherever gradients are well above
    1e-4: from 20 rows on the threshold of 0.95 is passed by nearly everything else. The output
    layer of fewer than 20 classes never passes it under cross-entropy, whose gradients sum to 0
    over classes: leave its weight out by ``.where(~nnlr.role("head"))``. What is at 0 is measured
    on, with its gradient. Reference: arXiv 2210.11466.

    Args:
        every: A period: optimizer steps, or ``"epoch"``, as ended by ``attached.end_epoch()``.
        threshold: The least ratio that learns.
        batches: Steps whose ratios are averaged, >= 1.
        by: What moves together: ``"tensor"``, the reference's, ``"module"`` or ``"layer"``.
        batch_norm: ``"lock"``: batch norms are not trained, as in the reference. ``"measure"``:
            they are tensors like others.

    Raises:
        NnlrError: If an argument is none of these.

    Examples:
        >>> import nnlr
        >>> nnlr.auto_snr(100, threshold=0.9)
        auto_snr(every=100, threshold=0.9)
    """
    fixed = BATCH_NORM[choice(batch_norm, "batch_norm", BATCH_NORM)]
    least = number(threshold, "threshold")
    mapping = f"threshold({least!r})"
    scheme = Assign.of("snr", mapping, every=every, batches=batches, by=by)
    written = as_call(
        auto_snr, every=every, threshold=least, batches=batches, by=by, batch_norm=batch_norm
    )
    return scheme.published(written, fixed)
