"""Warm-up and decay, with every length as a share of the run's steps.

w = warmup * total,   c = total - cooldown * total   (without cooldown c = w)

start + (1 - start) * t / w      t < w            the warm-up
1                                w <= t < c
f((t - c) / (total - c))         c <= t           from 1 to the floor, and there it stays

f(u) = floor + (1 - floor) * (1 + cos(pi u)) / 2     cosine     (arXiv 1608.03983, one period)
       1 - (1 - floor) * u                           linear
       floor ** u                                    exponential (arXiv 1904.08779, tri-stage)
       gamma ** (milestones passed)                  steps
       1                                             constant
"""

import math
from collections.abc import Sequence
from typing import Final, Literal, get_args

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnlr._arguments import choice, number, whole
from nnlr._text import shown
from nnlr.errors import NnlrError

Shape = Literal["cosine", "linear", "exponential", "steps", "constant"]
SHAPES: Final[tuple[Shape, ...]] = get_args(Shape)


class WarmupDecay(LRScheduler):
    """A scheduler of torch: linear warm-up, constant if wanted, then a fall to a floor.

    Published schedules mostly are of this form, and give their lengths in epochs. Here they are
    shares of ``total_steps``, so that one description fits every data set and batch size: 5 of
    100 epochs are ``warmup=0.05``. Rates are factors on the base rate. Step it once after each
    optimizer step; past the last step the rate stays.

    Args:
        optimizer: Any torch optimizer; :func:`nnlr.schedule` passes its own.
        total_steps: Optimizer steps of the run, >= 1.
        warmup: Share of the steps in which the rate rises, in [0, 1]; by default 0.
        warmup_steps: The same as a number of steps, at most ``total_steps``; only one of the two.
        start: Factor at the first step of the warm-up, >= 0.
        shape: ``"cosine"``, ``"linear"``, ``"exponential"``, ``"steps"`` or ``"constant"``.
        floor: Factor at the end, in [0, 1]; > 0 for ``"exponential"``. ``"steps"`` and
            ``"constant"`` have none.
        cooldown: Share of the steps, at the end, in which the rate falls, in (0, 1]; before it
            the rate is constant. ``None``: it falls from the end of the warm-up on.
        milestones: For ``"steps"``: shares of the steps, ascending, at each of which the rate is
            multiplied by ``gamma``.
        gamma: That factor, > 0.
        last_epoch: As in torch: the number of steps done, less one.

    Raises:
        NnlrError: If a value is out of range, or does not fit the shape.

    Examples:
        >>> import nnlr, torch
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=1.0)
        >>> scheduler = nnlr.schedule(
        ...     optimizer, WarmupDecay, total_steps=8, warmup=0.25, shape="linear", floor=0.1
        ... )
        >>> rates = []
        >>> for _ in range(9):
        ...     rates.append(round(scheduler.get_last_lr()[0], 2))
        ...     optimizer.step()
        ...     scheduler.step()
        >>> rates
        [0.0, 0.5, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int,
        warmup: float | None = None,
        warmup_steps: int | None = None,
        start: float = 0.0,
        shape: Shape = "cosine",
        floor: float = 0.0,
        cooldown: float | None = None,
        milestones: Sequence[float] = (),
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.total_steps = whole(total_steps, "total_steps", minimum=1)
        self.warmup = number(warmup or 0.0, "warmup", maximum=1) * self.total_steps
        if warmup_steps is not None:
            self.warmup = float(whole(warmup_steps, "warmup_steps", minimum=0))
            self._check_warmup(warmup)
        self.start = number(start, "start")
        self.shape = choice(shape, "shape", SHAPES)
        self.floor = number(floor, "floor", maximum=1)
        self.falls_at = self.warmup
        if cooldown is not None:
            share = number(cooldown, "cooldown", above=0, maximum=1)
            self.falls_at = max(self.warmup, self.total_steps * (1 - share))
        self.milestones = [
            number(share, f"milestones[{i}]", maximum=1) * self.total_steps
            for i, share in enumerate(milestones)
        ]
        self.gamma = number(gamma, "gamma", above=0)
        self._check_shape()
        super().__init__(optimizer, last_epoch)

    def _check_warmup(self, share: float | None) -> None:
        """Refuse a second length of the warm-up, and one that is longer than the run."""
        if share is not None:
            raise NnlrError(
                f"warmup={share} and warmup_steps={self.warmup:g} both say how long the warm-up "
                "is. Pass one of them, and None for that of a recipe: warmup=0.1, "
                "warmup_steps=None."
            )
        if self.warmup > self.total_steps:
            raise NnlrError(
                f"warmup_steps={self.warmup:g} are more than the run has, which is "
                f"total_steps={self.total_steps}. Pass fewer, or a share: warmup=0.1, "
                "warmup_steps=None."
            )

    def _check_shape(self) -> None:
        """Refuse settings that the shape would ignore, or cannot do with."""
        steps = self.shape == "steps"
        if steps != bool(self.milestones) or self.milestones != sorted(self.milestones):
            raise NnlrError(
                "shape='steps' needs milestones, ascending shares of the steps such as "
                f"[0.5, 0.75], and no other shape takes any; got shape={self.shape!r} and "
                f"{len(self.milestones)} milestones."
            )
        if self.floor and self.shape in {"steps", "constant"}:
            raise NnlrError(f"shape={self.shape!r} has no floor, got floor={shown(self.floor)}.")
        if not self.floor and self.shape == "exponential":
            raise NnlrError(
                "shape='exponential' needs a floor > 0, such as 0.01: it never gets to 0."
            )

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the groups at the present step."""
        factor = self.factor(self.last_epoch)
        return [base * factor for base in self.base_lrs]

    def factor(self, step: int) -> float:
        """The factor on the base rate after so many steps."""
        if step < self.warmup:
            return self.start + (1 - self.start) * step / self.warmup
        if self.shape == "steps":
            return self.gamma ** sum(step >= milestone for milestone in self.milestones)
        if self.shape == "constant" or step < self.falls_at:
            return 1.0
        length = self.total_steps - self.falls_at
        share = min(1.0, (step - self.falls_at) / length) if length else 1.0
        if self.shape == "exponential":
            return math.exp(math.log(self.floor) * share)
        down = share if self.shape == "linear" else (1 - math.cos(math.pi * share)) / 2
        return 1 - (1 - self.floor) * down
