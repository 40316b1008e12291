"""The lists that a fused kernel wants, kept from step to step.

A table has a row for each parameter that one call or several can step alike. Its columns
are what the kernels take: parameters, moments, counters. Rows that share all settings stand
together in a *run*, one kernel call, which lists can be sliced for. Only the gradients are
new at each step, and with them comes the check that nothing else has moved since.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from itertools import chain, compress, groupby
from operator import attrgetter, is_, itemgetter
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from nnlr.optim._fast_path import PLAIN, part
from nnlr.optim._state import State
from nnlr.optim._threads import GRAIN

# Fused calls change what these give for no tensor, and reading them is quick.
_GRAD: Final = attrgetter("grad")

_KIND: Final = attrgetter("dtype", "layout")

_DTYPE: Final = attrgetter("dtype")

_DEVICE: Final = attrgetter("device")

_LOCAL: Final = attrgetter("_local_tensor")

_PLACED: Final = attrgetter("_spec.mesh", "_spec.placements")


class Call(NamedTuple):
    """A fused call, its settings filled in but for the rates."""

    function: partial[Any]
    rest: tuple[list[Tensor], ...]  # what it takes after parameters and gradients


# A group, whether a moment begins, the moments and the counters -> the call.
Caller = Callable[[dict[str, Any], bool, list[list[Tensor]], list[Tensor]], Call]


class Lane(NamedTuple):
    """What rows must share, beside their rates, to be stepped by one call."""

    settings: Hashable  # of their groups, all but the rates
    device: torch.device
    dtype: torch.dtype
    first: bool  # whether a moment begins


class Row(NamedTuple):
    """A parameter, and what the optimizer keeps about it."""

    group: int
    param: Tensor
    state: State
    moments: tuple[Tensor, ...]
    lane: Lane


class Run(NamedTuple):
    """Rows that one call steps: a slice of the table, cut out."""

    group: int  # one of theirs; its rates are those of all
    lane: Lane
    cut: slice
    small: bool  # whether one thread is quicker than all
    params: list[Tensor]
    function: partial[Any]
    rest: tuple[list[Tensor], ...]


class Table:
    """Rows that keep the same kind of state.

    Args:
        rows: One for each parameter, at least one.
        names: What their moments are called in the state.
        sharded: Whether they are DTensors, of which the local parts are stepped.
    """

    def __init__(self, rows: Sequence[Row], names: Sequence[str], *, sharded: bool) -> None:
        self.rows = list(rows)
        self.names = tuple(names)
        self.counted = "step" in rows[0].state
        self.sharded = sharded
        self.vector: Tensor | None = None  # all steps are its elements, if there is one
        self.here: list[bool] | None = None  # who has a gradient, unless all have
        self._fill()

    def _fill(self) -> None:
        """Make the columns of the rows as they stand."""
        rows = self.rows
        self.params = [row.param for row in rows]
        self.states = [row.state for row in rows]
        self.moments = [list(column) for column in zip(*(row.moments for row in rows), strict=True)]
        self.steps = [row.state["step"] for row in rows] if self.counted else []
        self.kept = list(self._held())
        self.counted_at = list(map(Tensor.data_ptr, self.steps))
        self.order = list(map(Tensor.storage_offset, self.steps))  # in the vector
        self.locals = list(map(_LOCAL, self.params)) if self.sharded else self.params
        self.placed = list(map(_PLACED, self.params)) if self.sharded else []
        self.strides = list(map(Tensor.stride, self.locals))
        self.sizes = list(map(Tensor.numel, self.locals))
        self.kinds = list(map(_KIND, self.locals))
        self.dtypes = list(map(_DTYPE, self.locals))
        self.devices = list(map(_DEVICE, self.locals))
        self.places = list(map(Tensor.data_ptr, self.locals))

    # --- at every step

    def gradients(self) -> list[Tensor] | None:
        """The gradients of all rows, or ``None`` if anything has moved since the last step.

        Where a gradient lies in memory otherwise than its parameter, it is copied: the
        kernels walk through both as they lie. Where there is none the parameter stands in
        for it, and passes all checks; ``here`` tells who is stepped.
        """
        grads = list(map(_GRAD, self.params))
        self.here = None
        if type(None) in set(map(type, grads)):
            self.here = [grad is not None for grad in grads]
            grads = [
                param if grad is None else grad
                for param, grad in zip(self.params, grads, strict=True)
            ]
        if self.sharded:
            if (
                set(map(type, grads)) != {type(self.params[0])}
                or list(map(_PLACED, grads)) != self.placed
                or not same(map(_LOCAL, self.params), self.locals)
            ):
                return None
            grads = list(map(_LOCAL, grads))
        if (
            not set(map(type, grads)) <= PLAIN
            or list(map(_KIND, grads)) != self.kinds
            or list(map(Tensor.numel, grads)) != self.sizes
            or not self._state_stays()
            or not self._parameters_stay()
        ):
            return None
        if any(map(Tensor.is_neg, grads)):  # the kernels look at memory only
            grads = [grad.resolve_neg() for grad in grads]
        strides = list(map(Tensor.stride, grads))
        if strides != self.strides:
            for at, (stride, wanted) in enumerate(zip(strides, self.strides, strict=True)):
                if stride != wanted:
                    grads[at] = torch.empty_like(self.locals[at]).copy_(grads[at])
        return grads

    def _held(self) -> Iterable[object]:
        """What the states hold of what is stepped, one state after the other."""
        keys = (*self.names, "step") if self.counted else self.names
        found = map(itemgetter(*keys), self.states) if keys else iter(())
        return found if len(keys) == 1 else chain.from_iterable(found)

    def _state_stays(self) -> bool:
        """Whether the moments and counters are the tensors that the state holds."""
        try:
            if not same(self._held(), self.kept):
                return False
        except KeyError:
            return False
        # A counter's data may have been replaced, and then no vector counts for it.
        return list(map(Tensor.data_ptr, self.steps)) == self.counted_at

    def _parameters_stay(self) -> bool:
        """Whether the parameters lie in memory as they did, be it elsewhere."""
        places = list(map(Tensor.data_ptr, self.locals))
        if (
            list(map(Tensor.stride, self.locals)) != self.strides
            or list(map(Tensor.numel, self.locals)) != self.sizes
        ):
            return False  # also in the same place: transposed or cut, say
        if list(map(_DTYPE, self.locals)) != self.dtypes or any(map(Tensor.is_neg, self.locals)):
            return False
        if places == self.places:
            return True
        self.places = places
        return (
            list(map(_KIND, self.locals)) == self.kinds
            and list(map(_DEVICE, self.locals)) == self.devices
        )

    def count(self) -> None:
        """Count a step of every row that has a gradient."""
        if self.vector is not None:
            if self.here is None:
                self.vector.add_(1)
            else:
                here = torch.tensor(self.here, dtype=self.vector.dtype)
                self.vector.index_add_(0, torch.tensor(self.order), here)
        elif steps := self._counters():
            torch._foreach_add_(steps, 1)

    def take_back(self, found_inf: Tensor) -> None:
        """Take the step back where a gradient was not finite: ``found_inf`` is 1 there."""
        if steps := self._counters():
            like = {step.device: found_inf.to(step.device) for step in steps}
            torch._foreach_sub_(steps, [like[step.device] for step in steps])

    def _counters(self) -> list[Tensor]:
        return self.steps if self.here is None else list(compress(self.steps, self.here))

    def called(self, run: "Run", grads: list[Tensor]) -> tuple[list[Tensor], ...]:
        """What the call of a run takes: columns of those that have a gradient."""
        columns = (run.params, grads[run.cut], *run.rest)
        here = self.here and self.here[run.cut]
        if not here or all(here):
            return columns
        return tuple(list(compress(column, here)) for column in columns)

    # --- when something has changed

    def arrange(
        self,
        groups: Sequence[dict[str, Any]],
        partition: Sequence[int],
        caller: Caller,
    ) -> list[Run]:
        """Order the rows so that those which one call can step stand together.

        Args:
            groups: The parameter groups.
            partition: A number for each group, the same for groups of equal rates.
            caller: Gives the calls.
        """
        first: dict[tuple[Lane, int, bool], int] = {}
        ranked = [
            (
                first.setdefault((row.lane, partition[row.group], _is_small(row)), len(first)),
                row,
            )
            for row in self.rows
        ]
        ranked.sort(key=itemgetter(0))
        self.rows = [row for _, row in ranked]
        self._fill()
        runs = []
        stop = 0
        for _, members in groupby(ranked, key=itemgetter(0)):
            start, stop = stop, stop + len(list(members))
            row, cut = self.rows[start], slice(start, stop)
            moments = [self._own(column[cut]) for column in self.moments]
            group = groups[row.group]
            call = caller(group, row.lane.first, moments, self.steps[cut])
            small = _is_small(row)
            runs.append(Run(row.group, row.lane, cut, small, self.locals[cut], *call))
        return runs

    def _own(self, column: list[Tensor]) -> list[Tensor]:
        return list(map(_LOCAL, column)) if self.sharded else column

    def pack(self) -> None:
        """Make all counters elements of one vector, so that one addition counts them.

        On a CPU only: on a GPU one launch adds to many tensors, and a graph that was
        captured must find them where they were.
        """
        if (
            self.vector is None
            and self.steps
            and all(step.is_cpu for step in self.steps)
            and not torch.is_inference_mode_enabled()  # it would be of that mode for ever
        ):
            self.vector = torch.stack(self.steps)
            for state, element in zip(self.states, self.vector.unbind(), strict=True):
                state["step"] = element


def _is_small(row: Row) -> bool:
    own = part(row.param)
    return own.is_cpu and own.numel() < GRAIN


def same(ones: Any, others: Sequence[object]) -> bool:  # noqa: ANN401 - a map
    """Whether two of one length hold the very same objects."""
    return all(map(is_, ones, others))
