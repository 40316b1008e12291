"""TempBalance: the lighter the tail of a layer's spectrum, the faster it learns.

    lr_mult(l) = mapping(alpha)(l),   alpha by the Hill estimator, see spectrum

Zhou et al. (NeurIPS 2023, arXiv 2312.00359): a heavy tail, a small alpha, is a layer that is
trained well, and rates are to bring all layers to the same.
"""

from functools import partial

from nnlr._arguments import flag
from nnlr._declare.scheme import Scheme
from nnlr.schemes._measured.assign import by_spectrum
from nnlr.schemes._measured.ends import ends


def temp_balance(
    mapping: str = "linear(0.5, 1.5)",
    *,
    every: int | str = "epoch",
    ramp: int = 0,
    min_eigenvalues: int = 50,
    max_size: int = 4096,
    keep_first: bool = True,
    keep_last: bool = True,
) -> Scheme:
    """Rates by the spectra of weights: what has a light tail learns faster.

    A bias and a batch norm follow their layer. What has no spectrum keeps the base rate: other
    norms, embeddings, small matrices. Each refresh takes the eigenvalues of every matrix:
    ``attached.seconds`` says how long that took, ``max_size`` bounds it. Reference: arXiv
    2312.00359, whose results are its authors' own.

    Args:
        mapping: From exponents to multipliers: ``"linear(s1, s2)"``, ``"rank(s1, s2)"``,
            ``"sqrt"``, ``"log2"`` or ``"sigmoid(4)"``.
        every: A period: optimizer steps, or ``"epoch"``, as ended by ``attached.end_epoch()``.
        ramp: Steps of the straight line to the new multipliers, >= 0.
        min_eigenvalues: A layer with fewer keeps the base rate, >= 2.
        max_size: A layer whose matrix has a longer shorter side keeps the base rate, >= 2.
        keep_first: Whether the first layer with weights keeps the base rate.
        keep_last: Whether the output layer does.

    Raises:
        ConfigError: If there is no such mapping.
        NnlrError: If another argument is none of these.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
        >>> with torch.no_grad():
        ...     net[1].weight *= torch.arange(1, 65)  # rows of different sizes: a heavier tail
        >>> plan = nnlr.resolve(net, nnlr.temp_balance(every=100), lr=0.1, weight_decay=0)
        >>> optimizer = plan.optimizer(torch.optim.SGD)
        >>> attached = nnlr.attach(optimizer, plan)
        >>> optimizer.step()
        >>> {unit.name: unit.mult for unit in attached.units}
        {'1': 0.5, '2': 1.5}
    """
    fixed = partial(ends, first=flag(keep_first, "keep_first"), last=flag(keep_last, "keep_last"))
    return by_spectrum(
        temp_balance,
        fixed,
        mapping=mapping,
        every=every,
        ramp=ramp,
        min_eigenvalues=min_eigenvalues,
        max_size=max_size,
        keep_first=keep_first,
        keep_last=keep_last,
    )
