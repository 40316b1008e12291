"""Gradient-norm balancing: the smaller the gradient of a module, the faster it learns.

    lr_mult(u) = (G / r_u)^power, not below least and not above most
    r_u = mean over batches of |g_u| / |w_u|,  G the geometric mean of all r

Under SGD with power 1 all modules then change by the same share of themselves in a step, which
LARS (You et al. 2017, arXiv 1708.03888) does anew at every step. Singh et al. (2015, arXiv
1510.04609) raise the rates of layers with small gradients by another formula.
"""

from nnlr._arguments import as_call, number
from nnlr._declare.scheme import Scheme
from nnlr.schemes._measured.assign import Assign
from nnlr.schemes._measured.units import By


def grad_norm_balance(
    every: int | str = 100,
    *,
    power: float = 1.0,
    least: float = 0.1,
    most: float = 10.0,
    ramp: int = 0,
    batches: int = 5,
    by: By = "module",
) -> Scheme:
    """Rates by the inverse of the relative gradient norm, for SGD.

    Under Adam the size of a step does not depend on the gradient's, and nothing is to be balanced:
    ``plan.optimizer`` refuses torch's classes of that kind. A module whose weights are all zeros
    stays where it is.

    Args:
        every: A period: optimizer steps, or ``"epoch"``, as ended by ``attached.end_epoch()``.
        power: 1 balances wholly, less in part, > 0.
        least: The least multiplier, > 0.
        most: The largest multiplier, at least ``least``.
        ramp: Steps of the straight line to the new multipliers, >= 0.
        batches: Steps whose norms are averaged, >= 1.
        by: What moves together: a ``"tensor"``, a ``"module"``, or a ``"layer"`` by depth.

    Raises:
        NnlrError: If an argument is none of these.

    Examples:
        >>> import nnlr
        >>> nnlr.grad_norm_balance(200, power=0.5)
        grad_norm_balance(every=200, power=0.5)
    """
    numbers = [number(power, "power", above=0), number(least, "least", above=0)]
    numbers.append(number(most, "most", minimum=numbers[1]))
    mapping = f"balance({', '.join(map(repr, numbers))})"
    scheme = Assign.of("rgn", mapping, every=every, ramp=ramp, batches=batches, by=by, update="sgd")
    written = as_call(
        grad_norm_balance,
        every=every,
        power=numbers[0],
        least=numbers[1],
        most=numbers[2],
        ramp=ramp,
        batches=batches,
        by=by,
    )
    return scheme.published(written)
