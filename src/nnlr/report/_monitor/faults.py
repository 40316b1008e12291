"""Findings of the monitor: layers that do not move though they should, and the reverse."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from nnlr._findings import Finding, error, note, warning
from nnlr._text import plural
from nnlr.report._monitor.reading import ParamReading

# In half precision: share of the elements with a gradient that have to change in a step.
_ENOUGH: Final = 0.05


class Faults:
    """What is wrong with parameters, over several readings; each is told once.

    Args:
        patience: Readings in a row without a gradient, or a movement, until that is a finding.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._steps: list[int] = []
        self._bare: Counter[str] = Counter()  # readings in a row without a gradient
        self._still: Counter[str] = Counter()  # ... with a gradient and without a movement
        self._rounded: Counter[str] = Counter()  # ... in which nearly nothing changed
        self._last: dict[str, ParamReading] = {}
        self._told: set[tuple[str, str]] = set()

    def look(self, step: int, params: Sequence[ParamReading]) -> list[Finding]:
        """What is new in the readings of a step."""
        self._steps = [*self._steps, step][-self._patience :]
        for param in params:
            self._count(param)
        findings = list(self._findings(params))
        self._last = {param.name: param for param in params}
        return findings

    def _count(self, param: ParamReading) -> None:
        """Count on, or from 0, how long a parameter has been without gradient or movement."""
        name, last = param.name, self._last.get(param.name)
        learns = param.state == "trained" and param.bits is None and param.lr > 0
        # It moved between the readings: another batch gave it a gradient. Decay moves it too.
        between = last is not None and last.update == 0 and last.weight != param.weight
        bare = learns and not param.has_gradient and (param.decay > 0 or not between)
        still = learns and param.has_gradient and param.update == 0 and not between
        few = param.moved < _ENOUGH * param.pulled
        rounded = learns and param.half and param.has_gradient and few
        for counter, counts in (
            (self._bare, bare),
            (self._still, still),
            (self._rounded, rounded),
        ):
            counter[name] = counter[name] + 1 if counts else 0

    def _findings(self, params: Sequence[ParamReading]) -> Iterator[Finding]:
        """One finding for each kind that is new."""
        first, last = self._steps[0], self._steps[-1]
        looks = f"at {plural(self._patience, 'look')} in a row (steps {first} to {last})"
        if names := self._new("not-finite", params, _is_not_finite):
            yield error(
                "not-finite",
                names,
                f"the gradient or the weights of {_these(names)} were not finite in step "
                f"{last}, so that the step has spoilt the weights",
                "Go back to the last checkpoint, at a lower rate; and let such a gradient stop "
                "the run: nnlr.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)",
            )
        if names := self._new("in-no-group", params, lambda p: p.state == "in no group"):
            yield error(
                "in-no-group",
                names,
                f"the optimizer does not have {_these(names)}, which the plan trains: nothing "
                "moves what is in none of its groups",
                "Give it the plan's groups: nnlr.regroup(optimizer, plan)",
            )
        if names := self._new("no-gradient", params, lambda p: self._long(self._bare, p)):
            yield warning(
                "no-gradient",
                names,
                f"{_these(names)} had a learning rate and no gradient {looks}: the loss does not "
                "depend on that, or something cuts the graph (detach, no_grad)",
                "What is not to train is better locked, which saves its state; multiply the scheme "
                f"by: nnlr.rule({names[0]!r}, lr_mult=0)",
            )
        if names := self._new("lost-in-rounding", params, lambda p: self._long(self._rounded, p)):
            dtype = next(param.dtype for param in params if param.name == names[0])
            yield warning(
                "lost-in-rounding",
                names,
                f"the steps of {_these(names)} are lost in the rounding of {dtype}: fewer than "
                f"{_ENOUGH:.0%} of the elements that have a gradient changed {looks}",
                "Keep the weights in float32, and compute in half precision by "
                "torch.autocast: model.float()",
            )
        if names := self._new("not-moving", params, lambda p: self._long(self._still, p)):
            yield warning(
                "not-moving",
                names,
                f"{_these(names)} had a learning rate and a gradient, and no element moved "
                f"{looks}: the steps are smaller than rounding, or the optimizer passes them over",
                "See what it makes of the plan: print(nnlr.check(plan, optimizer))",
            )
        if names := self._new("moves-though-locked", params, self._moves("locked")):
            yield error(
                "moves-though-locked",
                names,
                f"{_these(names)} moved though locked: a group that is not the plan's has it, or "
                "another optimizer, or code writes into it",
                "Lock it again, and give the optimizer the plan's groups: "
                "nnlr.regroup(optimizer, plan)",
            )
        if names := self._new("moves-though-frozen", params, self._moves("frozen")):
            yield note(
                "moves-though-frozen",
                names,
                f"{_these(names)} moved though frozen, by something other than this optimizer: an "
                "average of another model does that on purpose",
                "If it is not meant to, look for what writes into it: model.load_state_dict, "
                "another optimizer, in-place operations on weights.",
            )

    def _new(
        self, kind: str, params: Iterable[ParamReading], test: Callable[[ParamReading], bool]
    ) -> list[str]:
        """Names of which this has not been told."""
        names = [p.name for p in params if (kind, p.name) not in self._told and test(p)]
        # Rounding is the better explanation of no movement at all, and one fault is told once.
        other = {"not-moving": "lost-in-rounding"}.get(kind, "")
        names = [name for name in names if (other, name) not in self._told]
        self._told |= {(kind, name) for name in names}
        return names

    def _long(self, counter: Counter[str], param: ParamReading) -> bool:
        """Whether something has lasted."""
        return counter[param.name] >= self._patience

    def _moves(self, state: str) -> Callable[[ParamReading], bool]:
        """Whether what is to rest has moved, in this step or since the last reading."""

        def moved(param: ParamReading) -> bool:
            if param.state != state:
                return False
            last = self._last.get(param.name)
            same = last is None or last.state != state or last.bits == param.bits
            return param.update > 0 or (param.bits is not None and not same)

        return moved


def _is_not_finite(param: ParamReading) -> bool:
    """Whether a parameter or its gradient is NaN or infinite."""
    return not all(map(math.isfinite, (param.gradient or 0.0, param.weight, param.update)))


def _these(names: Sequence[str]) -> str:
    """How many they are."""
    return plural(len(names), "parameter")
