"""Have the moves of a plan act on an optimizer.

A hook before each step lets moves measure; a hook after it counts the step, asks each move for
its multipliers and writes ``group["lr_mult"]`` or ``group["wd_mult"]``; the rate follows at once,
by the schedule that the optimizer has or from the base rate. What moves remember stands in the
groups under ``moved``, and goes where the groups go: into checkpoints, and through ``regroup``.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from torch.optim import Optimizer

from nnlr._apply.locate import Located, locate
from nnlr._apply.moving import is_dry, stop_waiting
from nnlr._arguments import instance, number, whole
from nnlr._attach.driven import driven_groups, recall
from nnlr._attach.locks import Locks, refuse_ddp, warn_of_ddp
from nnlr._attach.norms import set_norm_eval
from nnlr._attach.rates import Rates
from nnlr._attach.warnings import warn_of_late_steps, warn_of_no_decay
from nnlr._declare.moves import Progress, Setting
from nnlr._model.names import Source
from nnlr._plan import Plan
from nnlr._rows.units import AtWork, Mover, Unit, at_work, movers_of
from nnlr._schedule.base_rate import Group, as_float, runs_step_hooks
from nnlr._schedule.moved import MOVED, note
from nnlr._schedule.origin import note_origin
from nnlr._text import listed, plural, warn
from nnlr.errors import ConfigError, NnlrError
from nnlr.optim._wrapped import unwrapped
from nnlr.report._moves import attached_text, ends

if TYPE_CHECKING:
    from collections import OrderedDict

_SETTINGS: Final[tuple[Setting, ...]] = get_args(Setting)


class Attachment(AtWork):
    """The moves of a plan at work on an optimizer; made by :func:`attach`.

    Attributes:
        optimizer: The optimizer.
        plan: The plan whose moves act.
        total_steps: Steps of the whole run, or ``None``.
        seconds: How long each scheme that measures took for it the last time, by its name.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        plan: Plan,
        located: Sequence[Located],
        model: Source,
        total_steps: int | None,
    ) -> None:
        self.optimizer, self.plan, self.total_steps = optimizer, plan, total_steps
        self.seconds: dict[str, float] = {}
        self._step = self._epoch = 0
        self._is_dry = False  # whether the step that runs is none of training
        note_origin(optimizer.param_groups)
        self._movers = self._movers_of(located, model)
        self._locks = Locks(self._movers)
        self._rates = {setting: Rates(optimizer, setting) for setting in _SETTINGS}
        self._pair()
        self._go_on()
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
            optimizer.register_load_state_dict_post_hook(self._loaded),
        ]
        # Before all others, which may read the rates of the step.
        hooks = cast("OrderedDict[int, Any]", optimizer._optimizer_step_pre_hooks)
        hooks.move_to_end(self._hooks[0].id, last=False)

    @property
    def progress(self) -> Progress:
        """How far the run has come: steps of the optimizer, and epochs that have ended."""
        return Progress(self._step, self.total_steps, self._epoch)

    @property
    def units(self) -> list[Unit]:
        """What moves: each unit of each move, with its multiplier now."""
        return [unit for mover in self._movers for unit in mover.units.values()]

    @property
    def by_epochs(self) -> list[str]:
        """The schemes that have to be told of the ends of epochs."""
        movers = [mover for mover in self._movers if mover.move.needs_epochs]
        return list(dict.fromkeys(mover.all[0].source for mover in movers))

    @property
    def locked_units(self) -> list[Unit]:
        """What a move has locked: its parameters have no gradient."""
        locking = [mover for mover in self._movers if mover.move.locks]
        return [unit for mover in locking for unit in mover.all if unit.mult == 0]

    def end_epoch(self, metric: float | None = None) -> None:
        """Say that an epoch has ended, for what goes by epochs or by a metric.

        Args:
            metric: A finite number that was measured on held-out data, if a scheme follows one; in
                several processes the same in all of them.

        Raises:
            NnlrError: If the metric is no such number, or this is at work no more: after
                ``remove()``, or a later :func:`attach`.
        """
        if not self._hooks:
            raise NnlrError(
                "This attachment is at work no more: remove() was called, or nnlr.attach again, as "
                "configure of Lightning and RatioTrainer do. Tell what the last call returned."
            )
        value = None if metric is None else number(metric, "metric", minimum=-inf)
        self._refresh()
        self._epoch += 1
        for mover in self._movers:
            mover.move.end_epoch(self.progress, mover.all, value)
        self._update(every=True)

    def remove(self) -> None:
        """Stop moving: multipliers stay as they are now."""
        for handle in self._hooks:
            handle.remove()
        self._hooks = []

    def follow(self, plan: Plan, located: Sequence[Located], model: Source) -> None:
        """Go on with another plan, of which the optimizer has the groups now."""
        self._movers, self.plan = self._movers_of(located, model), plan
        self._locks = Locks(self._movers)
        self._pair()
        self._go_on()

    def refuse_ddp(self, model: Source) -> None:
        """Refuse a wrapper that waits for gradients which moves switch off."""
        refuse_ddp(self._movers, model)

    def __repr__(self) -> str:
        sources = dict.fromkeys(unit.source for unit in self.units)
        return f"attach({ends(sources)}: {plural(len(self.units), 'unit')}, {self.progress!r})"

    def __str__(self) -> str:
        """The units with their multipliers and rates now, at most some 60 lines."""
        took = {name: f" (measured in {each:.2g} s)" for name, each in self.seconds.items()}
        return attached_text(self, self.optimizer, took)

    def _movers_of(self, located: Sequence[Located], model: Source) -> list[Mover]:
        """Return the moves of a plan with their units; have the model's norms follow them."""
        movers = movers_of(located, self.optimizer)
        needy = [mover for mover in movers if mover.move.needs_total]
        if needy and self.total_steps is None:
            source = next(iter(needy[0].units.values())).source
            raise ConfigError(
                f"{source} has to know how long the run is: attach(optimizer, plan, "
                "total_steps=...), the number of optimizer steps of the whole run.",
                source=source,
            )
        refuse_ddp(movers, model)
        units = [unit for m in movers if m.move.norm_eval for unit in m.units.values()]
        set_norm_eval(model, [tensor for unit in units for tensor in unit.tensors])
        return movers

    # --- around a step --------------------------------------------------------------

    def _before(self, _: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401 - new arguments
        """Let moves measure before a step, once all gradients are there."""
        self._refresh()
        self._is_dry = is_dry(self.optimizer, kwargs)
        if self._is_dry:
            return None
        for rates in self._rates.values():
            rates.follow()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._measure()
            return None
        later = self._once_measured(closure)
        if len(args) > 1:
            return (args[0], later, *args[2:]), kwargs
        return args, {**kwargs, "closure": later}

    def _once_measured(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return a closure after whose first call, which computes gradients, moves measure."""
        measured = False

        def evaluate() -> Any:  # noqa: ANN401 - a loss
            nonlocal measured
            loss = closure()
            if not measured:
                measured = True
                self._measure()
            return loss

        return evaluate

    def _measure(self) -> None:
        """Let moves measure, and go to where that leads."""
        now, measured = self.progress, False
        for mover in self._movers:
            if mover.move.measures(now, mover.all):
                began, measured = perf_counter(), True
                mover.move.measure(now, mover.all)
                self.seconds[mover.all[0].source] = perf_counter() - began
        if measured:
            self._update(every=True)
        self._locks.drop_gradients()

    def _after(self, *_: object) -> None:
        """Count a step, and move to where it leads."""
        skipped = getattr(self.optimizer, "found_inf", None)  # by a scaler, in a fused kernel
        if not self._is_dry and (skipped is None or not as_float(skipped)):
            self._step += 1
            self._update()
            if self._step == self.total_steps and not self._epoch:
                self._warn_of_epochs()

    def _warn_of_epochs(self) -> None:
        """Warn at the end of a run that was never told of an epoch, if moves go by them."""
        if sources := self.by_epochs:
            warn(
                f"The run is over after {self._step:,} steps, and no epoch has ended, by which "
                f"{listed(sources)} goes. Call end_epoch(metric) of what nnlr.attach returns after "
                "each epoch, or have the EpochCallback of nnlr.integrations do it. In a run of one "
                "epoch, go by steps."
            )

    # --- groups ---------------------------------------------------------------------

    def _loaded(self, *_: object) -> None:
        """Go on from what a checkpoint remembers."""
        self._pair()
        if not any(MOVED in each.group for each in self._driven):
            warn(
                "The checkpoint is of a run in which nothing moved, so that the moves of "
                f"{listed(dict.fromkeys(unit.source for unit in self.units))} begin now, at step 0."
            )
        self._go_on()

    def _refresh(self) -> None:
        """Take up groups that have been added or replaced."""
        groups = self.optimizer.param_groups
        present = [groups[at] for at in self._at if at < len(groups)]
        if len(present) < len(self._at) or any(
            group is not each.group for group, each in zip(present, self._driven, strict=True)
        ):
            self._pair()
            self._go_on()
        elif len(groups) != self._count:
            self._pair()

    def _pair(self) -> None:
        """Find the groups that follow units."""
        self._driven = driven_groups(self.optimizer, self._movers)
        position = {id(group): at for at, group in enumerate(self.optimizer.param_groups)}
        self._at = [position[id(driven.group)] for driven in self._driven]
        self._count = len(self.optimizer.param_groups)
        for rates in self._rates.values():
            rates.pair(self._driven)

    def _go_on(self) -> None:
        """Go on from what the groups remember."""
        counts = recall(self._driven)
        self._step, self._epoch = counts.get("step", 0), counts.get("epoch", 0)
        before = counts.get("total_steps", 0)
        if before and self.total_steps and before != self.total_steps:
            warn(
                f"So far the run was to take {before:,} steps, and now total_steps is "
                f"{self.total_steps:,}, which counts: what moves by the part of the run that is "
                f"done is at step {self._step:,} of those."
            )
        self._update(every=True)

    def _update(self, *, every: bool = False) -> None:
        """Ask moves for their multipliers, and write what has changed."""
        now, due = self.progress, every
        for mover in self._movers:
            if every or mover.move.due(now, mover.all):
                due = True
                mover.ask(now)
        changed: dict[Setting, list[Group]] = {setting: [] for setting in _SETTINGS}
        for each in self._driven if due else ():
            for setting in each.write():
                changed[setting].append(each.group)
        counts = self._step, self._epoch, self.total_steps or 0
        plain = note(*counts)  # copied: torch's DCP loads into the very dictionaries
        for each in self._driven:
            own = each.memory or each.copies
            each.group[MOVED] = note(*counts, each.memory, each.copies) if own else plain.copy()
        if due:
            self._locks.follow(every=every)
        for setting, rates in self._rates.items():
            groups = rates.moving if every else changed[setting]
            if groups:
                rates.write(groups)


def attach(
    optimizer: Optimizer,
    plan: Plan,
    *,
    model: Source | None = None,
    total_steps: int | None = None,
    partial: bool = False,
) -> Attachment:
    """Have the moves of a plan act on an optimizer: rates that change by layer while training.

    Before each step it lets measured schemes look; after each step it writes
    ``group["lr_mult"]`` and ``group["wd_mult"]``, and the rates follow at once, under any schedule
    of :func:`nnlr.schedule` or from the base rate. What moves has come to is saved with the
    optimizer, by name; ``nnlr.regroup`` goes on with it. A later call takes the place of an earlier
    one. Like all hooks, it does not travel with copies and pickles of the optimizer: attach those.
    A decay mode of :func:`nnlr.resolve` counts the multipliers of the plan, not how they move.

    Without :func:`nnlr.schedule` the base rate is read off a group that does not move, under any
    scheduler; where all move, rates may be written by hand as ``base * group["lr_mult"]``.

    Args:
        optimizer: An optimizer that was built on the plan; wrappers of Accelerate and Lightning
            are looked through.
        plan: A plan whose schemes move something.
        model: The model, if wrapped then the wrapper; ``None`` for the one resolved.
        total_steps: How many steps the optimizer takes in the whole run, >= 1; schemes that go by
            the part of the run need it.
        partial: The model is one stage or shard of the plan's.

    Returns:
        What is at work: its ``units`` with their multipliers, ``progress``, ``end_epoch()``, and
        ``remove()``.

    Raises:
        ConfigError: If nothing moves, the optimizer runs no step hooks or does not fit the plan, a
            scheme needs ``total_steps``, or one locks parameters of a ``DistributedDataParallel``
            that does not look for unused ones. Later on, before a step, if something other than
            :func:`nnlr.schedule` writes rates and all groups move.
        PlanMismatchError: If the model is not the one resolved.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> scheme = nnlr.rule("0.*", lr_mult=0.1).at(lambda t: 0.0 if t.step < 2 else 1.0)
        >>> plan = nnlr.resolve(net, scheme, lr=0.5, weight_decay=0)
        >>> optimizer = plan.optimizer(torch.optim.SGD)
        >>> attached = nnlr.attach(optimizer, plan)
        >>> for _ in range(3):
        ...     print([group["lr"] for group in optimizer.param_groups])
        ...     optimizer.step()
        [0.5, 0.0]
        [0.5, 0.0]
        [0.5, 0.05]
    """
    optimizer = instance(unwrapped(optimizer), "optimizer", Optimizer)
    instance(plan, "plan", Plan)
    if total_steps is not None:
        total_steps = whole(total_steps, "total_steps", minimum=1)
    if not any(row.moves and row.trainable for row in plan.rows):
        why = (
            "no scheme in it changes any of its parameters while training, as scheme.at(function) "
        )
        why += "and nnlr.assign(...) do (plan.findings may say why). It needs no attach."
        if any(row.moves for row in plan.rows):
            why = "all that its schemes move is locked (lr_mult 0, times anything) or frozen."
        raise ConfigError(f"Nothing of {plan!r} moves: {why}")
    if not runs_step_hooks(optimizer):
        raise ConfigError(
            f"{type(optimizer).__name__} runs no step hooks. Attach the optimizer that it wraps."
        )
    source = plan._model(model)
    located = locate(plan.rows, source, partial=partial)
    earlier = attachment_of(optimizer)
    attachment = Attachment(optimizer, plan, located, source, total_steps)
    warn_of_no_decay(attachment.units)
    warn_of_late_steps(attachment._movers, total_steps)
    if earlier is not None:
        earlier.remove()
    stop_waiting(optimizer)
    if model is None:
        warn_of_ddp(attachment._movers)
    return attachment


def attachment_of(optimizer: Optimizer) -> Attachment | None:
    """Return what :func:`attach` made for an optimizer, if it is at work."""
    owner = at_work(optimizer)
    return owner if isinstance(owner, Attachment) else None
