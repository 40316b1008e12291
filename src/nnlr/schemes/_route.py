"""Routing: which of two algorithms trains a parameter; Muon for matrices, AdamW for the rest.

    algorithm(p) = matrices      if p is a hidden matrix, both sides >= 4, aspect <= 128
                   others        otherwise

Muon orthogonalizes an update, which has a meaning for maps from one hidden space to another.
Embeddings, heads, norms, biases, gains, tokens and vectors go to the other (Jordan et al. 2024,
kellerjordan.github.io/posts/muon; nanochat, torchtitan and timm route likewise). Of a low-rank
adapter ``B A`` the columns of B are what it adds, and it is B that is better orthogonal, while
AdamW trains A (Park et al. 2025, arXiv 2508.17901).
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from math import prod
from typing import Final

from nnlr._arguments import Call, flag, word
from nnlr._declare.factor import Factor
from nnlr._declare.scheme import Scheme
from nnlr._model.describe import ModelInfo, ParamInfo

_SHORTEST: Final = 4  # of the sides of a matrix: a thinner one is a few vectors
_ASPECT: Final = 128  # longest side over shortest


def route(
    matrices: str,
    others: str,
    *,
    convolutions: bool = False,
    experts: bool = False,
    lora_b: bool = True,
) -> Scheme:
    """Send hidden matrices to one algorithm and everything else to another.

    ``nnlr.rule(selector, algorithm=name)`` overrules it. It changes no rate: base rates of
    algorithms are those of ``resolve(..., lr={name: lr, ...})``.

    Args:
        matrices: Name of the algorithm for parameters of role ``"matrix"`` that have two axes,
            both of length >= 4, one at most 128 times the other.
        others: Name of the algorithm for the rest.
        convolutions: Whether ``matrices`` trains convolutions too, flattened to (out, rest):
            those that take and give at least 4 channels, in one group. ``torch.optim.Muon``
            cannot; timm's and Jordan's can.
        experts: Whether ``matrices`` trains stacks of matrices too, (experts, out, in).
            ``torch.optim.Muon`` cannot; a class must orthogonalize each for itself.
        lora_b: Whether ``matrices`` trains the up-projecting matrices of low-rank adapters of
            rank >= 4, however long; the down-projecting ones go to ``others``.

    Raises:
        NnlrError: If a name is no string or empty, or a flag no bool.

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
    return Route(
        word(matrices, "matrices"),
        word(others, "others"),
        convolutions=flag(convolutions, "convolutions"),
        experts=flag(experts, "experts"),
        lora_b=flag(lora_b, "lora_b"),
    )


@dataclass(frozen=True, repr=False, eq=False)
class Route(Call, Scheme):
    """Routing by roles and shapes; made by :func:`route`."""

    matrices: str
    others: str
    _: KW_ONLY
    convolutions: bool = False
    experts: bool = False
    lora_b: bool = True

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """A name for each parameter, and why."""
        reasons = [self._reason_against(param) for param in model.params]
        factor_of = {
            reason: Factor(
                algorithm=self.matrices if reason is None else self.others,
                why=reason or "a hidden matrix",
            )
            for reason in set(reasons)
        }
        return [factor_of[reason] for reason in reasons]

    def _reason_against(self, param: ParamInfo) -> str | None:
        """Why a parameter is no matrix for Muon; ``None`` if it is one."""
        role, shape = param.role, param.shape
        axes = {
            "matrix": (2, 3) if self.experts else (2,),
            "lora_b": (2,) if self.lora_b else (),
            "conv": (3, 4, 5) if self.convolutions else (),
        }.get(role, ())
        if not axes:
            return f"role {role}"
        if len(shape) not in axes:
            return f"{len(shape)} axes"
        sides = shape[:2] if role == "conv" else shape[-2:]
        if min(sides) < _SHORTEST:
            return f"a side of {min(sides)}"
        if role == "conv":
            if _in_groups(param):
                return "a grouped convolution"
            sides = shape[0], prod(shape[1:])
        short, long = sorted(sides)
        if role != "lora_b" and long > _ASPECT * short:
            return f"{long} is more than {_ASPECT} times {short}"
        return None


def _in_groups(param: ParamInfo) -> bool:
    """Whether a convolution keeps channels apart: several matrices in one tensor."""
    whole = param.shape[0] * prod(param.shape[2:])  # the fan of its first axis, undivided
    return whole not in {param.fan_in, param.fan_out}
