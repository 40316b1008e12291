"""A plan meets tensors: look them up by name, lock and unlock them, lay out vectors.

A plan holds names and numbers only. Everything here takes the model anew, so that a model
may be resolved on the meta device and sharded or wrapped before the plan is applied.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnlr import marks
from nnlr.errors import NnlrError, PlanMismatchError, listed, nearest_hint, plural
from nnlr.names import Slot, Source, inside_ddp, slots, unwrap
from nnlr.rows import PlanRow


@dataclass(frozen=True, slots=True)
class Located:
    """A row and where its tensor hangs in a model."""

    row: PlanRow
    places: tuple[Slot, ...]

    @property
    def tensor(self) -> Tensor:
        """The parameter."""
        return self.places[0].tensor

    @property
    def locked_by_nnlr(self) -> bool:
        """Whether nnlr has switched its gradient off."""
        return any(
            marks.is_locked(place.tensor, place.module, place.key)
            for place in self.places
        )


def locate(
    rows: Sequence[PlanRow], model: Source, *, partial: bool = False
) -> list[Located]:
    """Find the tensor of each row, and refuse a model the rows do not speak of.

    Args:
        rows: The rows of a plan.
        model: The model, or (name, tensor) pairs.
        partial: The model is one stage or shard of what was resolved: rows without a tensor
            are left out, and shapes are not compared.

    Returns:
        The rows that have a tensor, in the order of the model's parameters.

    Raises:
        PlanMismatchError: At the first difference.
    """
    label = (
        type(model).__name__ if isinstance(model, nn.Module) else "the given tensors"
    )
    return locate_slots(rows, slots(model), label, partial=partial)


def locate_slots(
    rows: Sequence[PlanRow], hanging: Iterable[Slot], label: str, *, partial: bool
) -> list[Located]:
    """The same for a model whose places are known, and what to call it."""
    planned = {row.name: row for row in rows}
    hung: dict[int, list[Slot]] = {}
    for slot in hanging:
        hung.setdefault(id(slot.tensor), []).append(slot)
    by_name = {places[0].name: tuple(places) for places in hung.values()}
    _check_names(planned, by_name, label, partial=partial)
    located = [Located(planned[name], places) for name, places in by_name.items()]
    for found in located:
        _check_tensor(found, partial=partial)
    return located


def _check_names(
    planned: Mapping[str, PlanRow],
    by_name: Mapping[str, tuple[Slot, ...]],
    label: str,
    *,
    partial: bool,
) -> None:
    if new := [name for name in by_name if name not in planned]:
        first_of = {
            alias: row.name for row in planned.values() for alias in row.aliases
        }
        hint = nearest_hint(new[0], planned)
        if new[0] in first_of:
            hint = f"It was tied to {first_of[new[0]]!r} when the plan was made."
        raise PlanMismatchError(
            f"{label} has {plural(len(new), 'parameter')} that the plan does not know: "
            f"{listed(new)}. {hint}".rstrip()
            + "\n  The model changed after it was resolved: call nnlr.resolve again.",
            name=new[0],
            names=new,
        )
    missing = [name for name in planned if name not in by_name]
    if missing and not partial:
        other = {
            place.name: name for name, places in by_name.items() for place in places
        }
        tied = (
            f" It is now tied to {other[missing[0]]!r}." if missing[0] in other else ""
        )
        raise PlanMismatchError(
            f"{label} lacks {plural(len(missing), 'parameter')} of the plan: "
            f"{listed(missing)}.{tied}\n"
            "  Call nnlr.resolve again, or pass partial=True if this is one stage of the "
            "resolved model.",
            name=missing[0],
            names=missing,
        )


def _check_tensor(found: Located, *, partial: bool) -> None:
    row, tensor = found.row, found.tensor
    if tuple(tensor.shape) != row.shape and not partial:
        raise PlanMismatchError(
            f"{row.name!r} has the shape {tuple(tensor.shape)}, the plan was made for "
            f"{row.shape}. Call nnlr.resolve again, or pass partial=True if this is a shard.",
            name=row.name,
        )
    trained = tensor.requires_grad or found.locked_by_nnlr
    if trained == row.frozen:
        was, now = ("frozen", "trainable") if trained else ("trainable", "frozen")
        raise PlanMismatchError(
            f"{row.name!r} was {was} when the plan was made and is {now} now "
            f"(requires_grad={tensor.requires_grad}). Call nnlr.resolve again.",
            name=row.name,
        )


@dataclass(frozen=True, slots=True)
class Locks:
    """Gradients to switch off and on: checked, and not touched before :meth:`apply`."""

    off: tuple[Located, ...]
    on: tuple[Located, ...]

    @property
    def flips(self) -> list[Located]:
        """The tensors whose ``requires_grad`` will be another."""
        return [
            *(found for found in self.off if found.tensor.requires_grad),
            *(found for found in self.on if not found.tensor.requires_grad),
        ]

    def refuse_inside_ddp(self, model: object) -> None:
        """Refuse to switch anything if the model, or what a trainer wrapped it in, is DDP.

        Raises:
            NnlrError: If so.
        """
        names = [found.row.name for found in self.flips]
        if names and isinstance(model, nn.Module) and inside_ddp(model):
            raise NnlrError(
                f"{listed(names)} cannot be locked or unlocked inside "
                "DistributedDataParallel, which has already decided whose gradients to "
                "exchange. Call plan.lock() or build the optimizer before wrapping.",
                names=names,
            )

    def apply(self) -> list[str]:
        """Switch them, note on the owners what was done, and return the names."""
        for found in self.off:
            found.tensor.requires_grad_(False)
            # An optimizer would go on applying it, and clipping would count it.
            found.tensor.grad = None
        for found in self.on:
            found.tensor.requires_grad_(True)
        for changed, locked in ((self.off, True), (self.on, False)):
            for place in (place for found in changed for place in found.places):
                marks.set_locked(place.tensor, place.module, place.key, locked=locked)
        return [found.row.name for found in (*self.off, *self.on)]


def plan_locks(
    located: Sequence[Located], model: Source, *, keep: bool = False
) -> Locks:
    """Lock what the rows lock, and restore what nnlr locked before and they train.

    Args:
        located: Rows and their tensors.
        model: The model they are from.
        keep: Leave locked rows trainable; they are kept in a group of learning rate 0.

    Raises:
        NnlrError: If that would change a model that is already inside DDP.
    """
    off, on = [], []
    for found in located:
        if found.row.locked and not keep:
            if found.tensor.requires_grad or found.tensor.grad is not None:
                off.append(found)
        elif found.locked_by_nnlr:
            on.append(found)
    return _checked(off, on, model)


def plan_unlock(located: Sequence[Located], model: Source) -> Locks:
    """Restore what nnlr locked, and nothing else.

    Raises:
        NnlrError: As :func:`plan_locks`.
    """
    return _checked([], [found for found in located if found.locked_by_nnlr], model)


def _checked(off: Sequence[Located], on: Sequence[Located], model: Source) -> Locks:
    locks = Locks(tuple(off), tuple(on))
    locks.refuse_inside_ddp(model)
    if bent := [found.row.name for found in locks.flips if not found.tensor.is_leaf]:
        raise NnlrError(
            f"{listed(bent)} cannot be locked: the tensor is computed from others. Pass "
            "the leaf tensors.",
            names=bent,
        )
    return locks


def refuse_unscaled(rows: Sequence[PlanRow], model: Source, init: str | None) -> None:
    """Refuse a model whose initial weights should have been scaled and are not.

    Raises:
        NnlrError: Unless ``apply_init`` has run, or ``init`` is ``"done"``.
    """
    if init not in (None, "done"):
        raise NnlrError(f"init must be None or 'done', got {init!r}.")
    scaled = [row.name for row in rows if row.init_mult != 1]
    if not scaled or init == "done":
        return
    if isinstance(model, nn.Module) and marks.init_applied(unwrap(model)):
        return
    raise NnlrError(
        f"The plan scales the initial weights of {plural(len(scaled), 'parameter')}, and that "
        "has not been done: call nnlr.apply_init(model, plan) once, or pass init='done' if the "
        "weights are as they should be.",
        names=scaled,
    )


def vectors(located: Sequence[Located]) -> tuple[Tensor, Tensor]:
    """Learning rate and weight decay of every element of the flattened parameters.

    Returns:
        Two tensors of shape ``(total,)``, default dtype, on the parameters' device, aligned
        with ``torch.nn.utils.parameters_to_vector(model.parameters())``. Frozen and locked
        elements are 0 in both.

    Raises:
        NnlrError: If the parameters are on several devices.
    """
    devices = {found.tensor.device for found in located}
    if len(devices) > 1:
        raise NnlrError(
            f"The parameters are on several devices ({listed(sorted(map(str, devices)))}), so "
            "one vector cannot line up with them.",
            devices=devices,
        )
    device = next(iter(devices), None)
    counts = torch.tensor([found.row.numel for found in located], dtype=torch.long)
    rates = [
        (found.row.lr, found.row.weight_decay) if found.row.trainable else (0.0, 0.0)
        for found in located
    ]
    table = torch.tensor(rates, dtype=torch.get_default_dtype()).reshape(-1, 2)
    lrs, decays = table.repeat_interleave(counts, dim=0).unbind(dim=1)
    return lrs.contiguous().to(device), decays.contiguous().to(device)
