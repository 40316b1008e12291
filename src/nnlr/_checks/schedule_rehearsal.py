"""Run a copy of a scheduler to its end, on groups that hold no parameters.

The name of a scheduler does not tell what it does to the groups, and anyone may write one. The
copy works on a stand-in for the optimizer, with the settings of the real groups and an empty
tensor in each; the real ones are not touched.
"""

import copy
import functools
import inspect
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Final

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler

from nnlr._checks.subject import Scheduling
from nnlr._schedule.base_rate import Proxy, as_float
from nnlr._schedule.origin import ORIGIN

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


class Rehearsal:
    """A scheduler's copy and the groups that it writes into.

    What is ``shared``, such as the model, is not copied with it.
    """

    def __init__(
        self, scheduler: Scheduling, optimizer: Optimizer, shared: Iterable[object]
    ) -> None:
        # Why it did not come to its end; None if it did, or has not run.
        self.incomplete: str | None = None
        self._real = scheduler
        self._optimizer = optimizer
        self._shared = {id(value): value for value in shared}
        self._copy, self._groups = self._copied(scheduler)

    def _copied(self, scheduler: Scheduling) -> tuple[Scheduling, list[dict[str, Any]]]:
        """A copy of the scheduler on a stand-in for the optimizer, and its groups."""
        settings = copy.deepcopy(
            [
                {k: v for k, v in group.items() if k not in ("params", "param_names", ORIGIN)}
                for group in self._optimizer.param_groups
            ],
            dict(self._shared),
        )
        stand_in = Proxy(
            [{**group, "params": [torch.zeros(0, device="cpu")]} for group in settings],
            copy.deepcopy(self._optimizer.defaults),
        )
        copies = {  # deepcopy takes these as copied already
            **self._shared,
            id(self._optimizer): stand_in,
            id(self._optimizer.param_groups): stand_in.param_groups,
            id(scheduler.optimizer): stand_in,
        }
        return copy.deepcopy(scheduler, copies), stand_in.param_groups

    def rates(self) -> Iterator[tuple[int, list[float]]]:
        """The rates of all groups, now and after so many steps more.

        Ends early where the scheduler raises, or cannot be run for so long; see
        :attr:`incomplete`.
        """
        yield 0, self._read()
        try:
            for step in self._walk():
                yield step, self._read()
        except Exception as error:  # noqa: BLE001 - anyone's scheduler
            self.incomplete = f"it raised {type(error).__name__}: {error}"

    def _read(self) -> list[float]:
        """The present rates of the stand-in's groups."""
        return [float(as_float(group["lr"])) for group in self._groups]

    def _walk(self) -> Iterator[int]:
        """Step the copy, in the way that its ``step`` asks for."""
        required = [
            argument.name
            for argument in inspect.signature(self._copy.step).parameters.values()
            if argument.default is argument.empty
            and argument.kind is argument.POSITIONAL_OR_KEYWORD
        ]
        if required == ["epoch"]:
            return self._by_position()
        if len(required) == 1:
            return self._by_metric()
        if not required:
            return self._by_steps()
        raise TypeError(f"its step takes {', '.join(required)}")

    def _by_position(self) -> Iterator[int]:
        """Step a scheduler that is told the position, as timm's are."""
        end = max(2 * _longest(self._copy), _OPEN)
        _drop_patience(self._copy)
        update = getattr(self._copy, "step_update", None)
        metric = "metric" in inspect.signature(self._copy.step).parameters
        for position in _spread(1, end, self._affordable()):  # 0 is where it stands
            self._copy.step(position, **({"metric": _bad(self._copy)} if metric else {}))
            if update is not None:
                update(position)
            yield position

    def _by_metric(self) -> Iterator[int]:
        """Step a scheduler that reacts to a metric, until it has no more effect."""
        _drop_patience(self._copy)
        metric, before, unchanged = _bad(self._copy), self._read(), 0
        for step in range(1, self._affordable() + 1):
            self._copy.step(metric)
            yield step
            now = self._read()
            unchanged = unchanged + 1 if now == before else 0
            before = now
            if unchanged == _PATIENCE:
                return

    def _by_steps(self) -> Iterator[int]:
        """Step a scheduler that counts for itself, as torch's do."""
        end, closed = _horizon(self._copy)
        steps = max(end - _done(self._copy), 0 if closed else _OPEN)
        can_jump = all(_can_jump(part) for _, part in _started(self._copy))
        within = self._affordable(_JUMPED if can_jump else BUDGET)
        jumps = steps > within and can_jump
        for step in range(1, (_OPEN if jumps else min(steps, within)) + 1):
            self._copy.step()
            yield step
        if jumps:
            yield from self._jumping()
        elif steps > within:
            self.incomplete = f"{within:,} of {steps:,} steps were run"

    def _jumping(self) -> Iterator[int]:
        """Go to some positions only, each part of a chain by itself."""
        self._copy, self._groups = self._copied(self._real)
        done = _done(self._copy)
        for start, part in _started(self._copy):
            for position in _spread(1, _horizon(part)[0], _SAMPLES):
                with warnings.catch_warnings(action="ignore"):  # positions are deprecated
                    part.step(position)
                yield max(start + position - done, 0)

    def _affordable(self, budget: int = BUDGET) -> int:
        """The number of steps that a budget allows."""
        return max(budget // max(len(self._groups), 1), _OPEN)


def _drop_patience(scheduler: Scheduling) -> None:
    """Make a copy react to each bad metric at once: patience changes when, not what."""
    for holder in (scheduler, getattr(scheduler, "lr_scheduler", None)):
        for name in _WAITING:
            if isinstance(getattr(holder, name, None), int):
                setattr(holder, name, 0)


def _bad(scheduler: Scheduling) -> float:
    """A metric that never improves."""
    inner = getattr(scheduler, "lr_scheduler", scheduler)
    return 0.0 if getattr(inner, "mode", "min") == "max" else 1e30


def _started(scheduler: Scheduling, start: int = 0) -> Iterator[tuple[int, Scheduling]]:
    """The parts of a chain, and the position at which each begins; a single one is its part."""
    inner = getattr(scheduler, "_schedulers", None)
    if inner is None:
        yield start, scheduler
    else:
        later = getattr(scheduler, "_milestones", None) or [0] * (len(inner) - 1)
        for begins, part in zip((0, *later), inner, strict=True):
            yield from _started(part, start + begins)


def has_own_functions(scheduler: Scheduling) -> bool:
    """Whether groups have functions of their own, as ``LambdaLR`` takes in a list."""
    functions = (getattr(part, "lr_lambdas", ()) for _, part in _started(scheduler))
    return any(len(set(map(id, lambdas))) > 1 for lambdas in functions)


def is_over(scheduler: Scheduling) -> bool:
    """Whether a scheduler is at the last position that it knows."""
    inner = getattr(scheduler, "scheduler", scheduler)  # of ours
    return 0 < _horizon(inner)[0] <= _done(inner)


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


def _done(scheduler: Scheduling) -> int:
    """The position that a scheduler is at."""
    positions = (getattr(part, "last_epoch", 0) for _, part in _started(scheduler))
    return int(getattr(scheduler, "last_epoch", None) or max(positions))


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
