"""What ``nnlr.check`` looks at: a model, its plan, its optimizers and schedulers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from numbers import Real
from typing import Any, NamedTuple, TypeGuard

from torch import Tensor
from torch.optim import Optimizer

from nnlr._model import marks
from nnlr._model.describe import ParamInfo, describe
from nnlr._model.names import Slot, Source, slots
from nnlr._plan import Plan
from nnlr._relative.update import updates_of
from nnlr._rows.row import PlanRow
from nnlr._schedule.base_rate import scheduled
from nnlr._schedule.origin import ORIGIN
from nnlr._schedule.ratio_scheduler import RatioPlateau, RatioScheduler
from nnlr._schedule.rehearsal import Scheduling
from nnlr._text import shown
from nnlr.depth._flow import Flow
from nnlr.errors import NnlrError
from nnlr.optim._members import ALGORITHM
from nnlr.optim._mixed import Mixed, by_algorithm
from nnlr.optim._update_size import Size, is_muon, update_size
from nnlr.optim._wrapped import unwrapped

SettingsOfGroup = Mapping[str, Any]


class Member(NamedTuple):
    """A parameter in a group of an optimizer."""

    name: str  # canonical, or what the optimizer calls it if the model lacks it
    tensor: Tensor
    group: SettingsOfGroup
    label: str  # of the group
    slot: Slot | None  # where it hangs in the model; None if the model lacks it

    @property
    def locked(self) -> bool:
        """Whether nnlr has locked it."""
        slot = self.slot
        return slot is not None and marks.is_locked(slot.tensor, slot.module, slot.key)


class Trained(NamedTuple):
    """A parameter, what it is for, and the optimizer that steps it."""

    member: Member
    param: PlanRow | ParamInfo
    part: Optimizer
    muon: bool  # whether Muon trains it, or would if it were a matrix
    is_relative: bool  # whether its rate is a relative change

    @property
    def size(self) -> Size | None:
        """How large its update is, absolutely; ``None`` where that is not known."""
        lr = None if self.is_relative else start(self.member.group)
        relative = update_size(type(self.part), self.member.group, self.param.shape)
        return Size(relative.low * lr, relative.high * lr) if relative and lr else None


@dataclass(frozen=True)
class Subject:
    """Everything that the functions that look may read; nothing here is changed."""

    source: Source  # the model
    plan: Plan | None
    partial: bool  # whether the model is a stage or shard of the plan's
    optimizers: tuple[Optimizer, ...]  # without what trainers wrap around them
    schedulers: tuple[Scheduling, ...]  # likewise
    deepspeed: Mapping[str, Any] | None  # its configuration
    example: Flow | None = None  # what the model is called with

    @cached_property
    def places(self) -> tuple[Slot, ...]:
        """Every place of every parameter of the model."""
        return tuple(slots(self.source))

    @cached_property
    def slots(self) -> dict[int, Slot]:
        """The first place of each parameter of the model, by its identity."""
        first: dict[int, Slot] = {}
        for slot in self.places:
            first.setdefault(id(slot.tensor), slot)
        return first

    @cached_property
    def probes(self) -> dict[int, Any]:
        """The trials of each optimizer's class, by its identity; see ``optimizer_probe``."""
        return {}

    @cached_property
    def parts(self) -> tuple[tuple[Optimizer, Optimizer], ...]:
        """Each optimizer and itself; of several algorithms in one, it and each of these."""
        return tuple(
            (whole, part)
            for whole in self.optimizers
            for part in _parts(whole)
            if part.param_groups
        )

    def part_of(self, group: SettingsOfGroup) -> Optimizer:
        """The optimizer whose class steps a group."""
        parts = [pair for pair in self.parts if any(g is group for g in pair[1].param_groups)]
        return parts[0][1] if parts else self.optimizers[0]

    @cached_property
    def described(self) -> Mapping[str, PlanRow | ParamInfo]:
        """What each parameter is, by its name: as the plan has it, else the model."""
        rows = self.plan.rows if self.plan else describe(self.source).params
        return {row.name: row for row in rows}

    @cached_property
    def beside_muon(self) -> tuple[Trained, ...]:
        """The trained parameters, if Muon trains one of them; else none."""
        pairs = [(part, group) for _, part in self.parts for group in part.param_groups]
        steppers = {id(group): (part, is_muon(type(part), group)) for part, group in pairs}
        if not any(muon for _, muon in steppers.values()):
            return ()
        return tuple(
            Trained(
                member,
                self.described[member.name],
                *steppers[id(member.group)],
                id(member.tensor) in self.relative,
            )
            for member in self.members
            if member.name in self.described
            and member.tensor.requires_grad
            and id(member.group) in steppers
        )

    @cached_property
    def relative(self) -> frozenset[int]:
        """The parameters whose rate is a relative change, by identity; see ``nnlr.relative``."""
        updates = [(each, update) for each in self.optimizers for update in updates_of(each)]
        return frozenset(
            id(param)
            for optimizer, update in updates
            if update.kind.only_matrices
            for param, _, _ in update.members(optimizer)
        )

    @property
    def names(self) -> list[str]:
        """The name of each parameter of the model."""
        return [slot.name for slot in self.slots.values()]

    @cached_property
    def groups(self) -> tuple[tuple[str, SettingsOfGroup], ...]:
        """The groups of all optimizers and what to call them."""
        return tuple(pair for optimizer in self.optimizers for pair in labelled(optimizer))

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The parameters of all groups."""
        members = []
        for label, group in self.groups:
            param_names = group.get("param_names", ())
            for position, tensor in enumerate(group["params"]):
                slot = self.slots.get(id(tensor))
                if slot is not None:
                    name = slot.name
                elif position < len(param_names):
                    name = param_names[position]
                else:
                    name = f"{label}[{position}]"
                members.append(Member(name, tensor, group, label, slot))
        return tuple(members)

    def schedulers_of(self, optimizer: Optimizer) -> list[Scheduling]:
        """The schedulers that write into the groups of an optimizer."""
        return [
            scheduler
            for scheduler in self.schedulers
            if (inner := unwrapped(scheduler.optimizer)) is optimizer
            or getattr(inner, "param_groups", None) is optimizer.param_groups
        ]

    def optimizer_of(self, scheduler: Scheduling) -> Optimizer | None:
        """The optimizer that a scheduler schedules, if it is one of these."""
        mine = (o for o in self.optimizers if scheduler in self.schedulers_of(o))
        return next(mine, None)

    def is_scheduled_by_us(self, optimizer: Optimizer) -> bool:
        """Whether :func:`nnlr.schedule` writes the rates of an optimizer."""
        schedulers = self.schedulers_of(optimizer)
        if not schedulers:
            return bool(scheduled(optimizer))
        return any(map(is_ours, schedulers))


def is_ours(scheduler: object) -> TypeGuard[RatioScheduler | RatioPlateau]:
    """Whether :func:`nnlr.schedule` made a scheduler."""
    return isinstance(scheduler, RatioScheduler | RatioPlateau)


def labelled(optimizer: Optimizer) -> list[tuple[str, SettingsOfGroup]]:
    """The groups of an optimizer and what to call them."""
    counts: Counter[str] = Counter()
    pairs: list[tuple[str, SettingsOfGroup]] = []
    for group in optimizer.param_groups:
        whose = f"{group[ALGORITHM]} group" if ALGORITHM in group else "group"
        pairs.append((str(group.get("name", f"{whose} {counts[whose]}")), group))
        counts[whose] += 1
    return pairs


def _parts(optimizer: Optimizer) -> list[Optimizer]:
    """An optimizer by itself; of several algorithms a view of each, on the groups of today."""
    if not isinstance(optimizer, Mixed):
        return [optimizer]
    views = []
    for name, groups in by_algorithm(optimizer).items():
        member = optimizer.algorithms.get(str(name))
        if member is None:  # a hand has put groups in, at which the next step raises
            continue
        view = object.__new__(type(member))
        vars(view).update(vars(member), param_groups=groups, state=optimizer.state)
        views.append(view)
    return views


def takes_over(optimizer: Optimizer) -> bool:
    """Whether an optimizer goes on with all settings of a checkpoint, as was asked for."""
    hooks = getattr(optimizer, "_optimizer_load_state_dict_pre_hooks", {}).values()
    asked = any(getattr(hook, "policy", None) == "checkpoint" for hook in hooks)
    return asked and bool(optimizer.state)


def rate(group: SettingsOfGroup, key: str) -> float | None:
    """A setting as a finite number; ``None`` if it is missing or no such thing."""
    value = group.get(key)
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = float(value)
    return number if isfinite(number) else None


def with_origin(group: SettingsOfGroup) -> SettingsOfGroup:
    """The settings of a group as the code built them, where the group has a note of that."""
    origin = group.get(ORIGIN)
    return {**group, **origin} if isinstance(origin, Mapping) else group


def start(group: SettingsOfGroup, key: str = "lr") -> float | None:
    """The rate as the code built it, or where a schedule began; else the present one."""
    origin = group.get(ORIGIN)
    noted = rate(origin, key) if isinstance(origin, Mapping) else None
    if noted is None:
        noted = rate(group, f"initial_{key}")
    return rate(group, key) if noted is None else noted


def highest_lr(group: SettingsOfGroup) -> float | None:
    """The largest learning rate that a group is known to get."""
    rates = [rate(group, key) for key in ("lr", "initial_lr", "max_lr")]
    return max((value for value in rates if value is not None), default=None)


def unwrapped_optimizers(argument: object) -> tuple[Optimizer, ...]:
    """The optimizers passed to ``check``, without wrappers."""
    optimizers = []
    for item in _as_sequence(argument):
        inner = unwrapped(item)
        if not isinstance(inner, Optimizer):
            raise NnlrError(
                f"check needs a torch optimizer, or a list of them, got {shown(item)}. Of an "
                "optimizer that a trainer has wrapped, pass the inner one; for a placeholder "
                "such as DummyOptim pass none, and the configuration as deepspeed=."
            )
        optimizers.append(inner)
    return tuple(optimizers)


def unwrapped_schedulers(argument: object) -> tuple[Scheduling, ...]:
    """The schedulers passed to ``check``; Lightning and Accelerate keep them in ``scheduler``."""
    schedulers = []
    for item in _as_sequence(argument):
        inner: Any = item.get("scheduler") if isinstance(item, Mapping) else item
        while not hasattr(inner, "optimizer") and hasattr(inner, "scheduler"):
            inner = inner.scheduler
        if not (hasattr(inner, "step") and hasattr(inner, "optimizer")):
            raise NnlrError(
                f"check needs a scheduler, or a list of them, got {shown(item)}. It has to "
                "have step(), and the optimizer that it schedules as .optimizer."
            )
        schedulers.append(inner)
    return tuple(schedulers)


def _as_sequence(argument: object) -> Sequence[Any]:
    """One thing, several or ``None`` as a sequence."""
    if argument is None:
        return ()
    return argument if isinstance(argument, list | tuple) else (argument,)
