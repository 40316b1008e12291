"""Have the moves of a plan act on an optimizer.

A hook before each step lets moves measure; a hook after it counts the step, asks each move for
its multipliers and writes ``group["lr_mult"]`` or ``group["wd_mult"]``; the rate follows at once,
by the schedule that the optimizer has or from the base rate. What moves remember stands in the
groups under ``moved``, and goes where the groups go: into checkpoints, and through ``regroup``.
"""

from collections.abc import Sequence
from math import inf, isnan
from time import perf_counter

from torch.optim import Optimizer

from nnlr._apply.locate import Located, locate
from nnlr._apply.moving import stop_waiting
from nnlr._arguments import instance, number, whole
from nnlr._attach.driven import Driven, driven_groups, recall
from nnlr._attach.locks import set_locks
from nnlr._attach.norms import set_norm_eval
from nnlr._attach.rates import Rates
from nnlr._declare.moves import Progress
from nnlr._model.names import Source
from nnlr._plan import Plan
from nnlr._rows.units import AtWork, Mover, Unit, at_work, movers_of
from nnlr._schedule.base_rate import runs_step_hooks
from nnlr._schedule.origin import MULTIPLIERS, note_origin
from nnlr._text import listed, shown
from nnlr.checkpoint._sides import MOVED
from nnlr.errors import ConfigError, NnlrError
from nnlr.report._moves import attached_text


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
        note_origin(optimizer.param_groups)
        self._movers = self._movers_of(located, model)
        self._rates = Rates(optimizer)
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
            optimizer.register_load_state_dict_post_hook(self._loaded),
        ]
        self._loaded(optimizer)

    @property
    def progress(self) -> Progress:
        """How far the run has come: steps of the optimizer, and epochs that have ended."""
        return Progress(self._step, self.total_steps, self._epoch)

    @property
    def units(self) -> list[Unit]:
        """What moves: each unit of each move, with its multiplier now."""
        return [unit for mover in self._movers for unit in mover.units.values()]

    def end_epoch(self, metric: float | None = None) -> None:
        """Say that an epoch has ended, for what goes by epochs or by a metric.

        Args:
            metric: A finite number that was measured on held-out data, if a scheme follows one.
        """
        value = None if metric is None else number(metric, "metric", minimum=-inf)
        self._epoch += 1
        for mover in self._movers:
            mover.move.end_epoch(self.progress, list(mover.units.values()), value)
        self._update(every=True)

    def remove(self) -> None:
        """Stop moving: multipliers stay as they are now."""
        for handle in self._hooks:
            handle.remove()
        self._hooks = []

    def follow(self, plan: Plan, located: Sequence[Located], model: Source) -> None:
        """Go on with another plan, of which the optimizer has the groups now."""
        self._movers = self._movers_of(located, model)
        self.plan = plan
        self._loaded(self.optimizer)

    def __repr__(self) -> str:
        sources = dict.fromkeys(unit.source for unit in self.units)
        return f"attach({listed(sources)}: {len(self.units)} units, {self.progress!r})"

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
        units = [unit for m in movers if m.move.norm_eval for unit in m.units.values()]
        set_norm_eval(model, [tensor for unit in units for tensor in unit.tensors])
        return movers

    def _before(self, *_: object) -> None:
        """Let moves measure before a step, with all gradients there."""
        now = self.progress
        measured = False
        for mover in self._movers:
            units = list(mover.units.values())
            if mover.move.measures(now, units):
                began, measured = perf_counter(), True
                mover.move.measure(now, units)
                self.seconds[units[0].source] = perf_counter() - began
        if measured:
            self._update(every=True)
        else:
            self._rates.restore(self._groups())

    def _after(self, *_: object) -> None:
        """Count a step, and move to where it leads."""
        self._step += 1
        self._update()

    def _loaded(self, _optimizer: Optimizer) -> None:
        """Go on from what the groups remember."""
        self._pair()
        self._step, self._epoch = recall(self._driven)
        self._update(every=True)

    def _groups(self) -> list[Driven]:
        """Return the groups that move, as they are now: some calls replace them."""
        groups = self.optimizer.param_groups
        if len(groups) != self._count or any(
            groups[at] is not driven.group
            for at, driven in zip(self._at, self._driven, strict=True)
        ):
            self._pair()
        return self._driven

    def _pair(self) -> None:
        """Find the groups that follow units."""
        self._driven = driven_groups(self.optimizer, self._movers)
        position = {id(group): at for at, group in enumerate(self.optimizer.param_groups)}
        self._at = [position[id(driven.group)] for driven in self._driven]
        self._count = len(self.optimizer.param_groups)

    def _update(self, *, every: bool = False) -> None:
        """Ask moves for their multipliers, and write what has changed."""
        now, driven = self.progress, self._groups()
        for mover in self._movers:
            units = list(mover.units.values())
            if every or mover.move.due(now, units):
                for unit, mult in zip(units, _checked(mover, now, units), strict=True):
                    unit.mult = mult
        shared: dict[str, float] = {"step": self._step, "epoch": self._epoch}
        changed = []
        for each in driven:
            own = each.note()
            each.group[MOVED] = {**shared, **own} if own else shared
            for setting, key in MULTIPLIERS.items():
                mult = each.mult(setting)
                if each.group.get(key) != mult:
                    each.group[key] = mult
                    changed.append((setting, each.group))
        if every:
            changed = [(key, each.group) for each in driven for key in MULTIPLIERS]
        if changed:
            set_locks(self._movers)
            self._rates.write(changed)


def _checked(mover: Mover, now: Progress, units: list[Unit]) -> list[float]:
    """Return the multipliers that a move gives its units; refuse what no training can use."""
    mults = mover.move.mults(now, units)
    if len(mults) != len(units):
        raise NnlrError(
            f"{units[0].source} gave {len(mults)} multipliers for {len(units)} units at {now!r}."
        )
    checked = []
    for unit, mult in zip(units, mults, strict=True):
        value = mult.item() if hasattr(mult, "item") else mult
        if isinstance(value, float) and isnan(value) and now.total_steps is None:
            raise ConfigError(
                f"{unit.source} gave NaN at {now!r}: it reads the part of the run that is done. "
                "Say how long the run is: attach(optimizer, plan, total_steps=...).",
                source=unit.source,
            )
        what = f"the multiplier that {unit.source} gives {unit.name or 'its parameters'} at {now!r}"
        checked.append(number(value, what))
    return checked


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

    Args:
        optimizer: An optimizer that was built on the plan.
        plan: A plan whose schemes move something.
        model: The model; ``None`` for the one resolved.
        total_steps: How many steps the optimizer takes in the whole run, >= 1; schemes that go by
            the part of the run need it.
        partial: The model is one stage or shard of the plan's.

    Returns:
        What is at work: its ``units`` with their multipliers, ``progress``, ``end_epoch()``, and
        ``remove()``.

    Raises:
        ConfigError: If nothing moves, the optimizer runs no step hooks or does not fit the plan, or
            a scheme needs ``total_steps``.
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
    instance(optimizer, "optimizer", Optimizer)
    instance(plan, "plan", Plan)
    if total_steps is not None:
        total_steps = whole(total_steps, "total_steps", minimum=1)
    if not any(row.moves for row in plan.rows):
        raise ConfigError(
            f"Nothing of {plan!r} moves: no scheme in it changes while training. Such are "
            "scheme.at(function) and nnlr.assign(...); other plans need no attach."
        )
    if not runs_step_hooks(optimizer):
        raise ConfigError(
            f"{type(optimizer).__name__} runs no step hooks. Attach the optimizer that it wraps, "
            f"got {shown(optimizer)}."
        )
    source = plan._model(model)
    located = locate(plan.rows, source, partial=partial)
    if (earlier := attachment_of(optimizer)) is not None:
        earlier.remove()
    attachment = Attachment(optimizer, plan, located, source, total_steps)
    stop_waiting(optimizer)
    return attachment


def attachment_of(optimizer: Optimizer) -> Attachment | None:
    """Return what :func:`attach` made for an optimizer, if it is at work."""
    owner = at_work(optimizer)
    return owner if isinstance(owner, Attachment) else None
