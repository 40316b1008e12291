"""A new plan for an optimizer that has been training already."""

from torch.optim import Optimizer

from nnlr.live import _give_groups
from nnlr.errors import NnlrError
from nnlr.groups import Locked
from nnlr.names import Source
from nnlr.plan import Plan


def regroup(
    optimizer: Optimizer,
    plan: Plan,
    *,
    model: Source | None = None,
    partial: bool = False,
    locked: Locked = "drop",
    init: str | None = None,
) -> None:
    """Apply a new plan to a live optimizer; what it knows of each parameter stays.

    State follows a parameter's tensor, or its name where the tensor was replaced, and is
    dropped for parameters that the plan locks. Settings the plan does not speak of keep their
    values, also those that the old plan's options gave to all groups; where groups differ,
    they are the optimizer's defaults again. If a scheduler has begun, its progress carries
    over: one of ``nnlr.schedule`` goes on, others are to be built anew, which a warning says.
    ``ReduceLROnPlateau`` and rates set by hand leave no note of that, and the new plan's rates
    replace theirs.

    Args:
        optimizer: The optimizer; it is changed in place, or not at all.
        plan: The new plan.
        model: The model; ``None`` for the one the plan was made for.
        partial: The model is one stage or shard of it.
        locked: As in :meth:`Plan.param_groups`.
        init: As in :meth:`Plan.param_groups`.

    Raises:
        ConfigError: If the optimizer does not fit the plan.
        PlanMismatchError: If the model does not fit the plan.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> head_first = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0), lr=0.1, weight_decay=0)
        >>> optimizer = head_first.optimizer(torch.optim.Adam)
        >>> nnlr.regroup(optimizer, nnlr.resolve(net, lr=0.1, weight_decay=0))
        >>> [len(group["params"]) for group in optimizer.param_groups]
        [4]
    """
    if not isinstance(optimizer, Optimizer):
        raise NnlrError(
            f"regroup needs a torch optimizer, got {type(optimizer).__name__}."
        )
    if not isinstance(plan, Plan):
        raise NnlrError(f"regroup needs a Plan, got {type(plan).__name__}.")
    fit = plan.fit(model, partial=partial, locked=locked, init=init)
    _give_groups(optimizer, fit)
    fit.locks.apply()
