"""The ends of epochs in the Trainer of transformers."""

from math import ceil
from typing import Any

from nnlr._arguments import text
from nnlr.integrations._epochs import attachments, measured, warn_if_short
from nnlr.integrations._installed import installed

with installed("transformers"):
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# An epoch of data with a length has ended at a whole number up to this.
_NOISE = 1e-6


class EpochCallback(TrainerCallback):
    """Tells :func:`nnlr.attach` where epochs end, and what a metric has come to.

    Put it into ``Trainer(callbacks=[...])`` if a scheme goes by epochs, as
    :func:`nnlr.unfreeze` does. Where an evaluation follows the end of an epoch
    (``eval_strategy="epoch"``) it waits for that; else it takes the last one in the epoch. Both
    come before a checkpoint of ``save_strategy="epoch"``.

    Args:
        metric: Name of a metric of the evaluation, such as ``"eval_loss"``, with or without
            ``eval_``; ``None`` to tell of epochs only.

    Raises:
        ConfigError: When training begins, if no plan is attached to the optimizer.
        NnlrError: When an evaluation ends, if it has no such metric, or that is not finite.
    """

    def __init__(self, metric: str | None = None) -> None:
        self.metric = None if metric is None else text(metric, "metric", "eval_loss")
        self._waits = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **run: Any
    ) -> None:
        """Look for what is attached, and end the epoch of a checkpoint of its last step.

        That comes before the end of the epoch and its evaluation, and the Trainer goes on with the
        next epoch.
        """
        self._waits = False
        working = attachments([run["optimizer"]])
        warn_if_short(working, state.num_train_epochs)
        for attachment in working:
            for _ in range(int((state.epoch or 0.0) + _NOISE) - attachment.progress.epoch):
                attachment.end_epoch()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **run: Any
    ) -> None:
        """End the epoch, unless its evaluation is still to come."""
        epoch = state.epoch or 0.0
        # Of data without a length no epoch is a whole number.
        if abs(epoch - round(epoch)) > _NOISE and control.should_training_stop:  # within it
            return
        self._waits = control.should_evaluate and self.metric is not None
        if not self._waits:
            self._end(self._last(state, epoch), run)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **run: Any
    ) -> None:
        """End the epoch with the metric that it waits for."""
        if self._waits and self.metric is not None:
            self._waits = False
            self._end(measured(run["metrics"], self._key(run["metrics"])), run)

    def _end(self, value: float | None, run: dict[str, Any]) -> None:
        for attachment in attachments([run["optimizer"]]):
            attachment.end_epoch(value)

    def _last(self, state: TrainerState, epoch: float) -> float | None:
        """The metric of the last evaluation in an epoch, which the state remembers."""
        start = ceil(epoch - _NOISE) - 1
        entries = [e for e in state.log_history if e["epoch"] > start + _NOISE]
        values = [e[key] for e in entries if (key := self._key(e)) in e]
        return float(values[-1]) if values else None

    def _key(self, metrics: dict[str, Any]) -> str:
        """The metric's name in some metrics."""
        name = str(self.metric)
        return f"eval_{name}" if name not in metrics and f"eval_{name}" in metrics else name
