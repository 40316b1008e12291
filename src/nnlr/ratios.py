"""Ratios held from outside, for schedulers that a trainer builds itself.

:func:`nnlr.schedule` keeps ratios by construction. Where a trainer, a learning-rate finder or
weight averaging writes one rate into every group, the group that stands for the base rate
is believed, and the others follow it before each step.
"""

from math import isclose
from warnings import warn

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nnlr.baserate import Group
from nnlr.errors import ConfigError, NnlrError, NnlrWarning, listed, shown
from nnlr.rates import reference_group

# Rates that differ by less are the same rate, computed in another order.
_NOISE = 1e-6


def keep_ratios(optimizer: Optimizer) -> RemovableHandle:
    """Before every step, make each group's rate follow that of the reference group.

    ``group["lr"] = reference["lr"] * group["lr_mult"] / reference["lr_mult"]``. The reference
    is the first group whose ``lr_mult`` is 1, else the one with the largest. Groups without
    ``lr_mult``, such as those that a fine-tuning callback adds, are left alone. What was
    corrected is said once.

    Prefer :func:`nnlr.schedule` where you build the scheduler: it knows the base rate, while
    this has to believe the reference group. Leave it off where groups are given rates of
    their own on purpose.

    Args:
        optimizer: A torch optimizer whose groups carry ``lr_mult``, as those of
            ``plan.optimizer`` do.

    Returns:
        A handle; ``handle.remove()`` ends it. It does not travel with copies and checkpoints
        of the optimizer: call it again on those.

    Raises:
        ConfigError: If no group carries ``lr_mult``, or the optimizer runs no hooks.

    Examples:
        >>> import torch
        >>> tensors = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        >>> groups = [{"params": [p], "lr_mult": m} for p, m in zip(tensors, (1.0, 0.1))]
        >>> optimizer = torch.optim.SGD(groups, lr=0.5)
        >>> handle = keep_ratios(optimizer)
        >>> optimizer.param_groups[1]["lr"] = 0.05
        >>> optimizer.param_groups[0]["lr"] = 0.2  # a scheduler that knows one group only
        >>> import warnings
        >>> with warnings.catch_warnings(action="ignore"):
        ...     optimizer.step()
        >>> round(optimizer.param_groups[1]["lr"], 6)
        0.02
    """
    if not isinstance(optimizer, Optimizer):
        raise NnlrError(f"keep_ratios needs a torch optimizer, got {shown(optimizer)}.")
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise ConfigError(
            f"{type(optimizer).__name__} runs no step hooks. Call keep_ratios on the optimizer "
            "that it wraps, or schedule it with nnlr.schedule."
        )
    _reference(optimizer)
    told = False

    def hold(optimizer: Optimizer, *_: object) -> None:
        nonlocal told
        corrected = _hold(optimizer)
        if corrected and not told:
            told = True
            warn(
                f"The ratios between groups were lost and have been restored: {corrected}. "
                "Something writes one rate into every group; it goes on being corrected, in "
                "silence. Pass the scheduler through nnlr.schedule to end it.",
                NnlrWarning,
                stacklevel=3,
            )

    return optimizer.register_step_pre_hook(hold)


def _reference(optimizer: Optimizer) -> Group:
    reference = reference_group(optimizer.param_groups)
    if reference is None:
        raise ConfigError(
            "No group of the optimizer has an 'lr_mult' above 0, so there are no ratios to "
            "keep. Build it with plan.optimizer, or set group['lr_mult']."
        )
    return reference


def _hold(optimizer: Optimizer) -> str:
    """Write the rates; return what had been lost, or ``""``."""
    reference = _reference(optimizer)
    base = float(reference["lr"]) / reference["lr_mult"]
    lost = []
    for position, group in enumerate(optimizer.param_groups):
        if "lr_mult" not in group:
            continue
        found, wanted = float(group["lr"]), base * group["lr_mult"]
        if isclose(found, wanted, rel_tol=_NOISE):
            continue
        name = group.get("name", f"group {position}")
        lost.append(f"{name} had {found:.7g} instead of {wanted:.7g}")
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(wanted)
        else:
            group["lr"] = wanted
    return listed(lost, limit=3)
