"""What the Trainer of transformers logs: the rates of all groups, and what each step does."""

from collections.abc import Mapping
from typing import Any

from torch.utils.hooks import RemovableHandle

from nnlr._arguments import flag, instance
from nnlr._plan import Plan
from nnlr._schedule.base_rate import runs_step_hooks
from nnlr._schedule.rate_summary import rate_summary
from nnlr._text import shown
from nnlr.errors import ConfigError, NnlrError
from nnlr.integrations._installed import installed
from nnlr.optim._wrapped import unwrapped
from nnlr.report import Monitor

with installed("transformers"):
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK


class RateCallback(TrainerCallback):
    """Adds the rates of all groups to what the Trainer logs; see :func:`log_rates`.

    Args:
        groups: Log each group too.
    """

    def __init__(self, *, groups: bool = False) -> None:
        self.groups = flag(groups, "groups")
        self._rates: dict[str, float] = {}
        self._hook: RemovableHandle | None = None

    def on_train_begin(self, *_: object, **run: Any) -> None:
        """Refuse an optimizer that is not of a plan, such as one that DeepSpeed built.

        Raises:
            ConfigError: If no group carries ``wd_mult``, or an ``lr_mult`` other than 1.
        """
        # RatioTrainer's schedule has written an lr_mult into any groups by now.
        if not any(
            "wd_mult" in group or group.get("lr_mult", 1) != 1
            for group in run["optimizer"].param_groups
        ):
            raise ConfigError(
                "The Trainer trains with an optimizer of its own: no group has multipliers. "
                "Pass optimizer_cls_and_kwargs=nnlr.integrations.transformers.optimizer(...); "
                "a DeepSpeed configuration must have no section 'optimizer'."
            )
        self.on_train_end()
        inner: Any = unwrapped(run["optimizer"])
        if runs_step_hooks(inner):
            self._hook = inner.register_step_pre_hook(self._note)

    def on_optimizer_step(self, *_: object, **run: Any) -> None:
        """Note the rates, of an optimizer that runs no hooks."""
        if self._hook is None:
            self._note(run["optimizer"])

    def on_train_end(self, *_: object, **__: object) -> None:
        """Leave the optimizer alone."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _note(self, optimizer: Any, *_: object) -> None:  # noqa: ANN401 - or a wrapper
        """Note the rates of this step; when it is logged, schedulers and moves have gone on."""
        self._rates = rate_summary(optimizer)
        if self.groups:
            for position, group in enumerate(optimizer.param_groups):
                name = group.get("name", f"group{position}")
                self._rates[f"lr/{name}"] = float(group["lr"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **run: Any,
    ) -> None:
        """Add them to the logs that have a ``learning_rate``."""
        logs = run["logs"]
        if "learning_rate" in logs:
            logs.update(self._rates)
            state.log_history[-1].update(self._rates)


def log_rates(trainer: Trainer, *, groups: bool = False) -> RateCallback:
    """Have a Trainer log the rates of all groups, not of one.

    The Trainer's ``learning_rate`` is that of the first group. Added are ``lr``, ``lr_min``
    and ``lr_max``, the numbers of :func:`nnlr.rate_summary`, as the step used them. The
    callback is put before those that report, so that TensorBoard, W&B and the others get
    them; in ``Trainer(callbacks=[...])`` it would come after.

    Args:
        trainer: The Trainer.
        groups: Log each group too, as ``lr/NAME``.

    Raises:
        NnlrError: If it is no Trainer.
    """
    if not isinstance(trainer, Trainer):
        raise NnlrError(f"log_rates needs a Trainer, got {shown(trainer)}.")
    callback = RateCallback(groups=groups)
    trainer.callback_handler.callbacks.insert(0, callback)
    return callback


class LayerCallback(TrainerCallback):
    """Watches the Trainer's optimizer layer by layer; made by :func:`log_layers`.

    Attributes:
        monitor: The monitor of the last training; ``None`` before the first.
    """

    def __init__(self, trainer: Trainer, plan: Plan | None, settings: Mapping[str, Any]) -> None:
        self.monitor: Monitor | None = None
        self._trainer, self._plan, self._settings = trainer, plan, settings
        self._values: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **run: Any
    ) -> None:
        """Begin to watch.

        Raises:
            NnlrError: If there is no plan: :func:`optimizer` did not build the optimizer.
        """
        factory, _ = self._trainer.optimizer_cls_and_kwargs or (None, None)
        plan = self._plan or getattr(factory, "plan", None)
        if plan is None:
            raise NnlrError(
                "log_layers does not know the plan of the Trainer's optimizer, which was not built "
                "by nnlr.integrations.transformers.optimizer.\n  Fix: log_layers(trainer, plan)"
            )
        self.on_train_end()
        settings = {"start": state.global_step, "log": self._note, **self._settings}
        self.monitor = Monitor(plan, run["optimizer"], **settings)

    def _note(self, values: dict[str, float], _: int) -> None:
        """Remember a reading until the Trainer has counted the step."""
        self._values = values

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **run: Any
    ) -> None:
        """Hand a reading to what the Trainer reports to."""
        values, self._values = self._values, {}
        reporters = tuple(INTEGRATION_TO_CALLBACK.values())
        for callback in self._trainer.callback_handler.callbacks if values else ():
            if isinstance(callback, reporters):
                reporter: Any = callback
                reporter.on_log(args, state, control, **{**run, "logs": dict(values)})

    def on_train_end(self, *_: object, **__: object) -> None:
        """Stop watching; the readings stay."""
        if self.monitor is not None:
            self.monitor.close()


def log_layers(trainer: Trainer, plan: Plan | None = None, **settings: Any) -> LayerCallback:
    """Have a Trainer log what each step does to each layer: :class:`nnlr.report.Monitor`.

    What ``report_to`` names gets ``lr/GROUP``, ``update_ratio/LAYER`` and ``grad_norm/LAYER`` at
    the cadence of the monitor. They are too many for the console, where
    ``print(callback.monitor)`` shows them after training.

    Args:
        trainer: The Trainer.
        plan: The plan; ``None`` for that of the optimizer that :func:`optimizer` had built.
        **settings: Arguments of :class:`nnlr.report.Monitor`: ``every=``, ``by=``, ``jsonl=``.
            ``log=`` takes the place of the trackers.

    Returns:
        The callback, whose ``monitor`` has the readings.

    Raises:
        NnlrError: If it is no Trainer, or ``plan`` no plan.
    """
    if not isinstance(trainer, Trainer):
        raise NnlrError(f"log_layers needs a Trainer, got {shown(trainer)}.")
    known_plan = None if plan is None else instance(plan, "plan", Plan)
    callback = LayerCallback(trainer, known_plan, settings)
    trainer.add_callback(callback)
    return callback
