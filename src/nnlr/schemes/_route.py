"""Routing: which of two algorithms trains a parameter; Muon for matrices, AdamW for the rest.

    algorithm(p) = matrices      if p is a hidden matrix, both sides >= 4, aspect <= 128
                   others        otherwise

Muon orthogonalizes an update, which has a meaning for maps from one hidden space to another.
Embeddings, heads, norms, biases, gains, tokens and vectors go to the other (Jordan et al. 2024,
kellerjordan.github.io/posts/muon; nanochat, torchtitan and timm route likewise).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nnlr._arguments import Call, text
from nnlr._declare.factor import Factor
from nnlr._declare.scheme import Scheme
from nnlr._model.describe import ModelInfo, ParamInfo

_SHORTEST: Final = 4  # of the sides of a matrix: a thinner one is a few vectors
_ASPECT: Final = 128  # longest side over shortest


def route(matrices: str, others: str) -> Scheme:
    """Send hidden matrices to one algorithm and everything else to another.

    ``nnlr.rule(selector, algorithm=name)`` overrules it. It changes no rate: base rates of
    algorithms are those of ``resolve(..., lr={name: lr, ...})``.

    Args:
        matrices: Name of the algorithm for parameters of role ``"matrix"`` that have two axes,
            both of length >= 4, one at most 128 times the other.
        others: Name of the algorithm for the rest.

    Raises:
        NnlrError: If a name is no string.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> parts = {"embed": nn.Embedding(9, 8), "mix": nn.Linear(8, 8), "head": nn.Linear(8, 9)}
        >>> net = nn.ModuleDict(parts)
        >>> rates = {"muon": 0.02, "adamw": 3e-4}
        >>> plan = nnlr.resolve(net, route("muon", "adamw"), lr=rates, weight_decay=0.1)
        >>> {name: (plan[name].algorithm, plan[name].lr) for name in ("mix.weight", "mix.bias")}
        {'mix.weight': ('muon', 0.02), 'mix.bias': ('adamw', 0.0003)}
    """
    return Route(text(matrices, "matrices"), text(others, "others"))


@dataclass(frozen=True, repr=False, eq=False)
class Route(Call, Scheme):
    """Routing by roles and shapes; made by :func:`route`."""

    matrices: str
    others: str

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """A name for each parameter, and why."""
        reasons = [_reason_against(param) for param in model.params]
        factor_of = {
            reason: Factor(
                algorithm=self.matrices if reason is None else self.others,
                why=reason or "a hidden matrix",
            )
            for reason in set(reasons)
        }
        return [factor_of[reason] for reason in reasons]


def _reason_against(param: ParamInfo) -> str | None:
    """Why a parameter is no matrix for Muon; ``None`` if it is one."""
    if param.role != "matrix":
        return f"role {param.role}"
    if len(param.shape) != 2:
        return f"{len(param.shape)} axes"
    short, long = sorted(param.shape)
    if short < _SHORTEST:
        return f"a side of {short}"
    if long > _ASPECT * short:
        return f"{long} is more than {_ASPECT} times {short}"
    return None
