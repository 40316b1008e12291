"""Auto-RGN: the larger the gradient relative to the weights, the faster a tensor learns.

    lr_mult(p) = RGN(p) / max RGN,    RGN(p) = mean over batches of |g_p| / |w_p|

Lee, Chen et al. (2023, arXiv 2210.11466), for fine-tuning on data of another kind.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal

from nnlr._arguments import as_call, choice
from nnlr._declare.factor import Factor
from nnlr._declare.scheme import Scheme
from nnlr._model.describe import ModelInfo
from nnlr.schemes._measured.assign import Assign, nothing
from nnlr.schemes._measured.ends import locked_batch_norms
from nnlr.schemes._measured.units import By

BatchNorm = Literal["lock", "measure"]

BATCH_NORM: Final[Mapping[BatchNorm, Callable[[ModelInfo], Mapping[int, Factor]]]] = {
    "lock": locked_batch_norms,
    "measure": nothing,
}


def auto_rgn(
    every: int | str = "epoch",
    *,
    batches: int = 5,
    by: By = "tensor",
    batch_norm: BatchNorm = "lock",
) -> Scheme:
    """Rates by the relative gradient norm, the largest of which has the base rate.

    It is read from the gradients of training over the first batches of each period, where the
    reference runs five more backward passes; the state of the optimizer is kept, which the
    reference throws away. A tensor of zeros has no relative norm, and stays where it is.
    Reference: arXiv 2210.11466.

    Args:
        every: A period: optimizer steps, or ``"epoch"``, as ended by ``attached.end_epoch()``.
        batches: Steps whose norms are averaged, >= 1.
        by: What moves together: ``"tensor"``, the reference's; with ``"module"`` a bias near zero
            does not take the rates of all others down.
        batch_norm: ``"lock"``: batch norms are not trained, as in the reference. ``"measure"``:
            they are tensors like others.

    Raises:
        NnlrError: If an argument is none of these.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        >>> plan = nnlr.resolve(net, nnlr.auto_rgn(10, batches=1), lr=1e-3, weight_decay=0)
        >>> optimizer = plan.optimizer(torch.optim.AdamW)
        >>> attached = nnlr.attach(optimizer, plan)
        >>> net(torch.randn(8, 4)).square().mean().backward()
        >>> optimizer.step()
        >>> sorted(round(unit.mult, 1) for unit in attached.units)[-1]
        1.0
    """
    fixed = BATCH_NORM[choice(batch_norm, "batch_norm", BATCH_NORM)]
    scheme = Assign.of("rgn", "max", every=every, batches=batches, by=by)
    written = as_call(auto_rgn, every=every, batches=batches, by=by, batch_norm=batch_norm)
    return scheme.published(written, fixed)
