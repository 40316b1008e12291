"""How large one update of a parameter is, for the classes of which that is known.

    Adam, AdamW    RMS of an update: about 0.2 to 1 times lr, whatever the gradient
    Muon           lr * factor(A, B) / sqrt(max(A, B)) for a matrix A x B: an orthogonal matrix
                   has that root mean square

    factor(A, B)   original           sqrt(max(1, A / B))
                   match_rms_adamw    0.2 * sqrt(max(A, B))
                   spectral           sqrt(A / B)

Jordan et al. 2024 (kellerjordan.github.io/posts/muon), Liu et al. 2025 (arXiv 2502.16982),
Bernstein 2025 (jeremybernste.in/writing/deriving-muon). The range of Adam's is the former's.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any, Final, NamedTuple

import torch

FACTORS: Final[Mapping[str, Callable[[int, int], float]]] = {
    "original": lambda rows, columns: sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * sqrt(max(rows, columns)),
    "spectral": lambda rows, columns: sqrt(rows / columns),
}

# The key of a group that names the factor; without a name it is the first.
FACTOR: Final = "adjust_lr_fn"

# Words for algorithms that are not Muon in groups of classes that have several.
_OTHERS: Final = {"adam", "adamw", "lion", "sgd"}

_ADAMS: Final = (torch.optim.Adam, torch.optim.NAdam)


class Size(NamedTuple):
    """The root mean square of an update, relative to the rate: between which numbers it is."""

    low: float
    high: float


ADAM: Final = Size(0.2, 1.0)


def is_muon(cls: type, group: Mapping[str, Any]) -> bool:
    """Whether a class orthogonalizes the updates of a group: by its name or its settings.

    Some classes have Adam beside Muon, and a key of the group says which.
    """
    orthogonal = any("muon" in base.__name__.lower() for base in cls.__mro__) or any(
        key.startswith(("ns_", "newton")) for key in group
    )
    others = (
        group.get("use_muon", True) is False,
        bool(group.get("use_fallback", False)),
        str(group.get("kind", group.get("algorithm"))).lower() in _OTHERS,
    )
    return orthogonal and not any(others)


def is_adam(cls: type) -> bool:
    """Whether its steps are those of Adam or AdamW of torch; ours give the same numbers."""
    base = next((base for base in cls.__mro__ if base in _ADAMS), None)
    if base is None or cls.__module__.startswith("nnlr.optim."):
        return base is not None
    return inspect.unwrap(vars(cls).get("step", base.step)) is inspect.unwrap(base.step)


def shape_factor(group: Mapping[str, Any], shape: Sequence[int]) -> float | None:
    """What Muon multiplies the rate of a matrix with; ``None`` where that is not known."""
    factor = FACTORS.get(str(group.get(FACTOR) or "original")) if FACTOR in group else None
    return None if factor is None or len(shape) != 2 else factor(*shape)


def update_size(cls: type, group: Mapping[str, Any], shape: Sequence[int]) -> Size | None:
    """How large an update is, relative to the rate; ``None`` where that is not known."""
    if is_muon(cls, group):
        factor = shape_factor(group, shape)
        if factor is None:
            return None
        return Size(*[factor / sqrt(max(shape))] * 2)
    return ADAM if is_adam(cls) else None
