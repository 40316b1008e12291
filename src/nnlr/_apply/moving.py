"""An optimizer whose plan moves multipliers refuses to step before somebody moves them."""

from collections.abc import Callable, Iterable
from typing import Final

from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._schedule.base_rate import runs_step_hooks
from nnlr._text import listed
from nnlr.errors import ConfigError

# The attribute by which the hook that waits is recognised.
_MARK: Final = "_nnlr_waits_for_attach"


def wait_for_attach(optimizer: object, located: Iterable[Located]) -> None:
    """Have an optimizer refuse its steps until ``nnlr.attach``, if its plan moves anything."""
    if not isinstance(optimizer, Optimizer) or not runs_step_hooks(optimizer):
        return
    stop_waiting(optimizer)
    steps = [s for param in located if param.row.trainable for s in param.row.trace]
    if sources := list(dict.fromkeys(step.source for step in steps if step.factor.moves)):
        optimizer.register_step_pre_hook(_waits(sources))


def stop_waiting(optimizer: Optimizer) -> None:
    """Let an optimizer step."""
    hooks = optimizer._optimizer_step_pre_hooks
    for key in [key for key, hook in hooks.items() if hasattr(hook, _MARK)]:
        del hooks[key]


def _waits(sources: list[str]) -> Callable[..., None]:
    """Return the hook that refuses a step."""

    def refuse(*_: object) -> None:
        raise ConfigError(
            f"The plan of this optimizer moves multipliers while training, by {listed(sources)}, "
            "and nobody moves them. After plan.optimizer(...) call nnlr.attach(optimizer, plan, "
            "total_steps=...).",
            sources=sources,
        )

    setattr(refuse, _MARK, True)
    return refuse
