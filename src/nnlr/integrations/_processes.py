"""Trainers build an optimizer in every process: whether all have the same plan."""

from torch import nn

from nnlr._agree import agree
from nnlr._plan import Plan

# What FSDP1 notes on the parameters that it flattens, in place of a shape of the whole.
_FLATTENED = "_fsdp_flattened"


def agree_if_whole(plan: Plan, model: nn.Module) -> None:
    """Call :func:`nnlr.agree`, unless each process sees shapes of its own.

    So it is under FSDP1, where the plans of a wrapped model differ and nothing is wrong;
    under FSDP2 and tensor parallelism shapes are those of the whole.
    """
    if not any(hasattr(parameter, _FLATTENED) for parameter in model.parameters()):
        agree(plan)
