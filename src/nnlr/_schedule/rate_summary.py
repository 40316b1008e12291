"""The learning rates of an optimizer in three numbers, and its reference group."""

from collections.abc import Iterable, Sequence
from typing import cast

from torch.optim import Optimizer

from nnlr._schedule.base_rate import Group, as_float
from nnlr._schedule.moved import MOVED
from nnlr._text import shown
from nnlr.errors import NnlrError
from nnlr.optim._members import ALGORITHM
from nnlr.optim._mixed import by_algorithm


def reference_group(groups: Iterable[Group]) -> Group | None:
    """Return the group that has the base rate, or ``None`` if no group has a multiplier.

    It is the first whose ``lr_mult`` is 1, else the one with the largest; of the first of
    several algorithms, and of the groups that do not move if there are such.
    """
    marked = [group for group in groups if group.get("lr_mult")]
    marked = [group for group in marked if MOVED not in group] or marked
    marked = [group for group in marked if group.get(ALGORITHM) == marked[0].get(ALGORITHM)]
    plain = (group for group in marked if group["lr_mult"] == 1)
    largest = max(marked, key=lambda group: float(group["lr_mult"]), default=None)
    return next(plain, largest)


def rate_summary(optimizer: object) -> dict[str, float]:
    """Return the present learning rates of an optimizer in three numbers, for a log.

    Args:
        optimizer: Anything with ``param_groups``: a torch optimizer, or a trainer's wrapper
            around one.

    Returns:
        ``lr``, the rate of the reference group (the first whose ``lr_mult`` is 1, else the one
        with the largest; of the first of several algorithms; without multipliers, the group
        with the largest rate), and
        ``lr_min`` and ``lr_max``, the extremes over the groups whose rate is above 0. If none
        is, as at the start of a warm-up, all three are 0. Of several algorithms ``lr`` is the
        first's, and each has its own as ``lr_muon`` and so on.

    Raises:
        NnlrError: If there are no parameter groups.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Linear(2, 1)
        >>> plan = nnlr.resolve(net, nnlr.rule("bias", lr_mult=2), lr=0.1, weight_decay=0)
        >>> nnlr.rate_summary(plan.optimizer(torch.optim.SGD))
        {'lr': 0.1, 'lr_min': 0.1, 'lr_max': 0.2}
    """
    groups = getattr(optimizer, "param_groups", None)
    if not groups or not isinstance(groups, list):  # a plan has a method of that name
        raise NnlrError(
            f"rate_summary needs an optimizer with parameter groups, got {shown(optimizer)}."
        )
    rates = [as_float(group["lr"]) for group in groups]
    learning = [rate for rate in rates if rate > 0] or [0.0]
    by_name = by_algorithm(cast("Optimizer", optimizer))
    of_each = {name: _reference_rate(members) for name, members in by_name.items() if members}
    first, *others = of_each.values()
    return {
        "lr": first,
        "lr_min": min(learning),
        "lr_max": max(learning),
        **({f"lr_{name}": lr for name, lr in of_each.items()} if others else {}),
    }


def _reference_rate(groups: Sequence[Group]) -> float:
    """Return the rate of the reference group; without multipliers the largest."""
    reference = reference_group(groups)
    if reference is None:
        return max(as_float(group["lr"]) for group in groups)
    return as_float(reference["lr"])
