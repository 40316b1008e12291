"""What is looked at: a model, its plan, its optimizers and schedulers, by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from numbers import Real
from typing import Any, Final, NamedTuple, Protocol

from torch import Tensor
from torch.optim import Optimizer

from nnlr._model import marks
from nnlr._model.names import Slot, Source, slots
from nnlr._plan import Plan
from nnlr._text import shown
from nnlr.errors import NnlrError

Group = Mapping[str, Any]

# Where trainers keep the optimizer that they wrap.
_INNER: Final = ("optimizer", "_optimizer")


class Scheduling(Protocol):
    """A scheduler of anyone's."""

    optimizer: Any
    step: Callable[..., Any]


class Member(NamedTuple):
    """A parameter in a group of an optimizer; a tuple, as there may be very many.

    Attributes:
        name: Canonical name, or what the optimizer calls it if the model lacks it.
        tensor: The parameter.
        group: Its group.
        label: The name of that.
        slot: Where it hangs in the model; ``None`` if it does not.
    """

    name: str
    tensor: Tensor
    group: Group
    label: str
    slot: Slot | None

    @property
    def locked(self) -> bool:
        """Whether nnlr has locked it."""
        return is_locked(self.slot) if self.slot else False


@dataclass(frozen=True)
class Subject:
    """Everything that a look may ask for; nothing here is changed.

    Attributes:
        source: The model.
        plan: Its plan, if one was given.
        partial: Whether the model is a stage or shard of the plan's.
        optimizers: The optimizers, without what trainers wrap around them.
        schedulers: The schedulers, likewise.
        deepspeed: A configuration of DeepSpeed.
    """

    source: Source
    plan: Plan | None
    partial: bool
    optimizers: tuple[Optimizer, ...]
    schedulers: tuple[Scheduling, ...]
    deepspeed: Mapping[str, Any] | None

    @cached_property
    def places(self) -> tuple[Slot, ...]:
        """Every place of every parameter of the model."""
        return tuple(slots(self.source))

    @cached_property
    def slots(self) -> dict[int, Slot]:
        """The first place of each parameter of the model, by its identity."""
        found: dict[int, Slot] = {}
        for slot in self.places:
            found.setdefault(id(slot.tensor), slot)
        return found

    @cached_property
    def groups(self) -> tuple[tuple[str, Group], ...]:
        """The groups of all optimizers and what to call them."""
        return tuple(pair for optimizer in self.optimizers for pair in labelled(optimizer))

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The parameters of all groups."""
        return tuple(_members(self.groups, self.slots))


def labelled(optimizer: Optimizer) -> list[tuple[str, Group]]:
    """The groups of an optimizer and what to call them."""
    return [
        (str(group.get("name", f"group {position}")), group)
        for position, group in enumerate(optimizer.param_groups)
    ]


def _members(groups: Iterable[tuple[str, Group]], known: Mapping[int, Slot]) -> Iterator[Member]:
    for label, group in groups:
        given = group.get("param_names", ())
        for position, tensor in enumerate(group["params"]):
            slot = known.get(id(tensor))
            if slot is not None:
                name = slot.name
            elif position < len(given):
                name = given[position]
            else:
                name = f"{label}[{position}]"
            yield Member(name, tensor, group, label, slot)


def is_locked(slot: Slot) -> bool:
    """Whether nnlr has locked the parameter that hangs there."""
    return marks.is_locked(slot.tensor, slot.module, slot.key)


def rate(group: Group, key: str) -> float | None:
    """A setting as a finite number; ``None`` if it is missing or no such thing."""
    value = group.get(key)
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = float(value)
    return number if isfinite(number) else None


def start(group: Group, key: str = "lr") -> float | None:
    """Where a schedule of the setting began; the setting itself if there is none."""
    noted = rate(group, f"initial_{key}")
    return rate(group, key) if noted is None else noted


def peak(group: Group) -> float | None:
    """The largest learning rate that a group is known to get."""
    rates = [rate(group, key) for key in ("lr", "initial_lr", "max_lr")]
    return max((each for each in rates if each is not None), default=None)


def unwrapped(optimizer: object) -> object:
    """What a trainer's wrapper holds; the optimizer itself if it is none."""
    while True:
        # Not getattr: Lightning's wrapper forwards what it does not have.
        held = vars(optimizer) if hasattr(optimizer, "__dict__") else {}
        inner = next((held[attr] for attr in _INNER if attr in held), None)
        if not isinstance(inner, Optimizer):
            return optimizer
        optimizer = inner


def given_optimizers(given: object) -> tuple[Optimizer, ...]:
    """The optimizers themselves.

    Raises:
        NnlrError: If something else was passed.
    """
    found = []
    for each in _several(given):
        inner = unwrapped(each)
        if not isinstance(inner, Optimizer):
            raise NnlrError(
                f"check needs a torch optimizer, or a list of them, got {shown(each)}. Of an "
                "optimizer that a trainer has wrapped, pass the inner one; for a placeholder "
                "such as DummyOptim pass none, and the configuration as deepspeed=."
            )
        found.append(inner)
    return tuple(found)


def given_schedulers(given: object) -> tuple[Scheduling, ...]:
    """The schedulers themselves; Lightning and Accelerate keep them in ``scheduler``.

    Raises:
        NnlrError: If something else was passed.
    """
    found = []
    for each in _several(given):
        inner: Any = each.get("scheduler") if isinstance(each, Mapping) else each
        while not hasattr(inner, "optimizer") and hasattr(inner, "scheduler"):
            inner = inner.scheduler
        if not (hasattr(inner, "step") and hasattr(inner, "optimizer")):
            raise NnlrError(
                f"check needs a scheduler, or a list of them, got {shown(each)}. It has to "
                "have step(), and the optimizer that it schedules as .optimizer."
            )
        found.append(inner)
    return tuple(found)


def _several(given: object) -> Sequence[Any]:
    if given is None:
        return ()
    return given if isinstance(given, list | tuple) else (given,)
