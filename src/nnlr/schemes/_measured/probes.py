"""Probes: one number for a unit, from its weights, gradients and optimizer state.

    rgn           |g| / |w|                                         relative gradient norm
    snr           mean of g^2 / (var over the first axis + 1e-8)    signal to noise
    grad_norm     |g|
    weight_norm   |w|
    update        |d| / |w|, d the direction that the optimizer's state has
    alpha         1 + k / (sum ln l_j - k ln l_i), see spectrum     how light the spectrum's tail is

``rgn`` and ``snr`` are those of Lee, Chen et al. (2023, arXiv 2210.11466), ``alpha`` that of
Zhou et al. (2023, arXiv 2312.00359). Norms are over all tensors of a unit, in float32 at least,
and of sharded tensors over all processes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from nnlr._arguments import whole as whole_number
from nnlr.schemes._measured.spectrum import SPECTRAL, alpha_of, sides

if TYPE_CHECKING:
    from nnlr._rows.units import Unit

Probe = Callable[["Unit"], Tensor | float | None]


def rgn() -> Probe:
    """The norm of the gradient over that of the weights."""
    return lambda unit: _relative(_gradients(unit))


def snr() -> Probe:
    """The square of the gradient over its variance along the first axis.

    None where the first axis has a length below 2. For n of them the mean over that axis is
    ``(n - 1) / n + mean^2 / var``, less where the gradients are not far above 1e-4.
    """

    def probe(unit: "Unit") -> Tensor | None:
        sums, count = [], 0
        for _, grad in _gradients(unit):
            if grad.ndim and grad.shape[0] > 1:
                whole = _whole(grad).to(_at_least_float32(grad))
                noise = whole.var(dim=0, keepdim=True) + 1e-8
                sums.append((whole.square() / noise).sum())
                count += whole.numel()
        return torch.stack(sums).sum() / count if sums else None

    return probe


def grad_norm() -> Probe:
    """The norm of the gradient."""

    def probe(unit: "Unit") -> Tensor | None:
        gradients = [grad for _, grad in _gradients(unit)]
        return _norm(gradients) if gradients else None

    return probe


def weight_norm() -> Probe:
    """The norm of the weights."""
    return lambda unit: _norm(unit.tensors)


def update() -> Probe:
    """The norm of the optimizer's direction over that of the weights.

    The direction is ``exp_avg / (sqrt(exp_avg_sq) + 1e-8)`` or ``momentum_buffer``; there is none
    before the first step, and of optimizers that keep neither.
    """

    def probe(unit: "Unit") -> Tensor | None:
        states = [(tensor, unit.optimizer.state.get(tensor, {})) for tensor in unit.tensors]
        directions = [(tensor, _direction(state)) for tensor, state in states]
        return _relative((tensor, d) for tensor, d in directions if d is not None)

    return probe


@dataclass(frozen=True, slots=True)
class Alpha:
    """The exponent of the spectrum's tail; the mean where a unit has several matrices.

    A matrix with fewer eigenvalues, or whose shorter side is above ``max_size``, has none: the
    cost grows with the square of the shorter side times the longer one.
    """

    min_eigenvalues: int = 50
    max_size: int = 4096

    def __post_init__(self) -> None:
        """Check the numbers."""
        whole_number(self.min_eigenvalues, "min_eigenvalues", minimum=2)
        whole_number(self.max_size, "max_size", minimum=2)

    def __call__(self, unit: "Unit") -> float | None:
        """The exponent of a unit."""
        exponents = [
            alpha_of(param.tensor, param.row.role, param.row.name)
            for param in unit.params
            if self.why_not(param.row.shape, param.row.role) is None
        ]
        present = [exponent for exponent in exponents if exponent is not None]
        return sum(present) / len(present) if present else None

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


def alpha_text(min_eigenvalues: int, max_size: int) -> str:
    """The exponent with these bounds, by name.

    Examples:
        >>> alpha_text(50, 1024)
        'alpha(50, 1024)'
    """
    bounds = Alpha(min_eigenvalues, max_size)
    return f"alpha({bounds.min_eigenvalues}, {bounds.max_size})"


PROBES: Final[Mapping[str, Callable[..., Probe]]] = {
    "rgn": rgn,
    "snr": snr,
    "grad_norm": grad_norm,
    "weight_norm": weight_norm,
    "update": update,
    "alpha": Alpha,
}


def _gradients(unit: "Unit") -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of a unit that have gradients, with these.

    A gradient scaler leaves the scale in them where the optimizer takes it out in its own step.
    """
    scale = getattr(unit.optimizer, "grad_scale", None)
    for tensor in unit.tensors:
        if tensor.grad is not None:
            grad = tensor.grad.detach()
            grad = grad.to_dense() if grad.is_sparse else grad
            yield tensor, grad if scale is None else grad / scale


def _direction(state: Mapping[str, Any]) -> Tensor | None:
    """The direction of the last step, as far as an optimizer's state tells."""
    if "exp_avg" in state and "exp_avg_sq" in state:
        direction: Tensor = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)
        return direction
    return state.get("momentum_buffer")


def _relative(pairs: "Iterator[tuple[Tensor, Tensor]]") -> Tensor | None:
    """The norm of what belongs to some tensors over the norm of these."""
    both = list(pairs)
    return _norm([of for _, of in both]) / _norm([each for each, _ in both]) if both else None


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
