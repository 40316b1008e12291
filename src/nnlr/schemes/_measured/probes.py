"""Probes: one number for a unit, from its weights, gradients and optimizer state.

    rgn           |g| / |w|                                         relative gradient norm
    snr           mean of g^2 / (var over the first axis + 1e-8)    signal to noise
    grad_norm     |g|
    weight_norm   |w|
    update        |d| / |w|, d the direction that the optimizer's state has
    alpha         1 + k / (sum ln l_j - k ln l_i), see spectrum     weight of the spectrum's tail

``rgn`` and ``snr`` are those of Lee, Chen et al. (2023, arXiv 2210.11466), ``alpha`` that of
Zhou et al. (2023, arXiv 2312.00359). Norms are over all tensors of a unit, in float32 at least,
and of sharded tensors over all processes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from nnlr._arguments import whole as whole_number
from nnlr.schemes._measured.spectrum import SPECTRAL, alpha_of, sides


@dataclass(frozen=True, slots=True)
class LiveUnit:
    """A unit at a step: what a probe looks at.

    Attributes:
        name: The module, layer or tensor that it is.
        names: Canonical names of its parameters.
        roles: What each is for; see :func:`nnlr.role`.
        weights: The parameters; ``DTensor`` where they are sharded.
        grads: Their gradients; ``None`` where there is none.
        states: What the optimizer keeps for each; empty before its first step.
    """

    name: str
    names: tuple[str, ...]
    roles: tuple[str, ...]
    weights: tuple[Tensor, ...]
    grads: tuple[Tensor | None, ...]
    states: tuple[Mapping[str, Any], ...]


Probe = Callable[[LiveUnit], Tensor | float | None]


def rgn() -> Probe:
    """The norm of the gradient over that of the weights; none where all weights are 0."""

    def probe(unit: LiveUnit) -> Tensor | None:
        pairs = [(w, g) for w, g in zip(unit.weights, unit.grads, strict=True) if g is not None]
        return _norm([g for _, g in pairs]) / _norm([w for w, _ in pairs]) if pairs else None

    return probe


def snr() -> Probe:
    """The square of the gradient over its variance along the first axis.

    None where the first axis has a length below 2. For n of them the mean over that axis is
    ``(n - 1) / n + mean^2 / var``, less where the gradients are not far above 1e-4.
    """

    def probe(unit: LiveUnit) -> Tensor | None:
        sums, count = [], 0
        for grad in unit.grads:
            if grad is not None and grad.ndim and grad.shape[0] > 1:
                whole = _whole(grad.detach()).to(_at_least_float32(grad))
                noise = whole.var(dim=0, keepdim=True) + 1e-8
                sums.append((whole.square() / noise).sum())
                count += whole.numel()
        return torch.stack(sums).sum() / count if sums else None

    return probe


def grad_norm() -> Probe:
    """The norm of the gradient."""

    def probe(unit: LiveUnit) -> Tensor | None:
        grads = [grad for grad in unit.grads if grad is not None]
        return _norm(grads) if grads else None

    return probe


def weight_norm() -> Probe:
    """The norm of the weights."""
    return lambda unit: _norm(unit.weights)


def update() -> Probe:
    """The norm of the optimizer's direction over that of the weights.

    The direction is ``exp_avg / (sqrt(exp_avg_sq) + 1e-8)`` or ``momentum_buffer``; there is none
    before the first step, and of optimizers that keep neither.
    """

    def probe(unit: LiveUnit) -> Tensor | None:
        pairs = [
            (weight, direction)
            for weight, state in zip(unit.weights, unit.states, strict=True)
            if (direction := _direction(state)) is not None
        ]
        return _norm([d for _, d in pairs]) / _norm([w for w, _ in pairs]) if pairs else None

    return probe


def alpha(min_eigenvalues: int = 50, max_size: int = 4096) -> Probe:
    """The exponent of the spectrum's tail; the mean where a unit has several matrices.

    A matrix with fewer eigenvalues, or whose shorter side is above ``max_size``, has none: the
    cost grows with the square of the shorter side times the longer one.
    """
    measured = Measured(
        whole_number(min_eigenvalues, "min_eigenvalues", minimum=2),
        whole_number(max_size, "max_size", minimum=2),
    )

    def probe(unit: LiveUnit) -> float | None:
        exponents = [
            alpha_of(weight, role, name)
            for name, role, weight in zip(unit.names, unit.roles, unit.weights, strict=True)
            if measured.why_not(tuple(weight.shape), role) is None
        ]
        present = [exponent for exponent in exponents if exponent is not None]
        return sum(present) / len(present) if present else None

    probe.measured = measured  # type: ignore[attr-defined]
    return probe


@dataclass(frozen=True, slots=True)
class Measured:
    """Which weights have their spectrum taken."""

    min_eigenvalues: int
    max_size: int

    def why_not(self, shape: tuple[int, ...], role: str) -> str | None:
        """Why a weight is left out; ``""`` where it is no matrix at all, ``None`` if it is not."""
        if role not in SPECTRAL or len(shape) < 2:
            return ""
        count, rows, columns = sides(shape, role)
        if count * min(rows, columns) < self.min_eigenvalues:
            return f"fewer than {self.min_eigenvalues} eigenvalues"
        if min(rows, columns) > self.max_size:
            return f"a shorter side above {self.max_size}"
        return None


PROBES: Final[Mapping[str, Callable[..., Probe]]] = {
    "rgn": rgn,
    "snr": snr,
    "grad_norm": grad_norm,
    "weight_norm": weight_norm,
    "update": update,
    "alpha": alpha,
}


def _direction(state: Mapping[str, Any]) -> Tensor | None:
    """The direction of the last step, as far as an optimizer's state tells."""
    if "exp_avg" in state and "exp_avg_sq" in state:
        direction: Tensor = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)
        return direction
    return state.get("momentum_buffer")


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm over all of some tensors."""
    norms = [
        _whole(torch.linalg.vector_norm(each.detach(), dtype=_at_least_float32(each)))
        for each in tensors
    ]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def _whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; any other as it is."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    """The dtype in which sums over a tensor are exact enough."""
    return torch.promote_types(tensor.dtype, torch.float32)
