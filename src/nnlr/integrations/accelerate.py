"""Accelerate: how many steps a schedule takes.

A plan needs nothing from here: build the optimizer and the schedule on the bare model, then
``accelerator.prepare(model, optimizer, scheduler)``.
"""

from nnlr._arguments import whole
from nnlr._text import shown
from nnlr.errors import NnlrError
from nnlr.integrations._installed import installed

with installed("accelerate"):
    from accelerate import Accelerator


def schedule_steps(accelerator: Accelerator, steps: int) -> int:
    """How often Accelerate steps a prepared scheduler in so many optimizer steps.

    It steps a scheduler once for each process and optimizer step, as if one process had seen
    all batches; with ``split_batches`` or ``step_scheduler_with_optimizer=False`` only once.
    A ``total_steps``, ``T_max`` or warm-up in optimizer steps would be over too soon by the
    number of processes. With ``step_scheduler_with_optimizer=False`` it does not wait for the
    optimizer: call ``scheduler.step()`` only where ``accelerator.sync_gradients``.

    Args:
        accelerator: The ``Accelerator``.
        steps: Optimizer steps of each process: ``epochs * ceil(len(loader) / accumulate)``
            with the loader that ``prepare`` returned.

    Returns:
        What to pass as ``total_steps``, ``T_max``, ``num_training_steps`` and the like.

    Raises:
        NnlrError: If it is no ``Accelerator``, or ``steps`` no whole number above 0.

    Examples:
        >>> from accelerate import Accelerator
        >>> schedule_steps(Accelerator(cpu=True), 1000)  # one process
        1000
    """
    if not isinstance(accelerator, Accelerator):
        raise NnlrError(f"schedule_steps needs an Accelerator first, got {shown(accelerator)}.")
    steps = whole(steps, "steps", minimum=1)
    once = accelerator.split_batches or not accelerator.step_scheduler_with_optimizer
    return steps if once else steps * accelerator.num_processes
