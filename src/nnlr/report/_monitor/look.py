"""One look at a step of an optimizer: begun before the step, ended after it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._rows.row import PlanRow
from nnlr.report._monitor.reading import ParamReading, State
from nnlr.report._monitor.sums import Sums, here

Group = Mapping[str, Any]

_HALF = {torch.float16, torch.bfloat16}


def group_names(optimizer: Optimizer) -> list[str]:
    """A name for each group, no two alike: its own, else its position."""
    names: dict[str, None] = {}
    for at, group in enumerate(optimizer.param_groups):
        name = str(group.get("name", f"group{at}"))
        names[name if name not in names else f"{name} (group {at})"] = None
    return list(names)


class Look:
    """What one step does to parameters.

    Weights are copied before the step and compared after it, whatever the optimizer does. Made
    before the step; :meth:`see_gradients` is called when they are there, :meth:`end` after it.

    Args:
        optimizer: The optimizer that is about to step.
        rows: The rows of the parameters to look at.
        tensors: The tensor of each, by name.
        layer_of: What a parameter is shown under, from its name and that of its group.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rows: Sequence[PlanRow],
        tensors: Mapping[str, Tensor],
        layer_of: Callable[[str, str | None], str],
    ) -> None:
        self._sums = sums = Sums()
        names = group_names(optimizer)
        groups = list(zip(names, optimizer.param_groups, strict=True))
        self._rates = {name: _rate(group.get("lr"), sums) for name, group in groups}
        group_of = {id(tensor): pair for pair in groups for tensor in pair[1]["params"]}
        self._params: list[ParamReading] = []
        self._stepped: list[tuple[ParamReading, Tensor, str]] = []
        self._resting: list[tuple[ParamReading, int]] = []
        for row in rows:
            tensor = tensors[row.name]
            name, group = group_of.get(id(tensor), (None, None))
            param = ParamReading(row.name, layer_of(row.name, name), _state(row, tensor, group))
            self._params.append(param)
            if name is None or group is None:
                self._resting.append((param, sums.bits(tensor)))
                continue
            param.dtype = str(tensor.dtype).removeprefix("torch.")
            param.half = tensor.dtype in _HALF
            decay = group.get("weight_decay") or 0.0
            param.decay = 1.0 if isinstance(decay, Tensor) else float(decay)
            self._stepped.append((param, tensor, name))
        self._before = [torch.empty_like(here(tensor)) for _, tensor, _ in self._stepped]
        like = [tensor for _, tensor, _ in self._stepped]
        if like:  # of an empty list torch makes an error
            torch._foreach_copy_(self._before, [here(tensor) for tensor in like])
        self._weights = sums.squares(self._before, like)
        self._gradients: list[int | None] = []
        self._pulled: list[int | None] = []
        # What a gradient scaler leaves to classes that unscale gradients themselves.
        self._scale = _setting(optimizer, "grad_scale", sums)
        self._overflow = _setting(optimizer, "found_inf", sums)

    def see_gradients(self) -> None:
        """Read the gradients."""
        present = []
        for at, (_, tensor, _) in enumerate(self._stepped):
            gradient: Any = tensor.grad
            if gradient is not None:
                layout = getattr(tensor, "placements", None)
                if layout is not None and getattr(gradient, "placements", layout) != layout:
                    gradient = gradient.redistribute(placements=layout)
                present.append((at, here(gradient)))
            elif hasattr(tensor, "placements"):  # another process may have one
                present.append((at, here(tensor).new_zeros(1)))
        like = [self._stepped[at][1] for at, _ in present]
        places = self._sums.squares([gradient for _, gradient in present], like)
        self._gradients = [None] * len(self._stepped)
        self._pulled = [None] * len(self._stepped)
        for (at, gradient), place in zip(present, places, strict=True):
            self._gradients[at] = place
            param, tensor, _ = self._stepped[at]
            if param.half:
                self._pulled[at] = self._sums.nonzeros(gradient, tensor)

    def end(self) -> tuple[dict[str, float], list[ParamReading]] | None:
        """The rate of each group and the readings; ``None`` of a step that a scaler skipped."""
        sums, like = self._sums, [tensor for _, tensor, _ in self._stepped]
        if like:
            torch._foreach_sub_(self._before, [here(tensor) for tensor in like])
        updates = sums.squares(self._before, like)
        moved = [
            sums.nonzeros(change, tensor) if param.half else None
            for change, (param, tensor, _) in zip(self._before, self._stepped, strict=True)
        ]
        numbers = sums.read()
        if self._overflow is not None and numbers[self._overflow] > 0:
            return None
        scale = 1.0 if self._scale is None else numbers[self._scale]
        rates = {
            name: numbers[rate] if isinstance(rate, int) else rate
            for name, rate in self._rates.items()
        }
        for at, (param, tensor, group) in enumerate(self._stepped):
            param.lr = rates[group]
            param.update, param.weight = numbers[updates[at]], numbers[self._weights[at]]
            gradient, pulled, changed = self._gradients[at], self._pulled[at], moved[at]
            if gradient is not None and (tensor.grad is not None or numbers[gradient] > 0):
                param.gradient = numbers[gradient] / scale**2
            param.pulled = 0.0 if pulled is None else numbers[pulled]
            param.moved = 0.0 if changed is None else numbers[changed]
        for param, place in self._resting:
            param.bits = numbers[place]
        return rates, self._params


def _state(row: PlanRow, tensor: Tensor, group: Group | None) -> State:
    """What is to happen to a parameter, by the optimizer as it is now.

    A regroup may have unlocked what the plan of the monitor locks, and the reverse.
    """
    if group is not None:
        locked = group.get("lr_mult") == 0 or (row.locked and "lr_mult" not in group)
        return "locked" if locked else "trained"
    if tensor.requires_grad and not row.locked:
        return "in no group"
    return "frozen" if row.frozen else "locked"


def _rate(rate: object, sums: Sums) -> float | int:
    """A rate, or the place of one that is on a device; NaN where a class makes its own."""
    if isinstance(rate, Tensor):
        return sums.value(rate)
    return math.nan if rate is None else float(rate)  # type: ignore[arg-type]


def _setting(optimizer: Optimizer, name: str, sums: Sums) -> int | None:
    """The place of a tensor that a gradient scaler has set on the optimizer."""
    value = getattr(optimizer, name, None)
    return sums.value(value) if isinstance(value, Tensor) else None
