"""Small tensors of many rates in one call: tables of addresses for the compiled kernels.

A sheet stands for some runs of a table: those that share all settings but the rates. Torch's
calls stay at hand for steps that it cannot make.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import chain, compress, pairwise
from operator import attrgetter, itemgetter
from os import getpid
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from nnlr.optim._numba import kernels
from nnlr.optim._table import Run, Table

Group = Mapping[str, Any]

Array = Any  # one of numpy

T = TypeVar("T")

_DTYPE: Final = attrgetter("dtype")

# Elements from which on another thread pays: it has to be woken first.
_SHARE: Final = 2**20


def sheets_of(
    at: int, table: Table, runs: Iterable[Run], groups: Sequence[Group]
) -> tuple[list["Sheet"], list[Run]]:
    """The sheets that a table can have, and the runs that no sheet stands for.

    Args:
        at: The position of the table.
        table: The table.
        runs: Its runs.
        groups: The parameter groups.
    """
    found: dict[object, list[Run]] = {}
    rest = []
    ready = table.vector is not None or not table.counted
    for run in runs:
        if ready and _fits(run, groups[run.group]):
            found.setdefault(run.lane, []).append(run)
        else:
            rest.append(run)
    return [Sheet(at, table, own) for own in found.values()], rest


def _fits(run: Run, group: Group) -> bool:
    """Whether the kernels can make the steps of a run."""
    settings = run.function.keywords
    # What is a tensor may be written to at any time.
    numbers = (group["lr"], group["weight_decay"], *settings.values())
    return (
        run.small
        and run.lane.dtype == torch.float32
        and not run.lane.first
        and not settings.get("amsgrad", False)
        and settings.get("beta1", 0.9) > 0.5
        and all(isinstance(each, float | int) for each in numbers)
    )


class Sheet:
    """Runs of a table that one call steps.

    Args:
        at: The position of the table.
        table: The table.
        runs: The runs, of one lane.
    """

    def __init__(self, at: int, table: Table, runs: Sequence[Run]) -> None:
        self.at, self.table, self.runs = at, table, list(runs)
        self.rows = [row for run in runs for row in range(run.cut.start, run.cut.stop)]
        self.groups = [table.rows[row].group for row in self.rows]
        self.sizes = _longs(int(table.sizes[row]) for row in self.rows)
        columns = zip(*(run.rest[: len(table.names)] for run in runs), strict=True)
        self.moments = [list(chain.from_iterable(column)) for column in columns]
        self.lie = [list(map(Tensor.data_ptr, column)) for column in self.moments]
        self.params = [param for run in runs for param in run.params]
        self.full = self.sizes > 0
        self.of_rows = itemgetter(*self.rows, self.rows[0])  # of two at least, a tuple
        self.known: list[int] = []  # where parameters lie
        self.rates: tuple[object, object] = (None, None)
        self.kernel, self.rest = _kernel(runs[0])
        # What the kernel takes for each row, in its order.
        kept = [_longs(column) for column in self.lie] or [self.sizes]  # not looked at
        self.kept, self.counted = kept, []
        if table.vector is not None:
            self.counted = [_longs(int(table.order[row]) for row in self.rows)]
            self.rest = (table.vector.numpy(), *self.rest)

    # --- at every step

    def stays(self) -> bool:
        """Whether moments are as they were and where; all else the table sees to."""
        return all(
            list(map(Tensor.data_ptr, column)) == lay
            and set(map(_DTYPE, column)) == {torch.float32}
            and not any(map(Tensor.is_neg, column))
            for column, lay in zip(self.moments, self.lie, strict=True)
        )

    def step(
        self, grads: Sequence[Tensor], lrs: Sequence[object], decays: Sequence[object]
    ) -> bool:
        """Step those that have a gradient, or say that torch has to judge.

        Args:
            grads: The gradients of all rows of the table.
            lrs: The learning rates of all groups.
            decays: Their weight decays.

        Returns:
            Whether the step is made. If not, a rate is no number or something has no memory.
        """
        if self.known is not self.table.places:  # the table has found them elsewhere
            self.known = self.table.places
            self.places = _longs(self._picked(self.known))
        if self.rates[0] is not lrs or self.rates[1] is not decays:
            both = [[rates[group] for group in self.groups] for rates in (lrs, decays)]
            if not all(isinstance(rate, float | int) for rate in chain(*both)):
                return False
            self.lrs, self.decays = (np.array(own, dtype=np.float64) for own in both)
            self.rates = lrs, decays
        found = _longs(map(Tensor.data_ptr, self._picked(grads)))
        addresses = (found, self.places, *self.kept)
        if not all(column[self.full].all() for column in addresses):
            return False
        columns = [self.sizes, self.places, found, *self.kept, self.lrs, self.decays]
        columns += self.counted
        params = self.params
        if self.table.here is not None:
            here = self._picked(self.table.here)
            if not any(here):
                return True
            columns = [column[list(here)] for column in columns]
            params = list(compress(params, here))
        self._call(columns)
        # Autograd has to learn that they have changed: a backward pass through the old
        # values is an error then, as it is after torch's default step.
        increment_version(params)
        return True

    def _picked(self, column: Sequence[T]) -> Sequence[T]:
        """Of a column of the table the rows that are here."""
        picked: tuple[T, ...] = self.of_rows(column)
        return picked[:-1]

    def _call(self, columns: Sequence[Array]) -> None:
        """Call the kernel, on several threads if there is enough for them."""

        def call(part: tuple[int, int]) -> None:
            self.kernel(*columns, *self.rest, *part)

        first, *others = _parts(columns[0])
        pending = [_pool(getpid()).submit(call, part) for part in others]
        try:
            call(first)
        finally:  # also when interrupted: they write to memory that is the caller's
            wait(pending)
        for each in pending:
            each.result()  # or its error


def _kernel(run: Run) -> tuple[Callable[..., None], tuple[object, ...]]:
    """The kernel that does what a run's call does, and its settings."""
    told = run.function.keywords
    if run.function.func is torch._fused_sgd_:
        flags = bool(told["nesterov"]), bool(told["maximize"])
        return kernels.sgd, (float(told["momentum"]), float(told["dampening"]), *flags)
    decoupled = run.function.func is torch._fused_adamw_
    numbers = [float(told[key]) for key in ("beta1", "beta2", "eps")]
    return kernels.adam, (*numbers, decoupled, bool(told["maximize"]))


def _parts(sizes: Array) -> list[tuple[int, int]]:
    """First row and end for each thread, of about as many elements."""
    if sizes.sum() < _SHARE:
        return [(0, len(sizes))]
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    parts = min(torch.get_num_threads(), 1 + total // _SHARE)
    cuts = np.searchsorted(ends, [total * n / parts for n in range(1, parts)])
    return list(pairwise([0, *map(int, cuts), len(ends)]))


def _longs(values: Iterable[int]) -> Array:
    return np.fromiter(values, dtype=np.int64)


@cache
def _pool(_process: int) -> ThreadPoolExecutor:
    """Threads of this process; one that was forked from it has none of them."""
    return ThreadPoolExecutor(thread_name_prefix="nnlr")
