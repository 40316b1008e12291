r"""The rules: by what the update of a parameter is multiplied.

W is a weight, g its gradient, U what the optimizer's own step would add to W, lr its rate.

    lars        g becomes r (g + wd W), with r = trust_coeff |W| / (|g| + wd |W| + eps)
    lamb        W + r U,  r = lr |W| / |U|
    relative    W + lr |W| U / |U|
    hyperball   R V / |V|,  V = W + lr R U / |U|,  R = |W| before the first step

lars: You et al. 2017 (arXiv 1708.03888). lamb: You et al. 2019 (arXiv 1904.00962), with phi the
identity. Both adapt what timm's adapt: groups with weight decay, or all with ``always_adapt``;
where a norm is 0, r is 1. hyperball: Wen et al. 2026 (arXiv 2606.16899).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from nnlr._arguments import choice, flag, number
from nnlr._text import nearest_hint
from nnlr.errors import NnlrError

Group = dict[str, Any]


@dataclass(frozen=True)
class Kind(ABC):
    """A rule and its settings."""

    name: ClassVar[str]
    only_matrices: ClassVar[bool] = False  # whether it leaves vectors alone, and refuses zeros

    def adapts(self, group: Group) -> bool:
        """Whether it acts on the parameters of a group."""
        return True


class Rescaling(Kind):
    """A rule that multiplies what a step has added to a weight."""

    @abstractmethod
    def factors(self, distances: Tensor, steps: Tensor) -> Tensor:
        """What each update is multiplied by.

        ``distances`` are norms of weights, or their radius, times the rate; ``steps`` the norms
        of what was added. Both have an element for each matrix.
        """


@dataclass(frozen=True)
class Adaptive(Kind):
    """What LARS and LAMB have in common."""

    trust_clip: bool = False
    always_adapt: bool = False

    def adapts(self, group: Group) -> bool:
        return self.always_adapt or float(group.get("weight_decay", 0.0)) != 0


@dataclass(frozen=True)
class Lars(Adaptive):
    """Gradients of the size of the weights, for SGD with momentum."""

    name = "lars"
    trust_coeff: float = 0.001
    eps: float = 1e-8

    def trust(self, weights: Tensor, grads: Tensor, lr: float | Tensor, decay: float) -> Tensor:
        """What gradient and decay are multiplied by, from the norms of weights and gradients."""
        ratio = self.trust_coeff * weights / (grads + weights * decay + self.eps)
        ratio = torch.where((weights > 0) & (grads > 0), ratio, 1.0)
        return torch.clamp(ratio / lr, max=1.0) if self.trust_clip else ratio


@dataclass(frozen=True)
class Lamb(Adaptive, Rescaling):
    """Updates of the size of the weights, for Adam with decoupled decay."""

    name = "lamb"

    def factors(self, distances: Tensor, steps: Tensor) -> Tensor:
        ratio = torch.where((distances > 0) & (steps > 0), distances / steps, 1.0)
        return ratio.clamp(max=1.0) if self.trust_clip else ratio


@dataclass(frozen=True)
class Relative(Rescaling):
    """The rate is the relative change of a matrix in a step."""

    name = "relative"
    only_matrices = True

    def factors(self, distances: Tensor, steps: Tensor) -> Tensor:
        return torch.where(steps > 0, distances / steps, 0.0)


@dataclass(frozen=True)
class Hyperball(Relative):
    """The rate is the relative change of a matrix in a step, and its norm stays."""

    name = "hyperball"


KINDS: Final[dict[str, type[Lars | Rescaling]]] = {
    kind.name: kind for kind in (Lars, Lamb, Relative, Hyperball)
}


def kind_of(word: object, settings: Mapping[str, object]) -> Lars | Rescaling:
    """The rule of a name with its settings, or refuse them."""
    cls = KINDS[choice(word, "kind of relative", list(KINDS))]
    defaults = {field.name: field.default for field in fields(cls)}
    checked: dict[str, Any] = {}
    for key, value in settings.items():
        what = f"{key} of relative(..., {cls.name!r})"
        if key not in defaults:
            has = ", ".join(defaults) or "none"
            raise NnlrError(
                f"{cls.name!r} has no setting {key!r}; its settings: {has}. "
                f"{nearest_hint(key, defaults)}".rstrip(),
                value=value,
            )
        is_switch = isinstance(defaults[key], bool)
        checked[key] = flag(value, what) if is_switch else number(value, what)
    return cls(**checked)
