"""Sorts parameters into fused and slow steps; rebuilt when anything changes."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

from nnlr.optim._fast_path import (
    State,
    convert_state,
    is_sharded,
    local_part,
    reason_of_group,
    reason_of_parameter,
)
from nnlr.optim._numba.use_numba import numba_sheets
from nnlr.optim._table import Lane, Row, Table, same_objects
from nnlr.optim._threads import GRAIN

if TYPE_CHECKING:
    from nnlr.optim._one_pass import OnePass

# The moment that begins as the first gradient, not as zeros; its kernel is told so.
MOMENTUM: Final = "momentum_buffer"

_GRAD: Final = attrgetter("grad")

_PARAMS: Final = itemgetter("params")

_LR: Final = itemgetter("lr")

_WEIGHT_DECAY: Final = itemgetter("weight_decay")

# Settings of all three torch classes, beside the rates. A subclass may keep other keys.
_SETTINGS: Final = ("maximize", "foreach", "fused", "differentiable")


class SlowParameter(NamedTuple):
    """A parameter that makes torch's own step."""

    group: int  # the position of its group
    param: Tensor
    reason: str
    lasting: bool  # whether the reason stays while settings and state stay


class Sorting:
    """The parameters of an optimizer, sorted by how they are stepped.

    Args:
        optimizer: Its groups and state as they are now. State that a first step needs is
            made here, as torch makes it.
    """

    def __init__(self, optimizer: OnePass) -> None:
        groups = optimizer.param_groups
        settings = [key for key in optimizer._settings if key in optimizer.defaults]
        self.read_settings = itemgetter(*_SETTINGS, *settings)
        # Lists, as configurations have, may be written to: keep copies.
        self.settings = [
            tuple(list(value) if isinstance(value, list) else value for value in values)
            for values in map(self.read_settings, groups)
        ]
        self.lengths = [len(group["params"]) for group in groups]
        self.params = list(chain.from_iterable(map(_PARAMS, groups)))
        self.lrs, self.weight_decays = list(map(_LR, groups)), list(map(_WEIGHT_DECAY, groups))
        self.rate_numbers = self._number_rates()
        self.without_grad: list[Tensor] = []  # before their first gradient
        self.slow: list[SlowParameter] = []
        self.new_moments: list[State] = []  # states whose momentum this step begins
        self.numba = numba_sheets()
        self.tables = self._sort(optimizer)
        self.state = optimizer.state
        self.state_keys, self.states = list(self.state), list(self.state.values())

    def _sort(self, optimizer: OnePass) -> list[Table]:
        """Sort the parameters into tables; note those that are slow or have no gradient."""
        # For each table the rows of each call, found by what the rows must share.
        rows: dict[tuple[tuple[str, ...], bool], dict[tuple[Lane, int], list[Row]]] = {}
        of_optimizer = optimizer._reason_of_optimizer()
        for position, group in enumerate(optimizer.param_groups):
            of_group = of_optimizer or reason_of_group(group)
            names = optimizer._moments(group)
            fast = []
            for param in group["params"]:
                if param.grad is None:
                    state = optimizer.state.get(param, {})
                    if not all(isinstance(state.get(name), Tensor) for name in names):
                        self.without_grad.append(param)
                        continue
                lasting = of_group or optimizer._reason_of_class(param)
                reason = lasting or reason_of_parameter(param, param.grad)
                if reason is None:
                    fast.append(param)
                else:
                    self.slow.append(SlowParameter(position, param, reason, lasting is not None))
            if fast:
                optimizer._make_state(group, fast)
            settings = repr(self.settings[position])
            for param in fast:
                state = optimizer.state[param] if names else {}
                first = MOMENTUM in names and state.get(MOMENTUM) is None
                if first:
                    # Zeros: if the step is interrupted, no random numbers are left behind.
                    state[MOMENTUM] = torch.zeros_like(param)
                if (reason := convert_state(param, state, names)) is not None:
                    self.slow.append(SlowParameter(position, param, reason, lasting=True))
                    continue
                if first:
                    self.new_moments.append(state)
                part = local_part(param)
                small = part.is_cpu and part.numel() < GRAIN
                lane = Lane(settings, param.device, param.dtype, first, small)
                row = Row(position, param, state)
                calls = rows.setdefault((names, is_sharded(param)), {})
                calls.setdefault((lane, self.rate_numbers[position]), []).append(row)
        return [
            Table(optimizer, calls, names, sharded=sharded, numba=self.numba)
            for (names, sharded), calls in rows.items()
        ]

    def _number_rates(self) -> list[int]:
        """A number for each group, the same for groups of the same rates."""
        numbers: dict[object, int] = {}
        return [
            numbers.setdefault((lr if isinstance(lr, float | int) else id(lr), decay), len(numbers))
            for lr, decay in zip(self.lrs, self.weight_decays, strict=True)
        ]

    def gradients(self, optimizer: OnePass) -> list[list[Tensor]] | None:
        """The gradients of each table; ``None`` if anything but the rates has changed.

        Rates are read here. If groups have come to share rates, or to differ, that is a change
        too: other parameters share a call.
        """
        groups, state = optimizer.param_groups, optimizer.state
        lists = list(map(_PARAMS, groups))
        if (
            self.numba is not numba_sheets()
            or list(map(len, lists)) != self.lengths
            or not same_objects(chain.from_iterable(lists), self.params)
            or list(map(self.read_settings, groups)) != self.settings
            or any(grad is not None for grad in map(_GRAD, self.without_grad))
            or state is not self.state
            or len(state) != len(self.states)
            or not same_objects(state, self.state_keys)
            or not same_objects(state.values(), self.states)
        ):
            return None
        grads = []
        for table in self.tables:
            grads_of_table = table.gradients()
            if grads_of_table is None:
                return None
            grads.append(grads_of_table)
        if not all(
            slow.lasting
            or slow.param.grad is None
            or slow.reason == reason_of_parameter(slow.param, slow.param.grad)
            for slow in self.slow
        ):
            return None
        lrs, weight_decays = list(map(_LR, groups)), list(map(_WEIGHT_DECAY, groups))
        before, now = (*self.lrs, *self.weight_decays), (*lrs, *weight_decays)
        if not same_objects(now, before):
            # A rate that is a tensor has come, gone, or made place for another.
            if any(
                isinstance(old, Tensor) or isinstance(new, Tensor)
                for old, new in zip(before, now, strict=True)
                if old is not new
            ):
                return None
            self.lrs, self.weight_decays = lrs, weight_decays
            if self._number_rates() != self.rate_numbers:
                return None
        return grads

    def step(
        self,
        grads: list[list[Tensor]],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Step the fast parameters.

        Args:
            grads: The result of :meth:`gradients`.
            grad_scale: What to divide gradients by.
            found_inf: 1 if one is not finite: then nothing is stepped.
        """
        if self.new_moments and found_inf is not None and found_inf.item():
            self.remove_new_moments()
            return
        for table, grads_of_table in zip(self.tables, grads, strict=True):
            table.step(grads_of_table, self.lrs, self.weight_decays, grad_scale, found_inf)

    def remove_new_moments(self) -> None:
        """Remove the momentum that this step was to begin."""
        for state in self.new_moments:
            del state[MOMENTUM]
