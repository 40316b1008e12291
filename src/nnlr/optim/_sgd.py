"""SGD."""

from functools import partial
from inspect import unwrap

import torch
from torch import Tensor

from nnlr.optim._fast_path import NARROW, part
from nnlr.optim._one_pass import OnePass, step_of
from nnlr.optim._roster import Group
from nnlr.optim._state import MOMENTUM
from nnlr.optim._table import Call

_NARROW = (torch.bfloat16, torch.float16)


class SGD(OnePass, torch.optim.SGD):
    """``torch.optim.SGD``, with all groups in one pass.

    Arguments, numbers and state are those of :class:`torch.optim.SGD`, of which this is a
    subclass. Where ``foreach`` and ``fused`` are not given, torch's fused kernel is used on
    every device that has it; ``foreach=True`` and ``fused=False`` are obeyed.

    Examples:
        >>> import torch, nnlr
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = nnlr.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> (weight - 1).square().sum().backward()
        >>> optimizer.step()
        >>> weight
        Parameter containing:
        tensor([0.2000, 0.2000], requires_grad=True)
    """

    _torchs = torch.optim.SGD
    _torchs_step = unwrap(torch.optim.SGD.step)
    step = step_of(torch.optim.SGD)

    def _unfit(self, param: Tensor) -> str | None:
        own = part(param)
        return NARROW if own.is_cpu and own.dtype in _NARROW else None

    def _prepare(self, group: Group, params: list[Tensor]) -> None:
        """Nothing: the state of a parameter is made with its momentum."""

    def _moments(self, group: Group) -> tuple[str, ...]:
        return (MOMENTUM,) if group["momentum"] else ()

    def _call(
        self,
        group: Group,
        first: bool,
        moments: list[list[Tensor]],
        steps: list[Tensor],
    ) -> Call:
        function = partial(
            torch._fused_sgd_,
            momentum=group["momentum"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=first,
        )
        return Call(function, (moments[0] if moments else [],))
