"""Small tensors of many rates in one call: arrays of addresses for the compiled kernels.

A sheet stands for some runs of a table: those that share all settings but the rates. Torch's
calls are kept for steps that it cannot make.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import chain, compress, pairwise
from operator import attrgetter, itemgetter
from os import getpid
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from nnlr.optim._numba import kernels
from nnlr.optim._table import Run, Table

Group = Mapping[str, Any]

Array = Any  # a numpy array

_DTYPE: Final = attrgetter("dtype")

# From this number of elements on another thread pays: it has to be woken first.
_SHARE: Final = 2**20


def sheets_of(
    table: Table, runs: Iterable[Run], groups: Sequence[Group]
) -> tuple[list["Sheet"], list[Run]]:
    """The sheets that a table can have, and the runs that are in no sheet.

    Args:
        table: The table.
        runs: Its runs.
        groups: The parameter groups.
    """
    runs_of_lane: dict[object, list[Run]] = {}
    runs_left = []
    ready = table.vector is not None or not table.steps
    for run in runs:
        group, settings = groups[run.group], run.function.keywords
        # A tensor may be written to at any time.
        numbers = (group["lr"], group["weight_decay"], *settings.values())
        if (
            ready
            and run.lane.small
            and run.lane.dtype == torch.float32
            and not run.lane.first
            and not settings.get("amsgrad", False)
            and settings.get("beta1", 0.9) > 0.5
            and all(isinstance(number, float | int) for number in numbers)
        ):
            runs_of_lane.setdefault(run.lane, []).append(run)
        else:
            runs_left.append(run)
    return [Sheet(table, runs) for runs in runs_of_lane.values()], runs_left


class Sheet:
    """Runs of a table that one call of a compiled kernel steps.

    Args:
        table: The table.
        runs: The runs, of one lane.
    """

    def __init__(self, table: Table, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        self.rows = [row for run in runs for row in range(run.rows.start, run.rows.stop)]
        self.pick_rows = itemgetter(*self.rows, self.rows[0])  # of two at least, a tuple
        self.groups = [table.groups[row] for row in self.rows]
        self.params = [param for run in runs for param in run.params]
        self.sizes = _longs(int(table.sizes[row]) for row in self.rows)
        self.not_empty = self.sizes > 0
        columns = zip(*(run.columns[: len(table.names)] for run in runs), strict=True)
        self.moments = [list(chain.from_iterable(column)) for column in columns]
        self.moment_addresses = [list(map(Tensor.data_ptr, column)) for column in self.moments]
        self.table_addresses: list[int] = []  # of all parameters of the table
        self.rates: tuple[object, object] = (None, None)
        # What the kernel takes of the state of each row; without moments it reads none.
        self.state_addresses = [_longs(column) for column in self.moment_addresses] or [self.sizes]
        self.step_rows = []
        self.kernel, self.settings = _kernel(runs[0])
        if table.vector is not None:
            self.step_rows = [_longs(self.rows)]
            self.settings = (table.vector.numpy(), *self.settings)

    def moments_are_unchanged(self) -> bool:
        """Whether moments are where they were; the table checks all else."""
        return all(
            list(map(Tensor.data_ptr, column)) == addresses
            and set(map(_DTYPE, column)) == {torch.float32}
            and not any(map(Tensor.is_neg, column))
            for column, addresses in zip(self.moments, self.moment_addresses, strict=True)
        )

    def step(
        self,
        table: Table,
        grads: Sequence[Tensor],
        lrs: Sequence[object],
        weight_decays: Sequence[object],
    ) -> bool:
        """Step the rows that have a gradient, or return False to let torch judge.

        Args:
            table: The table that the sheet was made for.
            grads: The gradients of all its rows.
            lrs: The learning rates of all groups.
            weight_decays: Their weight decays.

        Returns:
            Whether the step is made. If not, a rate is no number or a tensor has no memory.
        """
        if self.table_addresses is not table.param_addresses:  # the parameters have moved
            self.table_addresses = table.param_addresses
            self.param_addresses = _longs(self.pick_rows(self.table_addresses)[:-1])
        if self.rates[0] is not lrs or self.rates[1] is not weight_decays:
            both = [[rates[group] for group in self.groups] for rates in (lrs, weight_decays)]
            if not all(isinstance(rate, float | int) for rate in chain(*both)):
                return False
            self.lrs, self.weight_decays = (np.array(column, dtype=np.float64) for column in both)
            self.rates = lrs, weight_decays
        grad_addresses = _longs(map(Tensor.data_ptr, self.pick_rows(grads)[:-1]))
        addresses = [self.param_addresses, grad_addresses, *self.state_addresses]
        if not all(column[self.not_empty].all() for column in addresses):
            return False
        # In the order in which the kernels take them.
        columns = [self.sizes, *addresses, self.lrs, self.weight_decays, *self.step_rows]
        params = self.params
        if table.has_grad is not None:
            has_grad = list(self.pick_rows(table.has_grad)[:-1])
            if not any(has_grad):
                return True
            columns = [column[has_grad] for column in columns]
            params = list(compress(params, has_grad))
        self._call(columns)
        # Autograd has to learn that they have changed: a backward pass through the old
        # values is an error then, as it is after torch's default step.
        increment_version(params)
        return True

    def _call(self, columns: Sequence[Array]) -> None:
        """Call the kernel, on several threads if there is enough for them."""

        def call(part: tuple[int, int]) -> None:
            self.kernel(*columns, *self.settings, *part)

        first, *others = _parts(columns[0])
        pending = [_pool(getpid()).submit(call, part) for part in others]
        try:
            call(first)
        finally:  # also when interrupted: the threads write to memory of the caller
            wait(pending)
        for future in pending:
            future.result()  # or its error


def _kernel(run: Run) -> tuple[Callable[..., None], tuple[object, ...]]:
    """The compiled kernel that does what a run's call does, and its settings."""
    settings = run.function.keywords
    if run.function.func is torch._fused_sgd_:
        flags = bool(settings["nesterov"]), bool(settings["maximize"])
        return kernels.sgd, (float(settings["momentum"]), float(settings["dampening"]), *flags)
    decoupled = run.function.func is torch._fused_adamw_
    numbers = [float(settings[key]) for key in ("beta1", "beta2", "eps")]
    return kernels.adam, (*numbers, decoupled, bool(settings["maximize"]))


def _parts(sizes: Array) -> list[tuple[int, int]]:
    """First and last row (excluded) for each thread, of about as many elements."""
    if sizes.sum() < _SHARE:
        return [(0, len(sizes))]
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    parts = min(torch.get_num_threads(), 1 + total // _SHARE)
    cuts = np.searchsorted(ends, [total * n / parts for n in range(1, parts)])
    return list(pairwise([0, *map(int, cuts), len(ends)]))


def _longs(values: Iterable[int]) -> Array:
    """An array of 64-bit integers."""
    return np.fromiter(values, dtype=np.int64)


@cache
def _pool(_process: int) -> ThreadPoolExecutor:
    """Threads of a process; after a fork the new process needs threads of its own."""
    return ThreadPoolExecutor(thread_name_prefix="nnlr")
