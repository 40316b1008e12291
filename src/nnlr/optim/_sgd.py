"""SGD: what torch's fused kernel for it needs."""

from functools import partial
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor

from nnlr.optim._fast_path import SIXTEEN_BITS, Group, local_part
from nnlr.optim._one_pass import OnePass, step_of
from nnlr.optim._sorting import MOMENTUM


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

    _torch_class = torch.optim.SGD
    _torch_step = unwrap(torch.optim.SGD.step)
    _settings = ("momentum", "dampening", "nesterov")
    _moment_lists = 1
    step = step_of(torch.optim.SGD)

    def _reason_of_class(self, param: Tensor) -> str | None:
        part = local_part(param)
        wrong = part.is_cpu and part.dtype in {torch.bfloat16, torch.float16}
        return SIXTEEN_BITS if wrong else None

    def _make_state(self, group: Group, params: list[Tensor]) -> None:
        """Do nothing: momentum is made when a parameter is sorted."""

    def _moments(self, group: Group) -> tuple[str, ...]:
        return (MOMENTUM,) if group["momentum"] else ()

    def _kernel(self, group: Group, *, first: bool) -> partial[Any]:
        return partial(
            torch._fused_sgd_,
            momentum=group["momentum"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=first,
        )
