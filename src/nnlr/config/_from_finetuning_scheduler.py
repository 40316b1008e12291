"""A schedule of finetuning-scheduler as a scheme: phases with their parameters, rates and ends."""

import os
from collections.abc import Mapping
from typing import Any, Final

from nnlr._arguments import flag, number, whole
from nnlr._declare.scheme import Scheme
from nnlr._select.name_or_start import name_or_start
from nnlr._text import warn
from nnlr.config._at import At, root
from nnlr.config._plain import plain
from nnlr.config._read import read
from nnlr.config._scheme import attempt
from nnlr.schemes._phases.move import Mode
from nnlr.schemes._phases.phase import Phase
from nnlr.schemes._unfreeze import BatchNorm, unfreeze

_KEYS: Final = ("params", "lr", "max_transition_epoch", "new_lr_scheduler", "new_optimizer")

_ELSEWHERE: Final = {
    "new_lr_scheduler": "a scheme has no schedules. When the phase begins, call "
    "nnlr.schedule(optimizer, ...) again: a new schedule is a new course",
    "new_optimizer": "an optimizer is no part of a scheme. When the phase begins, build one from "
    "the plan and attach it",
}


def from_finetuning_scheduler(
    ft_schedule: str | os.PathLike[str] | Mapping[Any, Any],
    *,
    base_max_lr: float | None = 1e-5,
    max_depth: int = -1,
    epoch_transitions_only: bool = False,
    restore_best: bool = True,
    patience: int = 3,
    min_delta: float = 0.0,
    mode: Mode = "min",
    batch_norm: BatchNorm = "train",
) -> Scheme:
    """The scheme of a fine-tuning schedule of finetuning-scheduler: :func:`nnlr.unfreeze`.

    The same parameters are trained in the same epochs from the same rates. As there, entries of
    ``params`` are names or expressions that names of the whole module begin with, parameters in no
    phase stay frozen, and a rate of phase 0 does not count, with a warning.

    Args:
        ft_schedule: The path of a YAML or JSON file, or its contents. So are the next four
            arguments of ``FinetuningScheduler``.
        base_max_lr: The rate of phases after the first without an ``lr``, > 0; ``None`` for the
            base rate.
        max_depth: The last phase that begins; -1 for all.
        epoch_transitions_only: Phases end at their ``max_transition_epoch`` alone, and no metric is
            followed.
        restore_best: Begin phases from the weights at which the metric was best.
        patience: How many epochs without progress end a phase, as in ``FTSEarlyStopping``; so are
            the next two.
        min_delta: By how much the metric has to be better.
        mode: Whether it is better if it is ``"min"`` or ``"max"``.
        batch_norm: As in :func:`nnlr.unfreeze`; there, statistics of what waits run by default.

    Raises:
        ConfigError: If it is no such schedule, with the path of the key and the nearest valid one;
            or if it says what no scheme can, such as ``new_lr_scheduler``.

    Examples:
        >>> import nnlr
        >>> schedule = {
        ...     0: {"params": ["head.weight", "head.bias"], "max_transition_epoch": 2},
        ...     1: {"params": ["body"], "lr": 0.001},
        ... }
        >>> scheme = from_finetuning_scheduler(schedule, epoch_transitions_only=True)
        >>> nnlr.config.dump(scheme)["unfreeze"]["phases"][1]
        {'train': {'name_or_start': 'body'}, 'epoch': 2, 'lr': 0.001}
    """
    at = root("ft_schedule", (), ft_schedule)
    is_file = isinstance(ft_schedule, str | os.PathLike)
    data = read(ft_schedule, at) if is_file else plain(ft_schedule, at)  # type: ignore[arg-type]
    flag(epoch_transitions_only, "epoch_transitions_only")
    if base_max_lr is not None:
        number(base_max_lr, "base_max_lr", above=0)
    entries = _in_order(data, at)
    if whole(max_depth, "max_depth", minimum=-1) >= 0:
        entries = entries[: max_depth + 1]
    phases: list[Phase] = []
    began = 0
    for depth, entry in enumerate(entries):
        place = at / depth
        phase: Phase = {"train": attempt(place / "params", name_or_start, *entry["params"])}
        if depth:
            end = entries[depth - 1].get("max_transition_epoch", -1)
            if end >= 0:
                # One phase at most begins in an epoch.
                began = max(end, began + 1)
                phase["epoch"] = began
            elif epoch_transitions_only:
                (at / (depth - 1)).refuse(
                    "needs 'max_transition_epoch', as epoch_transitions_only is set."
                )
            lr = entry.get("lr", base_max_lr)
            if lr is not None:
                phase["lr"] = _rate(lr, place / "lr")
        elif entry.get("lr") is not None:
            warn(
                f"{place / 'lr'}: the rate of phase 0 is not read, as in finetuning-scheduler: "
                "it is the base rate, nnlr.resolve(..., lr=...)."
            )
        phases.append(phase)
    scheme: Scheme = attempt(
        at,
        unfreeze,
        phases,
        patience=None if epoch_transitions_only else max(1, whole(patience, "patience", minimum=0)),
        min_delta=min_delta,
        mode=mode,
        rest="frozen",
        batch_norm=batch_norm,
        restore_best=restore_best,
    )
    return scheme


def _in_order(data: object, at: At) -> list[dict[str, Any]]:
    """The phases of a schedule in their order, with keys that are known."""
    if not isinstance(data, dict) or not data:
        at.refuse("a schedule maps numbers of phases, from 0 on, to their parameters.")
    by_depth: dict[int, Any] = {}
    for key, entry in data.items():
        if not str(key).isdecimal():
            at.refuse(f"the key {key!r} is no number of a phase: 0, 1, 2, ...", key=key)
        by_depth[int(key)] = entry
    if sorted(by_depth) != list(range(len(by_depth))):
        at.refuse(f"phases are counted from 0 without gaps, got {sorted(by_depth)}.")
    return [_checked(by_depth[depth], at / depth) for depth in range(len(by_depth))]


def _checked(entry: object, at: At) -> dict[str, Any]:
    """A phase whose keys are known, and whose parameters are a list of texts."""
    if not isinstance(entry, dict):
        at.refuse("a phase is a mapping such as {params: [head.weight, head.bias]}.")
    for key, value in entry.items():
        if key not in _KEYS:
            at.refuse_key(key, "a phase has no", _KEYS)
        if key in _ELSEWHERE and value:
            (at / key).refuse(f"{_ELSEWHERE[key]}; and take the key out.")
    params = entry.get("params")
    if not isinstance(params, list) or not params or not all(isinstance(p, str) for p in params):
        at.refuse("needs 'params', a list of names or regular expressions.")
    end = entry.get("max_transition_epoch", -1)
    if isinstance(end, bool) or not isinstance(end, int) or end == 0:
        (at / "max_transition_epoch").refuse("must be a whole number of epochs >= 1, or -1.")
    return entry


def _rate(value: object, at: At) -> float:
    """A rate, which YAML may have taken for text."""
    try:
        return number(float(value), "lr", above=0)  # type: ignore[arg-type] # if it is none
    except (TypeError, ValueError):
        at.refuse(f"must be a number > 0, got {value!r}.")
