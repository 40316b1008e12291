"""Gradients of what a move has locked, and their state."""

from collections.abc import Sequence

from torch import Tensor

from nnlr._model import marks
from nnlr._rows.units import Mover, Param


class Locks:
    """Switches off the gradients of what a locking move has at 0, and on again what it has not."""

    def __init__(self, movers: Sequence[Mover]) -> None:
        self._units = [
            (unit, mover.move.drops_state)
            for mover in movers
            if mover.move.locks
            for unit in mover.units.values()
        ]
        self._zeros: list[bool] = []  # of each unit, when it was looked at
        self._tensors: list[Tensor] = []  # that are locked

    def follow(self, *, every: bool = False) -> None:
        """Switch what has changed; ``every`` also what somebody else has switched."""
        zeros = [unit.mult == 0 for unit, _ in self._units]
        if zeros == self._zeros and not every:
            return
        self._zeros, self._tensors = zeros, []
        wanted: dict[int, tuple[Param, bool]] = {}
        for (unit, drops), zero in zip(self._units, zeros, strict=True):
            for param in unit.params:
                _, locked = wanted.get(id(param.tensor), (param, False))
                wanted[id(param.tensor)] = param, zero or locked
                if zero and drops:
                    unit.optimizer.state.pop(param.tensor, None)
        for param, locked in wanted.values():
            if locked == param.tensor.requires_grad:
                param.tensor.requires_grad_(not locked)
                for place in param.places:
                    marks.set_locked(place.tensor, place.module, place.key, locked=locked)
            if locked:
                self._tensors.append(param.tensor)
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Take gradients away that locked tensors have: an optimizer would apply them."""
        for tensor in self._tensors:
            tensor.grad = None
