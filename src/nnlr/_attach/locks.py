"""Gradients of units that a move has locked, and their state."""

from collections.abc import Sequence

from nnlr._model import marks
from nnlr._rows.units import Mover, Param, Unit


def set_locks(movers: Sequence[Mover]) -> None:
    """Switch off the gradients of what a locking move has at 0, and on again what it has not."""
    wanted: dict[int, tuple[Param, Unit, bool, bool]] = {}
    for mover in movers:
        if mover.move.locks:
            for unit in mover.units.values():
                for param in unit.params:
                    locked, drops = unit.mult == 0, mover.move.drops_state
                    if (before := wanted.get(id(param.tensor))) is not None:
                        locked, drops = locked or before[2], drops or before[3]
                    wanted[id(param.tensor)] = (param, unit, locked, drops)
    for param, unit, locked, drops in wanted.values():
        if locked == param.tensor.requires_grad:
            param.tensor.requires_grad_(not locked)
            for place in param.places:
                marks.set_locked(place.tensor, place.module, place.key, locked=locked)
        if locked:
            param.tensor.grad = None
            if drops:
                unit.optimizer.state.pop(param.tensor, None)
