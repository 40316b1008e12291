"""Lightning: what ``configure_optimizers`` returns, and callbacks that log rates and layers.

For ``lightning.pytorch`` and for ``pytorch_lightning``, whichever is in use.
"""

import sys
import weakref
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal

from torch import nn
from torch.optim import Optimizer

from nnlr._arguments import flag, function, instance, text, whole
from nnlr._attach.attach import attach
from nnlr._plan import Plan
from nnlr._schedule.keep_ratios import keep_ratios as keep_ratios_of
from nnlr._schedule.rate_summary import rate_summary
from nnlr._schedule.schedule import Courses
from nnlr._schedule.schedule import schedule as schedule_of
from nnlr._text import listed, shown, warn
from nnlr.errors import NnlrError
from nnlr.integrations._epochs import attachments, goes_by_epochs, measured, warn_if_short
from nnlr.integrations._installed import installed
from nnlr.integrations._processes import agree_if_whole
from nnlr.report import Monitor

_NEWER, _OLDER = "lightning", "pytorch_lightning"  # the same code under two names

# The plan of each optimizer that `configure` built, and what it was told of the model.
_PLANS: Final[weakref.WeakKeyDictionary[Optimizer, tuple[Plan, dict[str, Any]]]] = (
    weakref.WeakKeyDictionary()
)


def _package() -> str:
    """The package that has been imported, else the first that is installed."""
    both = (_NEWER, _OLDER)
    loaded = next((name for name in both if sys.modules.get(name)), None)
    return loaded or next(filter(find_spec, both), _NEWER)


if TYPE_CHECKING:
    from lightning import LightningModule, Trainer

if TYPE_CHECKING or _package() == _NEWER:
    with installed(_NEWER):
        from lightning import Callback
        from lightning.pytorch import callbacks
else:
    from pytorch_lightning import Callback, callbacks


def configure(
    module: nn.Module,
    plan: Plan,
    cls: Callable[..., Optimizer] | Mapping[str, Any],
    *,
    schedule: Courses | None = None,
    decay_schedule: Courses | None = None,
    interval: Literal["step", "epoch"] | None = None,
    frequency: int = 1,
    monitor: str | None = None,
    keep_ratios: bool = False,
    adopt: bool = False,
    total_steps: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """What ``configure_optimizers`` returns: the plan's optimizer, and its schedule.

    Args:
        module: The ``LightningModule``, ``self``.
        plan: The plan, of the whole module or of a part of it.
        cls: The optimizer class, or for several algorithms one for each name.
        schedule: A function of an optimizer that returns a scheduler, a class that needs
            nothing else, or a mapping of such functions for groups; it is passed through
            :func:`nnlr.schedule`. ``None`` for constant rates.
        decay_schedule: Likewise for the weight decay; it needs a ``schedule``.
        interval: When the schedule is stepped. There is no default: a schedule that counts
            steps and is stepped per epoch, or the other way round, is a frequent mistake.
        frequency: After how many intervals it is stepped, a whole number above 0.
        monitor: The logged metric that a plateau schedule follows.
        keep_ratios: Call :func:`nnlr.keep_ratios`, for callbacks that write one rate into all
            groups: ``LearningRateFinder`` and ``StochasticWeightAveraging``.
        adopt: For callbacks that add groups while training, ``BackboneFinetuning`` among
            them: the groups are built without names, which torch would ask of the added ones
            too, and the schedule adopts what is added (``nnlr.schedule(..., adopt=True)``).
        total_steps: Steps of the optimizer in the whole run, for a plan that moves multipliers,
            which is attached (:func:`nnlr.attach`); ``None`` for what the trainer estimates.
        **settings: Other arguments of ``plan.optimizer``: ``betas=``, ``tensor_lr=``.

    Returns:
        ``{"optimizer": ..., "lr_scheduler": {...}}``; return a list of several for manual
        optimization with several optimizers.

    Raises:
        NnlrError: If there is a schedule without ``interval`` or the reverse, if the plan is
            of a network that is not in the module, if it would lock parameters of a module
            that Lightning has already wrapped in DDP, or if the trainer has a callback that
            adds groups, which would fail at its epoch.
        PlanMismatchError: If the plans of several processes differ; see :func:`nnlr.agree`.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Linear(2, 1)  # in a LightningModule: self
        >>> plan = nnlr.resolve(net, nnlr.rule("bias", wd_mult=0), lr=1e-3, weight_decay=0.05)
        >>> config = configure(
        ...     net, plan, torch.optim.AdamW, interval="step",
        ...     schedule=lambda opt: torch.optim.lr_scheduler.StepLR(opt, 10))
        >>> config["lr_scheduler"]
        {'scheduler': schedule(StepLR, base_lr=0.001), 'interval': 'step', 'frequency': 1}
    """
    # Lightning would fail on these later, or ignore them.
    if not isinstance(plan, Plan):
        raise NnlrError(
            f"configure needs a plan, got {shown(plan)}. In configure_optimizers: "
            "configure(self, nnlr.resolve(self.net, scheme, lr=self.lr, weight_decay=0.05), "
            "torch.optim.AdamW)"
        )
    instance(module, "module", nn.Module)
    flag(keep_ratios, "keep_ratios")
    if monitor is not None:
        text(monitor, "monitor", "val_loss")
    for name, factory in (("schedule", schedule), ("decay_schedule", decay_schedule)):
        if factory is not None and not isinstance(factory, Mapping):
            function(factory, name, "lambda opt: StepLR(opt, 10)")
    if schedule is None:
        of_schedule = {
            "interval": interval is not None,
            "decay_schedule": decay_schedule is not None,
            "monitor": monitor is not None,
            "frequency": frequency != 1,
        }
        for name, passed in of_schedule.items():
            if passed:
                raise NnlrError(f"{name}= needs a schedule=.")
    elif not isinstance(interval, str) or interval not in {"step", "epoch"}:
        raise NnlrError(
            "Say when the schedule is stepped: interval='step' if it counts optimizer steps, "
            "interval='epoch' if it counts epochs or follows a metric of them; got "
            f"{shown(interval)}."
        )
    whole(frequency, "frequency", minimum=1)
    if flag(adopt, "adopt"):
        settings.setdefault("names", False)
    named = bool(settings.get("names", True))
    _judge_callbacks(module, plan, named=named, keeps_ratios=keep_ratios)
    _refuse_other_module(module, plan, settings)
    agree_if_whole(plan, module)
    optimizer = plan.optimizer(cls, **settings)
    _PLANS[optimizer] = plan, {k: settings[k] for k in ("model", "partial") if k in settings}
    _attach(module, optimizer, total_steps)
    if keep_ratios:
        keep_ratios_of(optimizer)
    if schedule is None:
        return {"optimizer": optimizer}
    scheduler = schedule_of(optimizer, schedule, weight_decay=decay_schedule, adopt=adopt)
    config: dict[str, Any] = {
        "scheduler": scheduler,
        "interval": interval,
        "frequency": frequency,
    }
    if monitor is not None:
        config["monitor"] = monitor
    return {"optimizer": optimizer, "lr_scheduler": config}


def _attach(module: nn.Module, optimizer: Optimizer, total_steps: int | None) -> None:
    """Have the moves of a plan act, if it has any, for as many steps as the trainer will take."""
    plan, of_model = _PLANS[optimizer]
    if not any(row.moves and row.trainable for row in plan.rows):
        return
    trainer = getattr(module, "_trainer", None)  # not the property, which raises without one
    if total_steps is None and trainer is not None:
        estimated = trainer.estimated_stepping_batches
        total_steps = int(estimated) if 0 < estimated < inf else None
    source = plan._model(of_model.get("model"))  # passed: Lightning has wrapped it by now
    settings = {**of_model, "model": source, "total_steps": total_steps}
    attached = attach(optimizer, plan, **settings)
    if trainer is not None:
        attached.refuse_ddp(trainer.strategy.model)


def _judge_callbacks(module: nn.Module, plan: Plan, *, named: bool, keeps_ratios: bool) -> None:
    """Say now what a callback of the trainer will do to the groups.

    Groups that it adds are refused by torch at its epoch; one rate for all flattens in silence.
    """
    adding = _callbacks_of(module, callbacks.BaseFinetuning) or []
    if adding and named:
        raise NnlrError(
            f"{listed(adding)} will add groups without names to the optimizer, which torch "
            "refuses beside the named ones of a plan. Pass adopt=True to configure: groups have "
            "no names then, and the schedule takes the added ones in. Or unfreeze by "
            "nnlr.regroup, which keeps the names."
        )
    writing = (callbacks.StochasticWeightAveraging, callbacks.LearningRateFinder)
    flattening = _callbacks_of(module, *writing)
    if flattening and not keeps_ratios:
        warn(
            f"{listed(flattening)} writes one learning rate into every group, and the ratios of "
            "the plan are lost. Pass keep_ratios=True to configure: the groups then follow the "
            "reference group."
        )
    if goes_by_epochs(plan) and _callbacks_of(module, EpochCallback) == []:
        warn(
            "A scheme of the plan goes by epochs, and nothing tells it where they end. Pass "
            "Trainer(callbacks=[nnlr.integrations.lightning.EpochCallback('val_loss')]), or call "
            "end_epoch(metric) of what nnlr.attach returns."
        )


def _callbacks_of(module: nn.Module, *kinds: type) -> list[str] | None:
    """The names of the trainer's callbacks of some classes; ``None`` without a trainer."""
    # Not the property `trainer`, which raises where there is none.
    present = getattr(getattr(module, "_trainer", None), "callbacks", None)
    if present is None:
        return None
    return [type(each).__name__ for each in present if isinstance(each, kinds)]


def _refuse_other_module(module: nn.Module, plan: Plan, settings: dict[str, Any]) -> None:
    """Raise for the plan of another network, and for locks inside DDP, which already wraps it."""
    options = {key: settings[key] for key in ("model", "partial", "locked") if key in settings}
    fit = plan.fit(init="done", **options)
    inside = {id(parameter) for parameter in module.parameters()}
    missing = [located.row.name for located in fit.located if id(located.tensor) not in inside]
    if missing:
        raise NnlrError(
            f"The plan is of {plan.label}, whose {listed(missing)} are not in the "
            f"{type(module).__name__} that is trained. Resolve what it holds: "
            "nnlr.resolve(self.net, ...)"
        )
    # Not the property `trainer`, which raises where there is none.
    trainer = getattr(module, "_trainer", None)
    if trainer is None:
        return
    try:
        fit.locks.refuse_inside_ddp(trainer.strategy.model)
    except NnlrError as error:
        raise NnlrError(
            f"{error} With Lightning: def setup(self, stage): self.plan = nnlr.resolve(...); "
            "self.plan.lock()",
            **error.facts,
        ) from None


class RateMonitor(Callback):
    """Logs the learning rates of each optimizer step in three numbers.

    ``lr`` is the rate of the reference group, ``lr_min`` and ``lr_max`` are the extremes; see
    :func:`nnlr.rate_summary`. With several optimizers each name is preceded by
    ``optimizer0/``, ``optimizer1/`` and so on. For one curve for each group use Lightning's
    ``LearningRateMonitor``, which shows groups under the plan's names.
    """

    def on_before_optimizer_step(
        self, trainer: "Trainer", pl_module: "LightningModule", optimizer: Optimizer
    ) -> None:
        """Log what this step will use."""
        prefix = ""
        if len(trainer.optimizers) > 1:
            prefix = f"optimizer{trainer.optimizers.index(optimizer)}/"
        rates = rate_summary(optimizer)
        pl_module.log_dict({f"{prefix}{name}": rate for name, rate in rates.items()})


class LayerMonitor(Callback):
    """Logs at a cadence what each step does to each layer: :class:`nnlr.report.Monitor`.

    Every logger of the trainer gets ``lr/GROUP``, ``update_ratio/LAYER`` and
    ``grad_norm/LAYER``.

    Args:
        plan: The plan; ``None`` for the one that :func:`configure` was called with.
        **settings: Arguments of :class:`nnlr.report.Monitor`: ``every=``, ``by=``, ``jsonl=``.
            ``log=`` takes the place of the loggers.

    Attributes:
        monitors: The monitor of each optimizer, from the start of training on.

    Examples:
        >>> watch = LayerMonitor(every=10)  # Trainer(callbacks=[watch])
        >>> watch.monitors  # after fit: print(watch.monitors[0])
        []
    """

    def __init__(self, plan: Plan | None = None, **settings: Any) -> None:
        super().__init__()
        self.plan = None if plan is None else instance(plan, "plan", Plan)
        self.settings = settings
        self.monitors: list[Monitor] = []

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Begin to watch.

        Raises:
            NnlrError: If there is no plan: ``configure`` did not build the optimizer.
        """

        def log(values: dict[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)

        self.monitors = []
        for optimizer in trainer.optimizers:
            plan, of_model = _PLANS.get(optimizer, (None, {}))
            if (plan := self.plan or plan) is None:
                raise NnlrError(
                    "LayerMonitor does not know the plan of the optimizer, which was not built by "
                    "configure.\n  Fix: LayerMonitor(plan)"
                )
            start = trainer.global_step // len(trainer.optimizers)
            settings = {"start": start, "log": log, **of_model, **self.settings}
            self.monitors.append(Monitor(plan, optimizer, **settings))

    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Stop watching; the readings stay."""
        for monitor in self.monitors:
            monitor.close()

    def on_exception(
        self, trainer: "Trainer", pl_module: "LightningModule", exception: BaseException
    ) -> None:
        """Stop watching."""
        self.on_train_end(trainer, pl_module)


class EpochCallback(Callback):
    """Tells :func:`nnlr.attach` where epochs end, and what a metric has come to.

    Put it into ``Trainer(callbacks=[...])`` if a scheme goes by epochs, as
    :func:`nnlr.unfreeze` does. An epoch ends with the validation after its last batch, else after
    the training epoch; checkpoints are saved after that. Validations of the sanity check do not
    count.

    Args:
        metric: Name of a logged metric such as ``"val_loss"``; ``None`` to tell of epochs only.

    Raises:
        ConfigError: When training begins, if no plan is attached to an optimizer.
        NnlrError: When an epoch ends, if there is no such metric, or it is not finite.

    Examples:
        >>> callback = EpochCallback("val_loss")  # Trainer(callbacks=[callback])
    """

    def __init__(self, metric: str | None = None) -> None:
        super().__init__()
        self.metric = None if metric is None else text(metric, "metric", "val_loss")
        self._ended = -1  # the epoch that ended last
        self._value: float | None = None  # the metric of a validation since then

    def state_dict(self) -> dict[str, Any]:
        """Which epoch ended last, and what was measured since then."""
        return {"ended": self._ended, "value": self._value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._ended, self._value = state_dict["ended"], state_dict["value"]

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Look for what is attached, and end the epoch of a checkpoint of its last step.

        That is saved before the validation, and the trainer goes on with the next epoch.
        """
        before = trainer.current_epoch - 1
        working = attachments(trainer.optimizers)
        warn_if_short(working, trainer.max_epochs)
        for attachment in working:
            if before == attachment.progress.epoch == self._ended + 1:
                attachment.end_epoch()

    def on_validation_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Note the metric, and end the epoch if its last batch is over."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metrics = trainer.callback_metrics
        if self.metric in metrics:
            self._value = measured(metrics, self.metric)
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if is_last and (self.metric is None or self._value is not None):
            self._end(trainer)

    def on_train_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """End the epoch if no validation has."""
        if self.metric is not None and self._value is None and self._is_due(trainer):
            self._value = measured(trainer.callback_metrics, self.metric)
        self._end(trainer)

    def _is_due(self, trainer: "Trainer") -> bool:
        """Whether the metric should be there after a training epoch."""
        every = trainer.check_val_every_n_epoch
        validated = every is None or (trainer.current_epoch + 1) % every == 0
        return self._ended != trainer.current_epoch and (validated or not trainer.enable_validation)

    def _end(self, trainer: "Trainer") -> None:
        """End an epoch once, with the metric of the first process."""
        if self._ended == trainer.current_epoch:
            return
        value = trainer.strategy.broadcast(self._value)
        self._ended, self._value = trainer.current_epoch, None
        for attachment in attachments(trainer.optimizers):
            attachment.end_epoch(value)
