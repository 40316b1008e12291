"""The lists that a fused kernel wants, kept from step to step.

A table has a row for each parameter that one call or several can step alike. Its columns
are what the kernels take: parameters, moments, counters. Rows that share all settings stand
together in a *run*, one kernel call, which lists can be sliced for. Only the gradients are
new at each step, and with them comes the check that nothing else has moved since.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import groupby
from operator import attrgetter, is_, itemgetter
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from nnlr.optim.keeping import State
from nnlr.optim.obstacles import PLAIN

# Fused calls change what these give for no tensor, and reading them is quick.
_GRAD: Final = attrgetter("grad")
_DTYPE: Final = attrgetter("dtype")
_LAYOUT: Final = attrgetter("layout")
_DENSE: Final = frozenset({torch.strided})
_LOCAL: Final = attrgetter("_local_tensor")
_PLACED: Final = attrgetter("_spec.mesh", "_spec.placements")


class Call(NamedTuple):
    """A fused call, its settings filled in but for the rates."""

    function: Callable[..., object]
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
    cut: slice
    params: list[Tensor]
    function: Callable[..., object]
    rest: tuple[list[Tensor], ...]


class Table:
    """Rows that keep the same kind of state.

    Args:
        rows: One for each parameter, at least one.
        names: What their moments are called in the state.
        sharded: Whether they are DTensors, of which the local parts are stepped.
    """

    def __init__(
        self, rows: Sequence[Row], names: Sequence[str], *, sharded: bool
    ) -> None:
        self.rows = list(rows)
        self.names = tuple(names)
        self.counted = "step" in rows[0].state
        self.sharded = sharded
        self.vector: Tensor | None = None  # all steps are its elements, if there is one
        self._fill()

    def _fill(self) -> None:
        """Make the columns of the rows as they stand."""
        rows = self.rows
        self.params = [row.param for row in rows]
        self.states = [row.state for row in rows]
        self.moments = [
            list(column) for column in zip(*(row.moments for row in rows), strict=True)
        ]
        self.steps = [row.state["step"] for row in rows] if self.counted else []
        self.addresses = list(map(Tensor.data_ptr, self.steps))
        self.locals = list(map(_LOCAL, self.params)) if self.sharded else self.params
        self.placed = list(map(_PLACED, self.params)) if self.sharded else []
        self.strides = list(map(Tensor.stride, self.locals))
        self.sizes = list(map(Tensor.numel, self.locals))
        self.dtypes = list(map(_DTYPE, self.locals))

    # --- at every step

    def gradients(self) -> list[Tensor] | None:
        """The gradients of all rows, or ``None`` if anything has moved since the last step.

        Where a gradient lies in memory otherwise than its parameter, it is copied: the
        kernels walk through both as they lie.
        """
        grads = list(map(_GRAD, self.params))
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
            or not set(map(_LAYOUT, grads)) <= _DENSE
            or not self._state_stays()
            or list(map(Tensor.numel, grads)) != self.sizes
            or list(map(_DTYPE, grads)) != self.dtypes
            or list(map(Tensor.numel, self.locals)) != self.sizes
            or list(map(Tensor.stride, self.locals)) != self.strides
        ):
            return None
        strides = list(map(Tensor.stride, grads))
        if strides != self.strides:
            for at, (stride, wanted) in enumerate(
                zip(strides, self.strides, strict=True)
            ):
                if stride != wanted:
                    grads[at] = torch.empty_like(self.locals[at]).copy_(grads[at])
        return grads

    def _state_stays(self) -> bool:
        """Whether the moments and counters are the tensors that the state holds."""
        states = self.states
        try:
            return all(
                same(map(itemgetter(name), states), column)
                for name, column in zip(self.names, self.moments, strict=True)
            ) and (
                not self.counted
                or (
                    same(map(itemgetter("step"), states), self.steps)
                    # Its data may have been replaced, and then no vector counts for it.
                    and list(map(Tensor.data_ptr, self.steps)) == self.addresses
                )
            )
        except KeyError:
            return False

    def count(self) -> None:
        """Count a step of every row."""
        if self.vector is not None:
            self.vector.add_(1)
        elif self.counted:
            torch._foreach_add_(self.steps, 1)

    def take_back(self, found_inf: Tensor) -> None:
        """Take the step back where a gradient was not finite: ``found_inf`` is 1 there."""
        if self.counted:
            like = {step.device: found_inf.to(step.device) for step in self.steps}
            torch._foreach_sub_(self.steps, [like[step.device] for step in self.steps])

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
        first: dict[tuple[Lane, int], int] = {}
        ranked = [
            (first.setdefault((row.lane, partition[row.group]), len(first)), row)
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
            runs.append(Run(row.group, cut, self.locals[cut], *call))
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
        ):
            self.vector = torch.stack(self.steps)
            for state, element in zip(self.states, self.vector.unbind(), strict=True):
                state["step"] = element


def same(ones: Any, others: Sequence[object]) -> bool:  # noqa: ANN401 - a map
    """Whether two of one length hold the very same objects."""
    return all(map(is_, ones, others))
