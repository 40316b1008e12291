"""The ends of epochs, for what moves by them: told by the callbacks of trainers."""

from collections.abc import Iterable, Mapping

from torch.optim import Optimizer

from nnlr._attach.attach import Attachment, attachment_of
from nnlr._plan import Plan
from nnlr._text import listed, nearest_hint, plural, warn
from nnlr.errors import ConfigError, NnlrError
from nnlr.optim._wrapped import unwrapped


def goes_by_epochs(plan: Plan) -> bool:
    """Whether a move of a plan has to be told of the ends of epochs."""
    moves = (step.factor.move for row in plan.rows for step in row.trace)
    return any(move is not None and move.needs_epochs for move in moves)


def attachments(optimizers: Iterable[object]) -> list[Attachment]:
    """Return what moves multipliers of some optimizers; refuse those of which nothing moves."""
    inner = [unwrapped(optimizer) for optimizer in optimizers]
    each = [attachment_of(one) for one in inner if isinstance(one, Optimizer)]
    working = [attachment for attachment in each if attachment is not None]
    if not working:
        raise ConfigError(
            "EpochCallback tells nnlr.attach of epochs, and no optimizer of this trainer is "
            "attached to a plan that moves. Call nnlr.attach(optimizer, plan) where the optimizer "
            "is built (RatioTrainer does, if optimizer(...) made it), or leave the callback out."
        )
    return working


def warn_if_short(working: Iterable[Attachment], epochs: int | None) -> None:
    """Warn of a run that ends before all that waits for an epoch has begun."""
    last = max(mover.move.opens_at for each in working for mover in each._movers)
    if epochs is not None and 0 < epochs <= last:
        warn(
            f"The last phase begins when {plural(last, 'epoch')} "
            f"{'has' if last == 1 else 'have'} ended, and the run has {epochs}: what it opens is "
            "never trained. Train longer, begin phases earlier, or by 'fraction' of the run."
        )


def measured(metrics: Mapping[str, object], name: str) -> float:
    """Return a metric by name, or refuse it with the nearest."""
    if name not in metrics:
        hint = f"{nearest_hint(name, metrics)} There are: {listed(sorted(metrics))}."
        none = "None was: log it in a validation, and let one run in each epoch."
        raise NnlrError(
            f"EpochCallback({name!r}): no metric of that name was measured. "
            + (hint.lstrip() if metrics else none)
        )
    return float(metrics[name])  # type: ignore[arg-type] # a number or a tensor
