"""The code that builds a scheduler as it was built, as far as it shows its arguments."""

import inspect
from typing import Final

from torch.optim.lr_scheduler import SequentialLR

from nnlr._checks.subject import is_ours
from nnlr._schedule.rehearsal import Scheduling
from nnlr._schedule.warmup_decay import WarmupDecay

# Arguments that say where to begin, not what to do.
_BEGINNING: Final = ("last_epoch", "initialize")


def class_of(scheduler: object) -> str:
    """The name of a scheduler's class."""
    return type(scheduler).__name__


def call_of(scheduler: Scheduling, name: str = "scheduler") -> str:
    """The call that keeps the ratios, with the user's class and arguments as far as seen.

    ``name`` is what the script calls the scheduler, which some arguments are read from.
    """
    if is_ours(scheduler):
        scheduler = scheduler.scheduler
    if hasattr(scheduler, "_schedulers"):  # no space: code begins behind the last colon and one
        return f"scheduler = nnlr.schedule(optimizer, lambda opt:{_built(scheduler, name)})"
    arguments = [_class(scheduler), *arguments_of(scheduler, name)]
    return f"scheduler = nnlr.schedule(optimizer, {', '.join(arguments)})"


def _class(scheduler: Scheduling) -> str:
    """The code for a scheduler's class; those of others are the user's imports."""
    return f"{'nnlr.' * isinstance(scheduler, WarmupDecay)}{class_of(scheduler)}"


def _built(scheduler: Scheduling, path: str) -> str:
    """The code that builds a scheduler, or a chain of some, on ``opt``."""
    name, parts = _class(scheduler), getattr(scheduler, "_schedulers", None)
    if parts is None:
        return f"{name}({', '.join(['opt', *arguments_of(scheduler, path)])})"
    built = [_built(part, f"{path}._schedulers[{at}]") for at, part in enumerate(parts)]
    if isinstance(scheduler, SequentialLR):
        return f"{name}(opt, [{', '.join(built)}], {scheduler._milestones})"
    return f"{name}([{', '.join(built)}])"


def arguments_of(scheduler: Scheduling, path: str) -> list[str]:
    """The arguments that a scheduler was built with, as code; dots for what it does not show."""
    written, hidden = [], False
    for argument in list(inspect.signature(type(scheduler)).parameters.values())[1:]:
        name = argument.name
        if name in _BEGINNING:
            continue
        if name == "lr_lambda":
            written.append(f"{name}={path}.lr_lambdas[0]")
            continue
        value = _argument(scheduler, name)
        if value is not ...:
            if value != argument.default:
                written.append(f"{name}={value!r}")
        elif argument.default is argument.empty:
            written.append(f"{name}=...")
        else:
            hidden = True  # what else was passed cannot be seen
    return [*written, *(["..."] if hidden else [])]


def _argument(scheduler: Scheduling, name: str) -> object:
    """An argument of a scheduler: its attribute, one for all groups, or a note in the groups."""
    if name in {"warmup", "milestones"} and isinstance(scheduler, WarmupDecay):
        return ...  # it keeps steps, and takes shares
    several = getattr(scheduler, f"{name}s", None)
    groups = getattr(scheduler.optimizer, "param_groups", ())
    for values in (
        [getattr(scheduler, name, ...)],
        several if isinstance(several, list) else [],
        [group.get(name, ...) for group in groups],
    ):
        first = values[0] if values else ...
        is_plain = first is None or isinstance(first, bool | int | float | str | list)
        if is_plain and all(value == first for value in values):
            return first
    return ...
