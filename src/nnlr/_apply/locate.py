"""A plan meets tensors: look them up by name, lock and unlock them, lay out vectors.

A plan holds names and numbers only. Everything here takes the model anew, so that a model
may be resolved on the meta device and sharded or wrapped before the plan is applied.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nnlr._model import marks
from nnlr._model.names import Slot, Source, slots
from nnlr._rows.row import PlanRow
from nnlr._text import listed, nearest_hint, plural
from nnlr.errors import PlanMismatchError


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
        return any(marks.is_locked(place.tensor, place.module, place.key) for place in self.places)


def locate(rows: Sequence[PlanRow], model: Source, *, partial: bool = False) -> list[Located]:
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
    label = type(model).__name__ if isinstance(model, nn.Module) else "the given tensors"
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
        first_of = {alias: row.name for row in planned.values() for alias in row.aliases}
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
        other = {place.name: name for name, places in by_name.items() for place in places}
        tied = f" It is now tied to {other[missing[0]]!r}." if missing[0] in other else ""
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
