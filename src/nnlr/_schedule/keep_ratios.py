"""Keep ratios between groups under schedulers that a trainer builds itself.

:func:`nnlr.schedule` keeps ratios by construction. Where a trainer, a learning-rate finder or
weight averaging writes one rate into every group, the rate of the reference group is taken as
right, and the other groups are given theirs from it before each step.
"""

from collections.abc import Iterable
from math import isclose, isfinite
from typing import Final

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nnlr._arguments import flag
from nnlr._schedule.base_rate import Group, put, runs_step_hooks
from nnlr._schedule.origin import ORIGIN, bases_of, note_origin
from nnlr._schedule.rate_summary import reference_group
from nnlr._text import listed, shown, warn
from nnlr.errors import ConfigError, NnlrError
from nnlr.optim._members import ALGORITHM
from nnlr.optim._mixed import by_algorithm

# Rates that differ by less (relative) are one rate, computed in another order.
_NOISE: Final = 1e-6

# The attribute by which the hooks of keep_ratios are recognised.
_MARK: Final = "_nnlr_holds_ratios"


def keep_ratios(optimizer: Optimizer, *, correct: bool = True) -> RemovableHandle:
    """Before every step, make each group's rate follow that of the reference group.

    ``group["lr"] = reference["lr"] * group["lr_mult"] / reference["lr_mult"]``. The reference
    is the first group whose ``lr_mult`` is 1, else the one with the largest. Groups without
    ``lr_mult``, such as those that a fine-tuning callback adds, are left alone. What was
    corrected is said once.

    Prefer :func:`nnlr.schedule` where you build the scheduler: it knows the base rate, while
    this has to trust the reference group. Leave it off where groups are given rates of
    their own on purpose.

    Args:
        optimizer: A torch optimizer whose groups carry ``lr_mult``, as those of
            ``plan.optimizer`` do.
        correct: ``False`` only watches: what drifted is said once, and nothing is changed.

    Returns:
        A handle; ``handle.remove()`` ends it. It does not travel with copies and checkpoints
        of the optimizer: call it again on those.

    Raises:
        ConfigError: If no group carries ``lr_mult``, or the optimizer runs no hooks. Later on,
            before the step, if the rate of the reference group or a multiplier is NaN,
            infinite or negative.

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
    if not runs_step_hooks(optimizer):
        raise ConfigError(
            f"{type(optimizer).__name__} runs no step hooks. Call keep_ratios on the optimizer "
            "that it wraps, or schedule it with nnlr.schedule."
        )
    flag(correct, "correct")
    if len(by_algorithm(optimizer)) > 1:
        note_origin(optimizer.param_groups)
    _drifted(optimizer)
    warned = False

    def hold(optimizer: Optimizer, *_: object) -> None:
        nonlocal warned
        if warned and not correct:
            return
        drifted = _drifted(optimizer)
        if drifted and not warned:
            warned = True
            _warn(drifted, corrected=correct)
        if correct:
            put("lr", [(group, due) for group, _name, _rate, due in drifted])

    setattr(hold, _MARK, correct)
    return optimizer.register_step_pre_hook(hold)


def keeps_ratios(optimizer: Optimizer, *, or_watches: bool = False) -> bool:
    """Whether :func:`keep_ratios` corrects the rates of an optimizer before its steps."""
    hooks = getattr(optimizer, "_optimizer_step_pre_hooks", {})
    corrects = [getattr(hook, _MARK) for hook in hooks.values() if hasattr(hook, _MARK)]
    return any(corrects) or (or_watches and bool(corrects))


# A group, its name in messages, the rate that it has and the one that is due.
_Drift = tuple[Group, str, float, float]


def _drifted(optimizer: Optimizer) -> list[_Drift]:
    """Return the groups whose rate has left its ratio to that of the reference group."""
    reference = reference_group(optimizer.param_groups)
    if reference is None:
        raise ConfigError(
            "No group of the optimizer has an 'lr_mult' above 0, so there are no ratios to "
            "keep. Build it with plan.optimizer, or set group['lr_mult']."
        )
    base = float(reference["lr"]) / float(reference["lr_mult"])
    ratios = _ratios(optimizer.param_groups, reference)
    drifted: list[_Drift] = []
    for position, group in enumerate(optimizer.param_groups):
        if "lr_mult" in group:
            ratio = ratios.get(group.get(ALGORITHM), 1.0)
            rate, due = float(group["lr"]), base * ratio * float(group["lr_mult"])
            if not (isfinite(due) and due >= 0):
                raise ConfigError(
                    f"The lr of {group.get('name', f'group {position}')} would be {due:g}: the "
                    f"rate of the reference group is {float(reference['lr']):g}, and the lr_mult "
                    f"{float(group['lr_mult']):g}. Both have to be finite and not negative; "
                    "nothing was changed."
                )
            if not isclose(rate, due, rel_tol=_NOISE):
                drifted.append((group, group.get("name", f"group {position}"), rate, due))
    return drifted


def _ratios(groups: Iterable[Group], reference: Group) -> dict[str | None, float]:
    """Return the base rate of each of several algorithms, as built, over the reference's."""
    bases = bases_of(group.get(ORIGIN, {}) for group in groups)
    first = bases.get((reference.get(ALGORITHM), "lr"))
    return {name: base / first for (name, key), base in bases.items() if first and key == "lr"}


def _warn(drifted: Iterable[_Drift], *, corrected: bool) -> None:
    """Warn once about the groups that have left their ratio."""
    groups = listed(
        [f"{name} had {rate:.7g} instead of {due:.7g}" for _, name, rate, due in drifted], limit=3
    )
    if corrected:
        warn(
            f"The ratios between groups were lost and have been restored: {groups}. "
            "Something writes one rate into every group; it goes on being corrected, in "
            "silence. Pass the scheduler through nnlr.schedule to end it."
        )
    else:
        warn(
            f"The ratios between groups are lost: {groups}. Something writes one rate into "
            "every group; nothing was changed, and this is not said again. Pass the scheduler "
            "through nnlr.schedule, or let keep_ratios correct it."
        )
