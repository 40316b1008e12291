"""The lists that a fused kernel needs, kept from step to step.

A table has a row for each parameter that one call or several can step alike. Its columns
are what the kernels take: parameters, moments, counters. Rows that share all settings are
neighbours and make a *run*, one kernel call. Only the gradients are new at each step; the
table checks that nothing else has changed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain, compress
from operator import attrgetter, is_, itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor

from nnlr.optim._fast_path import PLAIN_TYPES, State
from nnlr.optim._threads import one_thread

if TYPE_CHECKING:
    from functools import partial
    from types import ModuleType

    from nnlr.optim._one_pass import OnePass

_GRAD: Final = attrgetter("grad")

_KIND: Final = attrgetter("dtype", "layout")

_DTYPE: Final = attrgetter("dtype")

_DEVICE: Final = attrgetter("device")

_LOCAL: Final = attrgetter("_local_tensor")

_PLACEMENTS: Final = attrgetter("_spec.mesh", "_spec.placements")


class Lane(NamedTuple):
    """What rows must share, beside their rates, to be stepped by one call."""

    settings: Hashable  # of their groups, all but the rates
    device: torch.device
    dtype: torch.dtype
    first: bool  # whether a moment begins
    small: bool  # whether one thread is faster than all


class Row(NamedTuple):
    """A parameter, the position of its group, and its state."""

    group: int
    param: Tensor
    state: State


class Run(NamedTuple):
    """Neighbouring rows that one call steps."""

    group: int  # one of theirs; its rates are those of all
    lane: Lane
    rows: slice
    function: partial[Any]
    params: list[Tensor]
    columns: list[list[Tensor]]  # what the kernel takes after parameters and gradients


class Table:
    """Rows whose states have the same names.

    Args:
        optimizer: The optimizer, which says what its kernels take.
        calls: The rows, at least one, by what those of one call share.
        names: The names of their moments in the state.
        sharded: Whether they are DTensors, of which the local parts are stepped.
        numba: The module ``nnlr.optim._numba.sheets`` if compiled kernels are to be used.
    """

    def __init__(
        self,
        optimizer: OnePass,
        calls: Mapping[tuple[Lane, int], Sequence[Row]],
        names: Sequence[str],
        *,
        sharded: bool,
        numba: ModuleType | None,
    ) -> None:
        rows = list(chain.from_iterable(calls.values()))
        self.names, self.sharded = tuple(names), sharded
        self.groups = [row.group for row in rows]
        self.params = [row.param for row in rows]
        self.states = [row.state for row in rows]
        self.keys = (*names, "step") if "step" in rows[0].state else self.names
        self.vector: Tensor | None = None  # the steps are its elements, if there is one
        self.steps = [state["step"] for state in self.states] if "step" in self.keys else []
        # One addition counts all steps that are elements of one vector. On a CPU only: on a GPU
        # one launch adds to many tensors, and a captured graph must find them where they were.
        # A vector that is made in inference mode could not be changed outside of it.
        on_cpu = self.steps and all(step.is_cpu for step in self.steps)
        if on_cpu and not torch.is_inference_mode_enabled():
            self.vector = torch.stack(self.steps)
            self.steps = list(self.vector.unbind())
            for state, step in zip(self.states, self.steps, strict=True):
                state["step"] = step
        self.state_values = list(self._state_values())
        self.step_addresses = list(map(Tensor.data_ptr, self.steps))
        self.locals = list(map(_LOCAL, self.params)) if sharded else self.params
        self.placements = list(map(_PLACEMENTS, self.params)) if sharded else []
        self.strides = list(map(Tensor.stride, self.locals))
        self.sizes = list(map(Tensor.numel, self.locals))
        self.kinds = list(map(_KIND, self.locals))
        self.dtypes = list(map(_DTYPE, self.locals))
        self.devices = list(map(_DEVICE, self.locals))
        self.param_addresses = list(map(Tensor.data_ptr, self.locals))
        self.has_grad: list[bool] | None = None  # None if all have one
        runs = []
        stop = 0
        for (lane, _), members in calls.items():
            start, stop = stop, stop + len(members)
            cut, group = slice(start, stop), members[0].group
            moments = [[row.state[name] for row in members] for name in names]
            if sharded:
                moments = [list(map(_LOCAL, column)) for column in moments]
            # The kernel takes an empty list where its moments are not used.
            moments += [[] for _ in range(optimizer._moment_lists - len(moments))]
            columns = [*moments, self.steps[cut]] if self.steps else moments
            function = optimizer._kernel(optimizer.param_groups[group], first=lane.first)
            runs.append(Run(group, lane, cut, function, self.locals[cut], columns))
        self.sheets: list[Any] = []  # of nnlr.optim._numba.sheets; runs stepped by compiled kernels
        if numba is not None:
            self.sheets, runs = numba.sheets_of(self, runs, optimizer.param_groups)
        self.small_runs = [run for run in runs if run.lane.small]
        self.large_runs = [run for run in runs if not run.lane.small]

    # --- the checks

    def gradients(self) -> list[Tensor] | None:
        """The gradients of all rows; ``None`` if anything has changed since the last step.

        A gradient whose strides differ from its parameter's is copied: the kernels walk
        through both in the order of memory. Where there is no gradient the parameter stands
        in for it and passes all checks; ``has_grad`` tells which rows are stepped.
        """
        grads = list(map(_GRAD, self.params))
        self.has_grad = None
        if type(None) in set(map(type, grads)):
            self.has_grad = [grad is not None for grad in grads]
            grads = [
                param if grad is None else grad
                for param, grad in zip(self.params, grads, strict=True)
            ]
        if self.sharded:
            if (
                set(map(type, grads)) != {type(self.params[0])}
                or list(map(_PLACEMENTS, grads)) != self.placements
                or not same_objects(map(_LOCAL, self.params), self.locals)
            ):
                return None
            grads = list(map(_LOCAL, grads))
        if (
            not set(map(type, grads)) <= PLAIN_TYPES
            or list(map(_KIND, grads)) != self.kinds
            or list(map(Tensor.numel, grads)) != self.sizes
            or not self._state_is_unchanged()
            or not self._parameters_are_unchanged()
            or not all(sheet.moments_are_unchanged() for sheet in self.sheets)
        ):
            return None
        if any(map(Tensor.is_neg, grads)):  # the kernels look at memory only
            grads = [grad.resolve_neg() for grad in grads]
        strides = list(map(Tensor.stride, grads))
        if strides != self.strides:
            for row, (stride, of_param) in enumerate(zip(strides, self.strides, strict=True)):
                if stride != of_param:
                    grads[row] = torch.empty_like(self.locals[row]).copy_(grads[row])
        return grads

    def _state_values(self) -> Iterable[object]:
        """The moments and counters in the states, one state after the other."""
        values = map(itemgetter(*self.keys), self.states) if self.keys else iter(())
        return values if len(self.keys) == 1 else chain.from_iterable(values)

    def _state_is_unchanged(self) -> bool:
        """Whether the states hold the same tensors, and counters lie where they did."""
        try:
            if not same_objects(self._state_values(), self.state_values):
                return False
        except KeyError:
            return False
        # The data of a counter may have been replaced; then no vector counts for it.
        return list(map(Tensor.data_ptr, self.steps)) == self.step_addresses

    def _parameters_are_unchanged(self) -> bool:
        """Whether parameters have the same layout in memory; they may have moved."""
        if (
            # May change in the same place: transposed or cut, say.
            list(map(Tensor.stride, self.locals)) != self.strides
            or list(map(Tensor.numel, self.locals)) != self.sizes
            or list(map(_DTYPE, self.locals)) != self.dtypes
            or any(map(Tensor.is_neg, self.locals))
        ):
            return False
        addresses = list(map(Tensor.data_ptr, self.locals))
        if addresses == self.param_addresses:
            return True
        self.param_addresses = addresses
        return (
            list(map(_KIND, self.locals)) == self.kinds
            and list(map(_DEVICE, self.locals)) == self.devices
        )

    # --- the step

    def step(
        self,
        grads: Sequence[Tensor],
        lrs: Sequence[Any],
        weight_decays: Sequence[Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Step all rows that have a gradient.

        Args:
            grads: The result of :meth:`gradients`.
            lrs: The learning rates of all groups.
            weight_decays: Their weight decays.
            grad_scale: What to divide gradients by.
            found_inf: 1 if one is not finite: then nothing is stepped.
        """
        has_grad = self.has_grad
        steps = self.steps if has_grad is None else list(compress(self.steps, has_grad))
        if self.vector is not None:
            self.vector.add_(1 if has_grad is None else torch.tensor(has_grad).to(self.vector))
        elif steps:
            torch._foreach_add_(steps, 1)
        scaler = {} if grad_scale is None else {"grad_scale": grad_scale}
        if found_inf is not None:
            scaler["found_inf"] = found_inf
        small_runs = list(self.small_runs)
        for sheet in self.sheets:
            if scaler or not sheet.step(self, grads, lrs, weight_decays):
                small_runs += sheet.runs
        if small_runs:
            with one_thread():
                self._call(small_runs, grads, lrs, weight_decays, scaler)
        self._call(self.large_runs, grads, lrs, weight_decays, scaler)
        if found_inf is not None and steps:  # the steps that were skipped do not count
            on_device = {step.device: found_inf.to(step.device) for step in steps}
            torch._foreach_sub_(steps, [on_device[step.device] for step in steps])

    def _call(
        self,
        runs: Sequence[Run],
        grads: Sequence[Tensor],
        lrs: Sequence[Any],
        weight_decays: Sequence[Any],
        scaler: Mapping[str, Tensor],
    ) -> None:
        """Call the fused kernel of each run."""
        for run in runs:
            columns = [run.params, grads[run.rows], *run.columns]
            has_grad = self.has_grad and self.has_grad[run.rows]
            if has_grad and not all(has_grad):
                columns = [list(compress(column, has_grad)) for column in columns]
                if not columns[0]:
                    continue
            lr, device, on_device = lrs[run.group], run.lane.device, scaler
            if scaler:
                on_device = {
                    name: value.to(device, non_blocking=True) for name, value in scaler.items()
                }
            if isinstance(lr, Tensor):
                lr = near(lr, device)
            run.function(*columns, lr=lr, weight_decay=weight_decays[run.group], **on_device)


def near(lr: Tensor, device: torch.device) -> Tensor:
    """A learning rate where a kernel on the device can read it: all can read the CPU's."""
    if lr.is_cpu or lr.device == device:
        return lr
    return lr.to(device, non_blocking=True)


def same_objects(some: Iterable[object], others: Iterable[object]) -> bool:
    """Whether two of one length hold the very same objects."""
    return all(map(is_, some, others))
