"""A copy of a scheduler on groups that hold no parameters: it runs ahead, and nothing is touched.

The name of a scheduler does not tell what it does to the groups, and anyone may write one. The
copy works on a stand-in for the optimizer, with the settings of the real groups and an empty
tensor in each.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, Protocol

import torch
from torch.optim import Optimizer

from nnlr._schedule.base_rate import as_float
from nnlr._schedule.course import Proxy
from nnlr._schedule.origin import ORIGIN
from nnlr._schedule.ratio_scheduler import RatioPlateau, RatioScheduler


class Scheduling(Protocol):
    """A scheduler, of torch or of any other library."""

    @property
    def optimizer(self) -> Any: ...  # noqa: ANN401 - others wrap it

    @property
    def step(self) -> Callable[..., Any]: ...


class Rehearsal:
    """A scheduler's copy and the groups that it writes into.

    What is ``shared``, such as the model, is not copied with it.

    Attributes:
        scheduler: The copy.
        groups: The groups of the stand-in, with their settings.
    """

    def __init__(
        self, scheduler: Scheduling, optimizer: Optimizer, shared: Iterable[object] = ()
    ) -> None:
        same = {id(value): value for value in shared}
        settings = copy.deepcopy(
            [
                {k: v for k, v in group.items() if k not in ("params", "param_names", ORIGIN)}
                for group in optimizer.param_groups
            ],
            dict(same),
        )
        stand_in = Proxy(
            [{**group, "params": [torch.zeros(0, device="cpu")]} for group in settings],
            copy.deepcopy(optimizer.defaults),
        )
        copies = {  # deepcopy takes these as copied already
            **same,
            id(optimizer): stand_in,
            id(optimizer.param_groups): stand_in.param_groups,
            id(scheduler.optimizer): stand_in,
        }
        self.scheduler = copy.deepcopy(scheduler, copies)
        self.groups = stand_in.param_groups

    def read(self, key: str = "lr") -> list[float]:
        """The present rates of the groups."""
        return [float(as_float(group[key])) for group in self.groups]

    @cached_property
    def way(self) -> str:
        """What a step is told: ``"metric"``, ``"position"``, or nothing (``"count"``).

        Raises:
            TypeError: If it asks for something else.
        """
        required = [
            argument.name
            for argument in inspect.signature(self._stepped.step).parameters.values()
            if argument.default is argument.empty
            and argument.kind is argument.POSITIONAL_OR_KEYWORD
        ]
        if len(required) > 1:
            raise TypeError(f"its step takes {', '.join(required)}")
        if not required:
            return "count"
        return "position" if required == ["epoch"] else "metric"

    def step(self, position: int) -> None:
        """Step the copy in the way that it asks for; a metric is one that never improves."""
        if self.way == "count":
            self.scheduler.step()
        elif self.way == "metric":
            self.scheduler.step(self._bad)
        else:  # of timm
            self.scheduler.step(position, **self._metric)
            if (update := getattr(self.scheduler, "step_update", None)) is not None:
                update(position)

    @cached_property
    def _stepped(self) -> Any:  # noqa: ANN401 - anyone's scheduler
        """The scheduler that takes what a step is told: of ours one of those inside."""
        if not isinstance(self.scheduler, RatioScheduler | RatioPlateau):
            return self.scheduler
        courses = [c for share in self.scheduler._shares.values() for c in share.each]
        return next((c.scheduler for c in courses if c.takes_metric), self.scheduler)

    @cached_property
    def _metric(self) -> dict[str, float]:
        """The metric as a second argument, where a step has one."""
        takes = "metric" in inspect.signature(self._stepped.step).parameters
        return {"metric": self._bad} if takes else {}

    @property
    def _bad(self) -> float:
        """A metric that never improves."""
        inner = getattr(self._stepped, "lr_scheduler", self._stepped)
        return 0.0 if getattr(inner, "mode", "min") == "max" else 1e30


def parts_of(scheduler: Scheduling, start: int = 0) -> Iterator[tuple[int, Scheduling]]:
    """The parts of a chain, and the position at which each begins; a single one is its part."""
    inner = getattr(scheduler, "_schedulers", None)
    if inner is None:
        yield start, scheduler
    else:
        later = getattr(scheduler, "_milestones", None) or [0] * (len(inner) - 1)
        for begins, part in zip((0, *later), inner, strict=True):
            yield from parts_of(part, start + begins)


def position_of(scheduler: Scheduling) -> int:
    """The position that a scheduler is at: how many steps it has taken."""
    positions = (getattr(part, "last_epoch", 0) for _, part in parts_of(scheduler))
    return int(getattr(scheduler, "last_epoch", None) or max(positions))
