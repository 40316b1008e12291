"""The rates of groups whose multipliers move: base times multiplier, whoever moves the base.

Under a schedule of nnlr a rate is the base of the moment times the multiplier. Else it is the
base as built times a factor: what others, such as a scheduler of torch, have made of it. The
factor is read off a group that does not move.
"""

from collections.abc import Iterable, Sequence
from math import isclose
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nnlr._attach.driven import Driven
from nnlr._declare.moves import Setting
from nnlr._schedule.base_rate import Group, as_float, put, scheduled
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN, bases_of
from nnlr._schedule.progress import filled
from nnlr._text import listed
from nnlr.errors import ConfigError
from nnlr.optim._members import ALGORITHM
from nnlr.optim._mixed import member_of

# Rates that differ by less (relative) are one rate, computed in another order.
_NOISE = 1e-6


class Rates:
    """Writes one setting, ``lr`` or ``weight_decay``, of the groups in which it moves."""

    def __init__(self, optimizer: Optimizer, setting: Setting) -> None:
        self._optimizer, self._setting, self._mult = optimizer, setting, MULTIPLIERS[setting]
        self._factor = 1.0  # of others, on the base as built

    def pair(self, driven: Sequence[Driven]) -> None:
        """Take up the groups as they are now, and how far others have moved their rates."""
        setting, groups = self._setting, self._optimizer.param_groups
        self.moving = [d.group for d in driven if setting in d.fixed and setting in d.group]
        self._bases = bases_of(group[ORIGIN] for group in groups if ORIGIN in group)
        moving = {id(group) for group in self.moving}
        fixed = [g for g in groups if id(g) not in moving and setting in g and self._due(g)]
        plain = (group for group in fixed if group[self._mult] == 1)
        largest = max(fixed, key=lambda group: float(group[self._mult]), default=None)
        self._reference = next(plain, largest)
        if setting not in scheduled(self._optimizer):
            factor = self._read()
            self._factor = self._factor if factor is None else factor
        self._look()

    def write(self, groups: Iterable[Group]) -> None:
        """Write the rates of groups whose multiplier has changed."""
        rate, start = scheduled(self._optimizer).get(self._setting), f"initial_{self._setting}"
        groups = [group for group in groups if self._setting in group]
        if rate is not None:
            rate.write(groups)
        else:
            put(self._setting, [(group, self._due(group) * self._factor) for group in groups])
        for group in groups:
            if start in group:  # what a rate is relative to, for those who ask how far it has come
                base = self._base(group) if rate is None else rate.base_of(group)
                group[start] = filled(base * float(group[self._mult]), group[start])
        self._look()

    def follow(self) -> None:
        """Give groups their rates again where somebody else has written some."""
        setting = self._setting
        if setting in scheduled(self._optimizer) or all(
            group.get(setting) is value and (version is None or value._version == version)  # type: ignore[union-attr] # a tensor
            for group, value, version in self._seen
        ):
            return
        factor = self._read()
        if factor is None or (self._reference is None and self._by_scheduler()):
            self._refuse()
        else:
            self._factor = factor
            if self._reference is not None:
                self.write(self.moving)
        self._look()

    def _by_scheduler(self) -> bool:
        """Whether a scheduler was built on groups that move."""
        return any(f"initial_{self._setting}" in group for group in self.moving)

    def _refuse(self) -> None:
        """Refuse rates that tell nothing of the base, unless all are 0, as in a warm-up."""
        if any(as_float(group[self._setting]) for group in self.moving):
            names = [group.get("name", "a group") for group in self.moving]
            raise ConfigError(
                f"Something else writes the {self._setting} of {listed(names)}. All groups move, "
                "so nothing tells which base rate it means. Pass the scheduler through "
                "nnlr.schedule: nnlr.schedule(optimizer, SchedulerClass, ...)."
            )

    def _read(self) -> float | None:
        """Return the factor of others on the base as built; ``None`` if groups contradict."""
        if (reference := self._reference) is not None:
            return as_float(reference[self._setting]) / self._due(reference)
        pairs = [(as_float(group[self._setting]), self._due(group)) for group in self.moving]
        factors = [rate / due for rate, due in pairs if due]
        if all(isclose(factor, self._factor, rel_tol=_NOISE) for factor in factors):
            return self._factor
        alike = all(isclose(factor, factors[0], rel_tol=_NOISE) for factor in factors)
        return factors[0] if alike else None

    def _look(self) -> None:
        """Remember the rates as they are, to see whether somebody else writes some."""
        watched = [*self.moving, *([] if self._reference is None else [self._reference])]
        values = [(group, group.get(self._setting)) for group in watched]
        # A tensor stays the same and is written into, which its version tells.
        self._seen: list[tuple[Group, Any, int | None]] = [
            (group, value, value._version if isinstance(value, Tensor) else None)
            for group, value in values
        ]

    def _due(self, group: Group) -> float:
        """Return the base as built times the multiplier of a group now."""
        return self._base(group) * float(group.get(self._mult) or 0.0)

    def _base(self, group: Group) -> float:
        """Return the base that the multiplier of a group refers to, as built."""
        algorithm = group.get(ALGORITHM)
        if (base := self._bases.get((algorithm, self._setting))) is not None:
            return base
        return as_float(member_of(self._optimizer, group).defaults.get(self._setting) or 0.0)
