"""The move of measured schemes: when it looks, what it remembers, and the way to a new multiplier.

A period is so many steps, or an epoch. Over its first ``batches`` steps the statistics of all
units are read and averaged; then the mapping gives their new multipliers, to which they go in a
straight line over ``ramp`` steps.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from nnlr._arguments import number
from nnlr._declare.moves import Move, Progress, Setting
from nnlr._text import shown, warn
from nnlr.errors import ConfigError
from nnlr.schemes._measured.mappings import MAPPINGS, SetMap
from nnlr.schemes._measured.named import named
from nnlr.schemes._measured.probes import PROBES, Probe

if TYPE_CHECKING:
    from nnlr._rows.units import Unit


class Rule(NamedTuple):
    """What is measured, what becomes of it, when, and what it moves."""

    probe: str | Probe
    mapping: str | SetMap
    every: int | str
    batches: int
    ramp: int
    setting: Setting

    def as_probe(self) -> Probe:
        """The function that the probe is, or is called by."""
        return self.probe if callable(self.probe) else named(self.probe, "probe", PROBES)

    def as_mapping(self) -> SetMap:
        """The function that the mapping is, or is called by."""
        return self.mapping if callable(self.mapping) else named(self.mapping, "mapping", MAPPINGS)


class Measured(Move):
    """Multipliers by statistics of units; made by :func:`nnlr.assign`."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.needs_epochs = rule.every == "epoch"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles have the rule; the functions behind its names are found again."""
        return type(self), (self.rule,)

    @property
    def _key(self) -> str:
        """Its probe, mapping and setting: what one has come to is nothing for another."""
        rule = self.rule
        names = [
            name if isinstance(name, str) else getattr(name, "__name__", "function")
            for name in (rule.probe, rule.mapping)
        ]
        return " ".join(["Measured", *(name.partition("(")[0] for name in names), rule.setting])

    @cached_property
    def probe(self) -> Probe:
        """The statistic of a unit."""
        return self.rule.as_probe()

    @cached_property
    def mapping(self) -> SetMap:
        """The multipliers of all statistics."""
        return self.rule.as_mapping()

    def measures(self, now: Progress, units: "Sequence[Unit]") -> bool:
        """Whether the period has not been measured, or not over all its batches."""
        period, batches = self._period(now), self.rule.batches
        return any(
            unit.memory.get("period") != period or unit.memory["batches"] < batches
            for unit in units
        )

    def measure(self, now: Progress, units: "Sequence[Unit]") -> None:
        """Add the statistics of a batch; after the last one of a period, set out for new values."""
        _refuse_parts(units)
        period = self._period(now)
        if any(unit.memory.get("period") != period for unit in units):
            for unit in units:
                unit.memory.update(period=period, batches=0, sum=0.0, count=0)
        for unit, value in zip(units, self._values(units), strict=True):
            unit.memory["batches"] += 1
            if math.isfinite(value):
                unit.memory["sum"] += value
                unit.memory["count"] += 1
        if units[0].memory["batches"] == self.rule.batches:
            present = [unit for unit in units if unit.memory["count"]]
            self._assign(now, present)
            if not present and now.step and self.rule.probe == "update":
                warn(
                    f"{units[0].source} moves nothing: the state of "
                    f"{type(units[0].optimizer).__name__} has no direction, which is exp_avg with "
                    "exp_avg_sq, or momentum_buffer. Use an optimizer that keeps these, or the "
                    "probe 'rgn'."
                )

    def end_epoch(self, now: Progress, units: "Sequence[Unit]", metric: float | None) -> None:
        """Make do with the batches of an epoch that had fewer."""
        batches = self.rule.batches if self.needs_epochs else 0
        short = [unit for unit in units if 0 < unit.memory.get("batches", 0) < batches]
        for unit in short:
            unit.memory["batches"] = batches
        self._assign(now, [unit for unit in short if unit.memory["count"]])

    def due(self, now: Progress, units: "Sequence[Unit]") -> bool:
        """Whether multipliers are on their way."""
        ramp = self.rule.ramp
        return ramp > 0 and any(now.step <= u.memory.get("start", -math.inf) + ramp for u in units)

    def mults(self, now: Progress, units: "Sequence[Unit]") -> Sequence[float]:
        """Where each unit is on its way; 1 before the first statistic."""
        return [self._mult(now, unit.memory) for unit in units]

    def _mult(self, now: Progress, memory: dict[str, float]) -> float:
        """Where a unit is on its way."""
        if "to" not in memory:
            return 1.0
        gone = now.step - memory["start"]
        share = min(1.0, gone / self.rule.ramp) if self.rule.ramp else 1.0
        return memory["from"] * (1 - share) + memory["to"] * share

    def _period(self, now: Progress) -> int:
        """The number of the period that a step is in."""
        return now.step // self.rule.every if isinstance(self.rule.every, int) else now.epoch

    def _values(self, units: "Sequence[Unit]") -> list[float]:
        """The statistic of each unit for this batch; NaN where it has none."""
        values = [self.probe(unit) for unit in units]
        on: dict[torch.device, list[Tensor]] = {}
        for value, unit in zip(values, units, strict=True):
            if isinstance(value, Tensor):
                if value.numel() != 1 or value.is_complex() or value.dtype is torch.bool:
                    _refuse(value, unit)
                on.setdefault(value.device, []).append(value.detach().reshape(()).float())
        # One transfer for each device.
        numbers = {device: iter(torch.stack(each).tolist()) for device, each in on.items()}
        return [
            next(numbers[value.device]) if isinstance(value, Tensor) else _number(value, unit)
            for unit, value in zip(units, values, strict=True)
        ]

    def _assign(self, now: Progress, units: "Sequence[Unit]") -> None:
        """Set out for the multipliers that the mapping gives; units without a value stay."""
        if not units:
            return
        values = [unit.memory["sum"] / unit.memory["count"] for unit in units]
        result = self.mapping(values)
        try:
            mults = list(result)
        except TypeError:
            raise ConfigError(
                f"The mapping of {units[0].source} gave {shown(result, typed=True)}: it returns a "
                "list of multipliers, one for each statistic, in order.",
                value=result,
            ) from None
        if len(mults) != len(values):
            raise ConfigError(
                f"The mapping of {units[0].source} gave {len(mults)} multipliers for "
                f"{len(values)} statistics: it returns one for each, in order."
            )
        for unit, value, mult in zip(units, values, mults, strict=True):
            plain = mult.item() if hasattr(mult, "item") else mult
            what = f"the multiplier that the mapping of {unit.source} gives {unit.name!r}"
            to = number(plain, what)
            unit.memory.update({"value": value, "from": unit.mult, "to": to, "start": now.step})


def _number(value: object, unit: "Unit") -> float:
    """A statistic that a probe gave as a number, NaN for none."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(value, unit)
    return float(value)


def _refuse(value: object, unit: "Unit") -> NoReturn:
    """Refuse what is no statistic."""
    raise ConfigError(
        f"The probe of {unit.source} gave {shown(value, typed=True)} for {unit.name!r}: it "
        "returns a number, a tensor of one element, or None where it has nothing to measure.",
        value=value,
    )


def _refuse_parts(units: "Sequence[Unit]") -> None:
    """Refuse tensors of which only a part is in this process: statistics would differ."""
    for unit in units:
        for param in unit.params:
            if tuple(param.tensor.shape) != param.row.shape:
                raise ConfigError(
                    f"{unit.source} measures {param.row.name!r}, of which this process has only a "
                    f"part, {tuple(param.tensor.shape)} of {param.row.shape}, so that processes "
                    "would come to different rates. Shard with torch's fully_shard, whose tensors "
                    "know the whole.",
                    name=param.row.name,
                )
