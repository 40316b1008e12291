"""Run a copy of a scheduler to its end, to see what it does to the groups."""

import functools
import inspect
import warnings
from collections.abc import Iterable, Iterator
from typing import Final

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler

from nnlr._schedule.rehearsal import Rehearsal, Scheduling, parts_of, position_of

# Steps, times groups, that are run one by one: about a tenth of a second. Where positions can
# be jumped over, fewer will do.
BUDGET: Final = 30_000
_JUMPED: Final = 5_000

# Steps for a scheduler that does not say how long it is.
_OPEN: Final = 100

# Positions that are looked at where steps are skipped.
_SAMPLES: Final = 100

# Steps that a metric goes on being bad without a rate changing.
_PATIENCE: Final = 10

# Attributes that count what was done, not what is to come.
_COUNTERS: Final = frozenset({"last_epoch", "_step_count", "noise_seed", "verbose"})

# Attributes of schedulers that wait before they react to a metric.
_WAITING: Final = ("patience", "cooldown", "warmup")


class WholeRehearsal:
    """A scheduler's copy, which is run as far as it has an effect.

    What is ``shared``, such as the model, is not copied with it.
    """

    def __init__(
        self, scheduler: Scheduling, optimizer: Optimizer, shared: Iterable[object]
    ) -> None:
        # Why it did not come to its end; None if it did, or has not run.
        self.incomplete: str | None = None
        self._again = functools.partial(Rehearsal, scheduler, optimizer, list(shared))
        self._copy = self._again()

    def rates(self) -> Iterator[tuple[int, list[float]]]:
        """The rates of all groups, now and after so many steps more.

        Ends early where the scheduler raises, or cannot be run for so long; see
        :attr:`incomplete`.
        """
        yield 0, self._copy.read()
        try:
            ways = {
                "position": self._by_position,
                "metric": self._by_metric,
                "count": self._by_count,
            }
            for step in ways[self._copy.way]():
                yield step, self._copy.read()
        except Exception as error:  # noqa: BLE001 - anyone's scheduler
            self.incomplete = f"it raised {type(error).__name__}: {error}"

    def _by_position(self) -> Iterator[int]:
        """Step a scheduler that is told the position, as timm's are."""
        end = max(2 * _longest(self._copy.scheduler), _OPEN)
        _drop_patience(self._copy.scheduler)
        for position in _spread(1, end, self._affordable()):  # 0 is where it stands
            self._copy.step(position)
            yield position

    def _by_metric(self) -> Iterator[int]:
        """Step a scheduler that reacts to a metric, until it has no more effect."""
        _drop_patience(self._copy.scheduler)
        before, unchanged = self._copy.read(), 0
        for step in range(1, self._affordable() + 1):
            self._copy.step(step)
            yield step
            now = self._copy.read()
            unchanged = unchanged + 1 if now == before else 0
            before = now
            if unchanged == _PATIENCE:
                return

    def _by_count(self) -> Iterator[int]:
        """Step a scheduler that counts for itself, as torch's do."""
        scheduler = self._copy.scheduler
        end, closed = _horizon(scheduler)
        steps = max(end - position_of(scheduler), 0 if closed else _OPEN)
        can_jump = all(_can_jump(part) for _, part in parts_of(scheduler))
        within = self._affordable(_JUMPED if can_jump else BUDGET)
        jumps = steps > within and can_jump
        for step in range(1, (_OPEN if jumps else min(steps, within)) + 1):
            self._copy.step(step)
            yield step
        if jumps:
            yield from self._jumping()
        elif steps > within:
            self.incomplete = f"{within:,} of {steps:,} steps were run"

    def _jumping(self) -> Iterator[int]:
        """Go to some positions only, each part of a chain by itself."""
        self._copy = self._again()
        done = position_of(self._copy.scheduler)
        for start, part in parts_of(self._copy.scheduler):
            for position in _spread(1, _horizon(part)[0], _SAMPLES):
                with warnings.catch_warnings(action="ignore"):  # positions are deprecated
                    part.step(position)
                yield max(start + position - done, 0)

    def _affordable(self, budget: int = BUDGET) -> int:
        """The number of steps that a budget allows."""
        return max(budget // max(len(self._copy.groups), 1), _OPEN)


def _drop_patience(scheduler: Scheduling) -> None:
    """Make a copy react to each bad metric at once: patience changes when, not what."""
    for holder in (scheduler, getattr(scheduler, "lr_scheduler", None)):
        for name in _WAITING:
            if isinstance(getattr(holder, name, None), int):
                setattr(holder, name, 0)


def has_own_functions(scheduler: Scheduling) -> bool:
    """Whether groups have functions of their own, as ``LambdaLR`` takes in a list."""
    functions = (getattr(part, "lr_lambdas", ()) for _, part in parts_of(scheduler))
    return any(len(set(map(id, lambdas))) > 1 for lambdas in functions)


def is_over(scheduler: Scheduling) -> bool:
    """Whether a scheduler is at the last position that it knows."""
    inner = getattr(scheduler, "scheduler", scheduler)  # of ours
    return 0 < _horizon(inner)[0] <= position_of(inner)


def _can_jump(scheduler: Scheduling) -> bool:
    """Whether ``step(epoch)`` is torch's own, which goes to any position."""
    step = inspect.unwrap(type(scheduler).step)
    return step in (LRScheduler.step, CosineAnnealingWarmRestarts.step)


def _spread(first: int, last: int, most: int) -> Iterator[int]:
    """Positions from first to last, all of them or as many evenly between."""
    if last - first < most:
        yield from range(first, last + 1)
    else:
        for number in range(most):
            yield first + (last - first) * number // (most - 1)


def _horizon(scheduler: Scheduling) -> tuple[int, bool]:
    """The last position that a scheduler knows, and whether it raises beyond."""
    parts = getattr(scheduler, "_schedulers", None)
    if parts:
        ends = [_horizon(part) for part in parts]
        starts = getattr(scheduler, "_milestones", None)
        if starts:
            return starts[-1] + ends[-1][0], ends[-1][1]
        closed = [end for end, closes in ends if closes]
        return (min(closed), True) if closed else (max(end for end, _ in ends), False)
    total = getattr(scheduler, "total_steps", None)
    if isinstance(total, int):
        return total - 1, True
    return _longest(scheduler), False


def _longest(scheduler: Scheduling) -> int:
    """The largest whole number among a scheduler's settings: a length, or a milestone."""
    values = [value for key, value in vars(scheduler).items() if key not in _COUNTERS]
    for function in getattr(scheduler, "lr_lambdas", ()):
        if isinstance(function, functools.partial):
            values += [*function.args, *function.keywords.values()]
    return max((number for value in values for number in _whole(value)), default=0)


def _whole(value: object) -> Iterator[int]:
    """The whole numbers in a setting."""
    if isinstance(value, bool):
        return
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        yield int(value)
    elif isinstance(value, list | tuple | dict):  # of a dict the keys: milestones
        yield from (item for item in value if type(item) is int)
