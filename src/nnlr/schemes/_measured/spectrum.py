"""The spectrum of a weight: how heavy its tail is, by the Hill estimator.

    alpha = 1 + k / (sum_{j >= i} ln l_j - k ln l_i),   i = N // 2,   k = N - i

with the N eigenvalues ``l`` of ``W^T W`` in ascending order. Of a convolution, and of a stack of
matrices, they are those of all its slices (out, in) together. The exponent does not depend on the
scale of W, so that the factor 0.5 that TempBalance puts on convolutions changes nothing.
"""

import math
from typing import Final

import torch
from torch import Tensor

from nnlr.errors import ConfigError

# Roles of weights that are matrices between features, and stacks of such.
SPECTRAL: Final = frozenset(["matrix", "conv", "head", "router", "lora_a", "lora_b"])

# Below this share of the largest eigenvalue a Gram matrix in float32 is too coarse.
_COARSE: Final = 1e-5

# A spectrum whose upper half spreads by less has no tail: that of an orthogonal matrix.
_FLAT: Final = 1e-4


def sides(shape: tuple[int, ...], role: str) -> tuple[int, int, int]:
    """How many slices a weight has, and their two sides.

    Examples:
        >>> sides((8, 4, 3, 3), "conv"), sides((16, 8), "matrix"), sides((2, 16, 8), "matrix")
        ((9, 8, 4), (1, 16, 8), (2, 16, 8))
    """
    rest = shape[2:] if role == "conv" else shape[:-2]
    rows, columns = shape[:2] if role == "conv" else shape[-2:]
    return math.prod(rest), rows, columns


def alpha_of(weight: Tensor, role: str, name: str) -> float | None:
    """The exponent of a weight's spectrum; ``None`` where it has no tail.

    Examples:
        >>> diagonal = torch.diag(torch.tensor([1.0, 1.0, 1.0, math.e]))
        >>> round(alpha_of(diagonal, "matrix", "weight"), 4)
        2.0
    """
    slices = _slices(weight.detach(), role)
    if not slices.isfinite().all():
        raise ConfigError(
            f"The weights of {name!r} are not all finite, so they have no spectrum. Training has "
            "diverged: lower the rate, or start again from an earlier checkpoint."
        )
    largest = slices.abs().max().double()
    if not largest:
        return None
    slices = slices.double() / largest  # squares of very large or small weights leave float32
    values = _by_gram(slices)
    if values[len(values) // 2] <= _COARSE * values[-1]:
        values = _by_svd(slices)
    logs = values[len(values) // 2 :].log()
    spread = float((logs - logs[0]).mean())
    return 1 + 1 / spread if spread > _FLAT else None


def _slices(weight: Tensor, role: str) -> Tensor:
    """The matrices of a weight, the longer side last."""
    whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    # Other devices lack eigenvalues, or float64.
    whole = whole.to(whole.device if whole.device.type in {"cpu", "cuda"} else "cpu")
    count, rows, columns = sides(tuple(whole.shape), role)
    if role == "conv":
        whole = whole.flatten(2).permute(2, 0, 1) if whole.ndim > 2 else whole
    slices = whole.reshape(count, rows, columns)
    return slices if rows <= columns else slices.mT


def _by_gram(slices: Tensor) -> Tensor:
    """Ascending eigenvalues of ``W W^T``: several times as fast as singular values.

    The product is taken in float64, which autocast and TF32 leave alone.
    """
    return _ascending(torch.linalg.eigvalsh((slices @ slices.mT).float()))


def _by_svd(slices: Tensor) -> Tensor:
    """Ascending squares of the singular values that are more than round-off."""
    values = _ascending(torch.linalg.svdvals(slices.float()))
    least = values[-1] * slices.shape[-1] * torch.finfo(torch.float32).eps
    above = values[values > least]
    # Zeros count as eigenvalues as long as the median is above them.
    enough = len(above) >= len(values) - len(values) // 2
    return (values if enough else above).square()


def _ascending(values: Tensor) -> Tensor:
    """All values of all slices in order, in float64."""
    return values.flatten().cpu().double().sort().values
