"""Try whether an optimizer reads a setting: run a small one of its class on two tensors.

Whether an optimizer reads a setting of its groups is not in its name or its signature. Two
equal tensors get equal gradients and settings that differ in one thing; how far each has moved
after some steps tells whether that thing counts.
"""

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr._checks.subject import peak

# How much slower the second tensor is to learn.
SLOWER: Final = 0.1

# Some optimizers round the result; between half and twice the rate counts as read.
_READ: Final = (SLOWER / 10**0.5, SLOWER * 10**0.5)

_STEPS: Final = 5

# Settings of how a step is computed, off for the trial: they ask for certain devices.
_PLAIN_STEP: Final = {
    "fused": None,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
}

_Kind = tuple[torch.dtype, bool]  # of the tensors, and whether gradients are sparse

_Settings = Mapping[str, Any]  # in which one group differs from the other

# The usual kind first: some classes take sparse gradients, or no doubles.
_KINDS: Final[tuple[_Kind, ...]] = (
    (torch.float64, False),
    (torch.float32, False),
    (torch.float64, True),
)


class ProbeError(Exception):
    """A trial that could not be made; the text says why."""


class RefusalError(ProbeError):
    """The optimizer runs, and refuses what was to be tried."""


class Probe:
    """Trials of an optimizer's class with its present settings; the optimizer takes no step."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._cls = type(optimizer)
        arguments = inspect.signature(self._cls).parameters
        defaults = copy.deepcopy(optimizer.defaults)
        settings = {**defaults, **_PLAIN_STEP}
        self._settings = {key: value for key, value in settings.items() if key in arguments}
        fastest = max(optimizer.param_groups, key=lambda group: peak(group) or 0.0)
        self._lr = peak(fastest) or 1e-3
        self._group = {
            key: copy.deepcopy(fastest[key])
            for key in fastest.keys() & self._settings.keys() - _PLAIN_STEP.keys() - {"lr"}
        }
        kind = self._first_that_runs([{}, {}])
        if isinstance(kind, str):  # it may still train a single group
            alone = self._first_that_runs([{}])
            raise (ProbeError if isinstance(alone, str) else RefusalError)(kind)
        self._kind = kind

    def _first_that_runs(self, groups: Sequence[_Settings]) -> _Kind | str:
        """A kind of tensors on which it runs, or its error on the usual kind."""
        failures = []
        for kind in _KINDS:
            try:
                self._run(kind, groups)
            except Exception as error:  # noqa: BLE001 - anyone's optimizer
                failures.append(f"{type(error).__name__}: {error}")
            else:
                return kind
        return failures[0]

    def ratio(self) -> float:
        """How far the second tensor moves, relative to the first, at a tenth of the rate."""
        no_decay = {"weight_decay": 0.0} if "weight_decay" in self._group else {}
        fast, slow = self._moves(
            {"lr": self._lr, **no_decay}, {"lr": self._lr * SLOWER, **no_decay}
        )
        distance = float(fast.norm())
        if not 0 < distance < math.inf:
            raise ProbeError(f"nothing moved in {_STEPS} steps")
        return float(slow.norm()) / distance

    def reads(self, key: str, one: object, other: object) -> bool:
        """Whether it matters which of two values a group has; ``...`` leaves it out."""
        return not torch.equal(*self._moves({key: one}, {key: other}))

    def _moves(self, one: _Settings, other: _Settings) -> tuple[Tensor, Tensor]:
        """How far two equal tensors move in groups of different settings."""
        try:
            first, second = self._run(self._kind, [one, other])
        except Exception as error:
            raise RefusalError(f"{type(error).__name__}: {error}") from error
        return first, second

    def _run(self, kind: _Kind, differing: Sequence[_Settings]) -> list[Tensor]:
        """How far equal tensors move, each in a group of its own."""
        dtype, sparse = kind
        source = torch.Generator("cpu").manual_seed(0)

        def noise() -> Tensor:
            return torch.randn(4, 4, generator=source, dtype=dtype, device="cpu")

        start, push = noise(), noise()
        tensors = [torch.nn.Parameter(start.clone()) for _ in differing]
        groups = [
            {"params": [tensor], "lr": self._lr, **self._group, **settings}
            for tensor, settings in zip(tensors, differing, strict=True)
        ]
        optimizer = self._cls(
            [{k: v for k, v in group.items() if v is not ...} for group in groups],
            **self._settings,
        )
        getattr(optimizer, "train", lambda: None)()  # schedule-free ones ask for it
        for step in range(_STEPS):
            # One direction, shrinking, so that running means and maxima differ.
            gradient = (push + 0.1 * noise()) * 0.8**step

            def loss(gradient: Tensor = gradient) -> Any:  # noqa: ANN401 - a float, or so
                for tensor in tensors:
                    tensor.grad = gradient.to_sparse(1) if sparse else gradient.clone()
                return gradient.sum()

            loss()
            try:
                optimizer.step()
            except Exception:  # noqa: BLE001 - it may want to evaluate the loss
                optimizer.step(loss)
        return [tensor.detach() - start for tensor in tensors]


def is_read(ratio: float) -> bool:
    """Whether tensors moved about in the ratio of their rates."""
    return _READ[0] < ratio < _READ[1]
