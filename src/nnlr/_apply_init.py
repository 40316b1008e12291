"""Scale the initial weights of a model by a plan's ``init_mult``."""

import torch
from torch import nn

from nnlr._apply.locate import locate
from nnlr._arguments import instance
from nnlr._model.marks import init_applied, set_init_applied
from nnlr._model.names import unwrap
from nnlr._plan import Plan
from nnlr._text import listed
from nnlr.errors import NnlrError


def apply_init(model: nn.Module, plan: Plan) -> list[str]:
    """Multiply the initial weights in place by the plan's ``init_mult``, once.

    ``w <- init_mult * w`` for every parameter whose ``init_mult`` is not 1, frozen and locked
    ones too. Until it has run, such a plan builds no optimizer.

    Args:
        model: The model the plan was made for, initialised as usual.
        plan: The plan.

    Returns:
        Names of the parameters that were scaled.

    Raises:
        NnlrError: If it has run on this model before, or weights are on the meta device.
        PlanMismatchError: If the plan is for another model.

    Examples:
        >>> import nnlr, torch
        >>> class Half(nnlr.Scheme):
        ...     def factors(self, model):
        ...         return [nnlr.Factor(init_mult=0.5) for _ in model.params]
        >>> net = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.ones_(net.weight)
        >>> nnlr.apply_init(net, nnlr.resolve(net, Half(), lr=0.1, weight_decay=0))
        ['weight']
        >>> net.weight.item()
        0.5
    """
    instance(model, "model", nn.Module)
    instance(plan, "plan", Plan)
    if init_applied(unwrap(model)):
        raise NnlrError(
            f"The initial weights of this {type(model).__name__} have been scaled before; twice "
            "would be wrong. Build the model again to start over."
        )
    scaled = [param for param in locate(plan.rows, model) if param.row.init_mult != 1]
    if on_meta := [param.row.name for param in scaled if param.tensor.is_meta]:
        raise NnlrError(
            f"{listed(on_meta)} are on the meta device and have no values yet. Materialise and "
            "initialise the model, then call apply_init.",
            names=on_meta,
        )
    with torch.no_grad():
        for param in scaled:
            param.tensor.mul_(param.row.init_mult)
    if scaled:
        set_init_applied(unwrap(model))
    return [param.row.name for param in scaled]
