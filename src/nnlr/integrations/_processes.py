"""Checks that all processes of a trainer have the same plan."""

from torch import nn

from nnlr._agree import agree
from nnlr._plan import Plan

# An attribute of the parameters that FSDP1 flattens; their shape is that of a part.
_FLATTENED = "_fsdp_flattened"


def agree_if_whole(plan: Plan, model: nn.Module) -> None:
    """Call :func:`nnlr.agree`, unless each process sees other shapes.

    Under FSDP1 the plans of a wrapped model differ and nothing is wrong; under FSDP2 and
    tensor parallelism shapes are those of the whole model.
    """
    if not any(hasattr(parameter, _FLATTENED) for parameter in model.parameters()):
        agree(plan)
