"""Find the tensor of each row of a plan in a model, by name.

A plan holds names and numbers only, so that a model may be resolved on the meta device and
sharded or wrapped before the plan is applied.
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
    """A row and the places of its tensor in a model."""

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
    """Return the rows with their tensors, in the model's order; refuse another model.

    Of a stage or shard (``partial``) rows without a tensor are left out, and shapes not compared.
    """
    label = type(model).__name__ if isinstance(model, nn.Module) else "the given tensors"
    return locate_slots(rows, slots(model), label, partial=partial)


def locate_slots(
    rows: Sequence[PlanRow], slots: Iterable[Slot], label: str, *, partial: bool
) -> list[Located]:
    """The same for the places of a model's parameters, and what to call the model."""
    row_of = {row.name: row for row in rows}
    by_tensor: dict[int, list[Slot]] = {}
    for slot in slots:
        by_tensor.setdefault(id(slot.tensor), []).append(slot)
    places_of = {places[0].name: tuple(places) for places in by_tensor.values()}
    _check_names(row_of, places_of, label, partial=partial)
    located = [Located(row_of[name], places) for name, places in places_of.items()]
    for param in located:
        _check_tensor(param, partial=partial)
    return located


def _check_names(
    row_of: Mapping[str, PlanRow],
    places_of: Mapping[str, tuple[Slot, ...]],
    label: str,
    *,
    partial: bool,
) -> None:
    """Refuse a model that has other parameters than the rows."""
    if new := [name for name in places_of if name not in row_of]:
        first_of = {alias: row.name for row in row_of.values() for alias in row.aliases}
        hint = nearest_hint(new[0], row_of)
        if new[0] in first_of:
            hint = f"It was tied to {first_of[new[0]]!r} when the plan was made."
        raise PlanMismatchError(
            f"{label} has {plural(len(new), 'parameter')} that the plan does not know: "
            f"{listed(new)}. {hint}".rstrip()
            + "\n  The model changed after it was resolved: call nnlr.resolve again.",
            name=new[0],
            names=new,
        )
    missing = [name for name in row_of if name not in places_of]
    if missing and not partial:
        first_name = {place.name: name for name, places in places_of.items() for place in places}
        tied = first_name.get(missing[0])
        hint = "" if tied is None else f" It is now tied to {tied!r}."
        raise PlanMismatchError(
            f"{label} lacks {plural(len(missing), 'parameter')} of the plan: "
            f"{listed(missing)}.{hint}\n"
            "  Call nnlr.resolve again, or pass partial=True if this is one stage of the "
            "resolved model.",
            name=missing[0],
            names=missing,
        )


def _check_tensor(param: Located, *, partial: bool) -> None:
    """Refuse a tensor of another shape, or one that was frozen or unfrozen since."""
    row, tensor = param.row, param.tensor
    if tuple(tensor.shape) != row.shape and not partial:
        raise PlanMismatchError(
            f"{row.name!r} has the shape {tuple(tensor.shape)}, the plan was made for "
            f"{row.shape}. Call nnlr.resolve again, or pass partial=True if this is a shard.",
            name=row.name,
        )
    trained = tensor.requires_grad or param.locked_by_nnlr
    # Whoever froze what the plan locks did as it says.
    if trained if row.frozen else not (trained or row.locked):
        was, now = ("frozen", "trainable") if trained else ("trainable", "frozen")
        raise PlanMismatchError(
            f"{row.name!r} was {was} when the plan was made and is {now} now "
            f"(requires_grad={tensor.requires_grad}). Call nnlr.resolve again.",
            name=row.name,
        )
