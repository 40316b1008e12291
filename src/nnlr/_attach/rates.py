"""The rates of groups whose multipliers move: base times multiplier, whoever moves the base."""

from collections.abc import Iterable, Sequence
from math import isclose

from torch.optim import Optimizer

from nnlr._attach.driven import Driven
from nnlr._schedule.base_rate import BaseRate, Group, as_float, put, scheduled
from nnlr._schedule.origin import MULTIPLIERS, bases_of
from nnlr._text import listed
from nnlr.errors import ConfigError

# Rates that differ by less (relative) are one rate, computed in another order.
_NOISE = 1e-6


class Rates:
    """Writes the rates that follow from multipliers.

    Under a schedule of nnlr they are the base rate of the moment times the multiplier. Else they
    are the base as built, times what others have made of it: a foreign scheduler is read off a
    group that does not move.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._factor = 1.0  # of others, on the base rates as built
        self._written: dict[int, float] = {}  # by group

    def write(self, changed: Iterable[tuple[str, Group]]) -> None:
        """Write the rates of groups whose multiplier of a setting has changed."""
        by_setting: dict[str, list[Group]] = {}
        for setting, group in changed:
            by_setting.setdefault(setting, []).append(group)
        courses = scheduled(self.optimizer)
        for setting, groups in by_setting.items():
            rate = courses.get(setting)
            if rate is not None:
                rate.write(groups)
                continue
            constant = self._constant(setting)
            factor = self._factor if setting == "lr" else 1.0
            due = constant.rates(group for group in groups if setting in group)
            put(setting, [(group, rate * factor) for group, rate in due])
            if setting == "lr":
                self._written |= {id(group): as_float(group["lr"]) for group in groups}

    def restore(self, driven: Sequence[Driven]) -> None:
        """Give groups that move their rates again where a foreign scheduler has written others."""
        if "lr" in scheduled(self.optimizer):
            return
        written = [self._written.get(id(each.group)) for each in driven]
        same = [
            before is not None and isclose(as_float(each.group["lr"]), before, rel_tol=_NOISE)
            for each, before in zip(driven, written, strict=True)
        ]
        moving = {id(each.group) for each in driven}
        others = [
            group
            for group in self.optimizer.param_groups
            if id(group) not in moving and group.get(MULTIPLIERS["lr"])
        ]
        if others:
            base = self._constant("lr").base_of(others[0]) * others[0]["lr_mult"]
            factor = as_float(others[0]["lr"]) / base
            if all(same) and isclose(factor, self._factor, rel_tol=_NOISE):
                return
            self._factor = factor
        elif all(same):
            return
        else:
            names = [
                e.group.get("name", "a group") for e, ok in zip(driven, same, strict=True) if not ok
            ]
            raise ConfigError(
                f"Something else has written the rates of {listed(names)}, all groups move, and so "
                "nothing tells which base rate is meant. Pass the scheduler through nnlr.schedule: "
                "nnlr.schedule(optimizer, SchedulerClass, ...)."
            )
        self.write([("lr", each.group) for each in driven])

    def _constant(self, setting: str) -> BaseRate:
        """Return the base rates as built."""
        bases = bases_of(
            group["origin"] for group in self.optimizer.param_groups if "origin" in group
        )
        return BaseRate(
            setting, {a: b for (a, key), b in bases.items() if key == setting} or {None: 0.0}
        )
