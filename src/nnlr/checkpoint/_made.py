"""Which state an optimizer's class makes of a parameter: one step of it on the meta device.

A saved state without what the next step reads, or with it in another shape, would fail there.
"""

import contextlib
from collections.abc import Mapping
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._sandbox import arguments, undisturbed
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN, plain
from nnlr._schedule.progress import SCHEDULED
from nnlr.checkpoint._sides import NOTE, Group
from nnlr.optim._members import ALGORITHM

# Settings of how a step is computed, off for the trial: they ask for certain devices.
_PLAIN_STEP: Final = {"fused": None, "foreach": False, "capturable": False, "differentiable": False}

# What a step does not read, or has no part in which state there is.
_OF_NO_STATE: Final = {
    *("params", "param_names", "name", "triton", ORIGIN, NOTE, ALGORITHM),
    *SCHEDULED,
    *MULTIPLIERS,
    *MULTIPLIERS.values(),
}


class Maker:
    """Makes the state of parameters that an optimizer would make in its first step.

    ``packed`` asks for it as a ``state_dict`` has it.
    """

    def __init__(self, optimizer: Optimizer, *, packed: bool) -> None:
        self._packed = packed
        self._of_torch = type(optimizer).__module__.partition(".")[0] in {"torch", "nnlr"}
        lineage = type(optimizer).mro()
        # A class of torch below it keeps the same state, if its own kernels run elsewhere only.
        self._classes = [
            cls
            for cls in lineage[: lineage.index(Optimizer)]
            if cls is lineage[0] or cls.__module__.startswith("torch.optim.")
        ]
        self._defaults = optimizer.defaults
        # The settings of a group on which its state depends, and these as a text.
        self._chosen: dict[int, tuple[Group, dict[str, Any], str]] = {}
        self._made: dict[object, Mapping[str, Any] | None] = {}

    def made(self, settings: Group, tensor: Tensor, *, device: str = "meta") -> Any:  # noqa: ANN401 - a state or None
        """Return the state of a parameter after one step without a gradient.

        ``None`` if that cannot be tried.
        """
        if id(settings) not in self._chosen:
            of_state = {key: plain(settings[key]) for key in settings.keys() - _OF_NO_STATE}
            self._chosen[id(settings)] = settings, of_state, repr(sorted(of_state.items()))
        _, chosen, text = self._chosen[id(settings)]
        shape, dtype = tensor.shape, tensor.dtype
        key = (shape, dtype, device, text)
        if key not in self._made and self._of_torch and device == "meta":
            # What these make depends on no size.
            like = small(tensor)
            parts = self.made(settings, like, device="cpu")
            self._made[key] = parts and {
                part: torch.empty(shape, dtype=value.dtype, device="meta")
                if is_whole(value, like)
                else value
                for part, value in parts.items()
            }
        if key not in self._made:
            self._made[key] = None
            for cls, noise in product(self._classes, (0.0, 1.0)):  # some refuse a gradient of 0
                parameter = torch.nn.Parameter(torch.ones(shape, dtype=dtype, device=device))
                with contextlib.suppress(Exception):
                    self._made[key] = self._step(cls, chosen, parameter, noise)
                    break
        return self._made[key]

    def _step(
        self, cls: type[Optimizer], settings: Group, parameter: torch.nn.Parameter, noise: float
    ) -> Mapping[str, Any]:
        """Take one step with an optimizer of a class, and return the state that it made."""
        every = {**self._defaults, **_PLAIN_STEP, "weight_decay": 0.0}
        built_with = {key: plain(every[key]) for key in arguments(cls) if key in every}
        group = {"params": [parameter], **settings}
        group |= {key: value for key, value in _PLAIN_STEP.items() if key in group}
        with undisturbed(), torch.no_grad():
            optimizer = cls([group], **built_with)
            getattr(optimizer, "train", lambda: None)()  # schedule-free ones ask for it
            parameter.grad = torch.zeros_like(parameter)
            if noise and not parameter.is_meta:
                source = torch.Generator("cpu").manual_seed(0)
                values = torch.randn(parameter.shape, generator=source, device="cpu")
                parameter.grad.copy_(noise * values)
            optimizer.step()
            state = optimizer.state_dict()["state"].get(0, {}) if self._packed else None
        return kept(optimizer.state[parameter] if state is None else state)


def small(tensor: Tensor) -> Tensor:
    """Return a small tensor with as many axes."""
    return torch.ones([2 + axis for axis in range(tensor.ndim)], dtype=tensor.dtype)


def kept(state: object) -> dict[Any, Any]:
    """Return what there is of a state; some optimizers note ``None`` where nothing is yet."""
    items = state.items() if isinstance(state, Mapping) else ()
    return {key: value for key, value in items if value is not None}


def is_whole(value: object, tensor: Tensor) -> bool:
    """Whether a part of a state has the shape of its parameter."""
    return isinstance(value, Tensor) and tensor.ndim > 0 and value.shape == tensor.shape
