"""Lock and unlock tensors: switch their gradients off and on."""

import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._model import marks
from nnlr._model.names import Source, inside_ddp
from nnlr._text import listed, plural, warn
from nnlr.errors import NnlrError

# The living optimizers that were built on a plan, and the versions of their tensors then.
_BUILT: Final[weakref.WeakKeyDictionary[Optimizer, dict[int, int]]] = weakref.WeakKeyDictionary()


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

    def apply(self, optimizer: object = None) -> list[str]:
        """Switch them, note on the owners what was done, and return the names.

        A warning tells of other optimizers that go without; ``optimizer`` is the one that the
        tensors are locked for.
        """
        if self.off:
            self._warn_of_others(optimizer)
        if isinstance(optimizer, Optimizer):
            _BUILT[optimizer] = {id(tensor): _version(tensor) for tensor in _tensors(optimizer)}
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

    def _warn_of_others(self, optimizer: object) -> None:
        """Warn where an optimizer of another plan has stepped what is locked, or is to step it.

        An optimizer that has not begun may be one that is replaced. Where the two have nothing
        in common it is not: each is to train a part.
        """
        names = {id(param.tensor): param.row.name for param in self.off}
        trained = set(map(id, _tensors(optimizer))) if isinstance(optimizer, Optimizer) else set()

        def bereft() -> list[tuple[Optimizer, list[str]]]:
            others = [other for other in _BUILT if other is not optimizer]
            taken = [
                (other, [tensor for tensor in _tensors(other) if id(tensor) in names])
                for other in others
            ]
            return [
                (other, [names[id(tensor)] for tensor in tensors])
                for other, tensors in taken
                if tensors
                and (
                    _stepped(other, tensors)
                    or (trained and trained.isdisjoint(map(id, _tensors(other))))
                )
            ]

        if not bereft():
            return
        gc.collect()  # schedulers and optimizers refer to each other
        for other, taken in bereft():
            name = type(other).__name__
            user = (
                "this plan" if optimizer is None else f"the plan of this {type(optimizer).__name__}"
            )
            warn(
                f"A living {name} trains {plural(len(taken), 'parameter')} that {user} locks: "
                f"{listed(taken)}. From now on nothing trains them. If that {name} is out of "
                "use, nothing is wrong; delete it. If both are to train, each needs its own "
                "part of the model, and no locks: build both from one plan that trains all, "
                "with plan.optimizer(cls, model={name: tensor, ...}, partial=True)."
            )


def _tensors(optimizer: Optimizer) -> list[Tensor]:
    """The tensors in an optimizer's groups."""
    return [tensor for group in optimizer.param_groups for tensor in group["params"]]


def _stepped(optimizer: Optimizer, tensors: Sequence[Tensor]) -> bool:
    """Whether an optimizer has stepped tensors: by its state, or by their changes if it has none.

    A change is not its own if another optimizer, one with state, was built on the tensor too.
    """
    versions = _BUILT[optimizer]
    explained = {key for other, seen in _BUILT.items() if other.state for key in seen}
    return any(
        optimizer.state.get(tensor)
        or (versions.get(id(tensor)) != _version(tensor) and id(tensor) not in explained)
        for tensor in tensors
    )


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place, as far as torch counts it."""
    return 0 if tensor.is_inference() else tensor._version


def plan_locks(located: Sequence[Located], model: Source, *, keep: bool = False) -> Locks:
    """Lock what the rows lock, and restore what nnlr locked before and they train.

    ``keep`` leaves locked rows trainable, in a group of learning rate 0.
    """
    off, on = [], []
    for param in located:
        if param.row.locked and not keep:
            if param.tensor.requires_grad or param.tensor.grad is not None:
                off.append(param)
        elif param.locked_by_nnlr and not _follows_a_move(param):
            on.append(param)
    return _checked(off, on, model)


def _follows_a_move(param: Located) -> bool:
    """Whether a move locks and unlocks a tensor; ``nnlr.attach`` does it."""
    moves = (step.factor.move for step in param.row.trace)
    return param.row.trainable and any(move is not None and move.locks for move in moves)


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
