"""Adam and AdamW: what torch's fused kernels for them need."""

from functools import partial
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor

from nnlr.optim._fast_path import Group
from nnlr.optim._one_pass import OnePass, step_of


class _Adam(OnePass):
    """The parts that Adam and AdamW share."""

    _settings = ("betas", "eps", "amsgrad", "capturable", "decoupled_weight_decay")
    _moment_lists = 3

    def state_dict(self) -> dict[str, Any]:
        """The state, in the form of torch's class.

        Torch's default steps keep their counters on the CPU, its fused ones beside the
        parameters. Here they are always beside the parameters, and are saved where torch
        would have them.
        """
        saved = super().state_dict()
        if not saved.keys() >= {"state", "param_groups"}:
            return saved  # a hook has replaced it
        on_cpu = {
            index
            for group in saved["param_groups"]
            if not (group.get("fused") or group.get("capturable"))
            for index in group["params"]
        }
        saved["state"] = {
            key: {**state, "step": state["step"].cpu()}
            if key in on_cpu and isinstance(state.get("step"), Tensor)
            else state
            for key, state in saved["state"].items()
        }
        return saved

    def _refuse_capture(self) -> None:
        if hasattr(self, "_accelerator_graph_capture_health_check"):
            self._accelerator_graph_capture_health_check()
        else:  # pragma: no cover - the name that torch had before 2.10
            self._cuda_graph_capture_health_check()

    def _make_state(self, group: Group, params: list[Tensor]) -> None:
        self._init_group({**group, "params": params, "fused": True}, [], [], [], [], [], [])

    def _moments(self, group: Group) -> tuple[str, ...]:
        names = ("exp_avg", "exp_avg_sq")
        return (*names, "max_exp_avg_sq") if group["amsgrad"] else names

    def _kernel(self, group: Group, *, first: bool) -> partial[Any]:
        decoupled = group.get("decoupled_weight_decay", isinstance(self, torch.optim.AdamW))
        beta1, beta2 = group["betas"]
        return partial(
            torch._fused_adamw_ if decoupled else torch._fused_adam_,
            amsgrad=group["amsgrad"],
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            maximize=group["maximize"],
        )


class Adam(_Adam, torch.optim.Adam):
    """``torch.optim.Adam``, with all groups in one pass.

    Arguments, numbers and state are those of :class:`torch.optim.Adam`, of which this is a
    subclass. Where ``foreach`` and ``fused`` are not given, torch's fused kernel is used on
    every device that has it; ``foreach=True`` and ``fused=False`` are obeyed.

    Examples:
        >>> import torch, nnlr
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = nnlr.optim.Adam([weight], lr=0.1)
        >>> (weight - 1).square().sum().backward()
        >>> optimizer.step()
        >>> weight
        Parameter containing:
        tensor([0.1000, 0.1000], requires_grad=True)
    """

    _torch_class = torch.optim.Adam
    _torch_step = unwrap(torch.optim.Adam.step)
    step = step_of(torch.optim.Adam)


class AdamW(_Adam, torch.optim.AdamW):
    """``torch.optim.AdamW``, with all groups in one pass.

    Arguments, numbers and state are those of :class:`torch.optim.AdamW`, of which this is a
    subclass. Where ``foreach`` and ``fused`` are not given, torch's fused kernel is used on
    every device that has it; ``foreach=True`` and ``fused=False`` are obeyed.

    Examples:
        >>> import torch, nnlr
        >>> model = torch.nn.Linear(2, 1)
        >>> plan = nnlr.resolve(
        ...     model, nnlr.rule("bias", lr_mult=0.1), lr=1e-3, weight_decay=0.05)
        >>> optimizer = plan.optimizer(nnlr.optim.AdamW)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> print(optimizer.fast_path_report())
        2 of 2 parameters on the fast path
    """

    _torch_class = torch.optim.AdamW
    _torch_step = unwrap(torch.optim.AdamW.step)
    step = step_of(torch.optim.AdamW)
