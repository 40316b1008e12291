"""Lock and unlock tensors: switch their gradients off and on."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from nnlr._apply.locate import Located
from nnlr._model import marks
from nnlr._model.names import Source, inside_ddp
from nnlr._text import listed
from nnlr.errors import NnlrError


@dataclass(frozen=True, slots=True)
class Locks:
    """Gradients to switch off and on: checked, and not changed before :meth:`apply`."""

    off: tuple[Located, ...]
    on: tuple[Located, ...]

    @property
    def changed(self) -> list[Located]:
        """The tensors whose ``requires_grad`` will change."""
        return [
            *(param for param in self.off if param.tensor.requires_grad),
            *(param for param in self.on if not param.tensor.requires_grad),
        ]

    def refuse_inside_ddp(self, model: object) -> None:
        """Refuse to switch anything if the model, or what a trainer wrapped it in, is DDP."""
        names = [param.row.name for param in self.changed]
        if names and isinstance(model, nn.Module) and inside_ddp(model):
            raise NnlrError(
                f"{listed(names)} cannot be locked or unlocked inside "
                "DistributedDataParallel, which has already decided whose gradients to "
                "exchange. Call plan.lock() or build the optimizer before wrapping.",
                names=names,
            )

    def apply(self) -> list[str]:
        """Switch them, note on the owners what was done, and return the names."""
        for param in self.off:
            param.tensor.requires_grad_(False)
            # An optimizer would go on applying it, and clipping would count it.
            param.tensor.grad = None
        for param in self.on:
            param.tensor.requires_grad_(True)
        for params, locked in ((self.off, True), (self.on, False)):
            for place in (place for param in params for place in param.places):
                marks.set_locked(place.tensor, place.module, place.key, locked=locked)
        return [param.row.name for param in (*self.off, *self.on)]


def plan_locks(located: Sequence[Located], model: Source, *, keep: bool = False) -> Locks:
    """Lock what the rows lock, and restore what nnlr locked before and they train.

    ``keep`` leaves locked rows trainable, in a group of learning rate 0.
    """
    off, on = [], []
    for param in located:
        if param.row.locked and not keep:
            if param.tensor.requires_grad or param.tensor.grad is not None:
                off.append(param)
        elif param.locked_by_nnlr:
            on.append(param)
    return _checked(off, on, model)


def plan_unlock(located: Sequence[Located], model: Source) -> Locks:
    """Restore what nnlr locked, and nothing else."""
    return _checked([], [param for param in located if param.locked_by_nnlr], model)


def _checked(off: Sequence[Located], on: Sequence[Located], model: Source) -> Locks:
    """The locks, unless DDP or a tensor that is no leaf forbids one of them."""
    locks = Locks(tuple(off), tuple(on))
    locks.refuse_inside_ddp(model)
    if computed := [param.row.name for param in locks.changed if not param.tensor.is_leaf]:
        raise NnlrError(
            f"{listed(computed)} cannot be locked: the tensor is computed from others. Pass "
            "the leaf tensors.",
            names=computed,
        )
    return locks
