"""An optimizer whose plan moves multipliers refuses to step before somebody moves them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from torch.optim import Optimizer

from nnlr._apply.locate import Located
from nnlr._schedule.base_rate import as_float, runs_step_hooks
from nnlr._text import listed
from nnlr.errors import ConfigError

# The attribute by which the hook that waits is recognised.
_MARK: Final = "_nnlr_waits_for_attach"


def moving_schemes(located: Iterable[Located]) -> list[str]:
    """Return the schemes that move something of a plan, as a user would write them."""
    steps = [s for param in located if param.row.trainable for s in param.row.trace]
    return list(dict.fromkeys(step.source for step in steps if step.factor.moves))


def wait_for_attach(optimizer: object, located: Iterable[Located]) -> None:
    """Have an optimizer refuse its steps until ``nnlr.attach``, if its plan moves anything."""
    if not isinstance(optimizer, Optimizer) or not runs_step_hooks(optimizer):
        return
    stop_waiting(optimizer)
    if sources := moving_schemes(located):
        optimizer.register_step_pre_hook(_waits(sources))


def stop_waiting(optimizer: Optimizer) -> None:
    """Let an optimizer step."""
    hooks = optimizer._optimizer_step_pre_hooks
    for key in [key for key, hook in hooks.items() if hasattr(hook, _MARK)]:
        del hooks[key]


def is_dry(optimizer: Optimizer, kwargs: Mapping[str, Any]) -> bool:
    """Whether torch's distributed checkpoints call a step, at rates of 0, to have state made."""
    as_torch_does = "closure" in kwargs and kwargs["closure"] is None
    return as_torch_does and not any(as_float(group["lr"]) for group in optimizer.param_groups)


def _waits(sources: Sequence[str]) -> Callable[..., None]:
    """Return the hook that refuses a step."""

    def refuse(optimizer: Optimizer, _: object, kwargs: Mapping[str, Any]) -> None:
        if is_dry(optimizer, kwargs):
            return
        raise ConfigError(
            f"The plan of this optimizer moves multipliers while training, by {listed(sources)}, "
            "and nobody moves them. After plan.optimizer(...) call nnlr.attach(optimizer, plan, "
            "total_steps=...). With the Trainer of transformers use RatioTrainer, which does.",
            sources=list(sources),
        )

    setattr(refuse, _MARK, True)
    return refuse
