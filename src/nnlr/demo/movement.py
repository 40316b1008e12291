"""How far each layer went from where it began."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import nnlr

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer, and its relative movement in both runs.

    A movement is ``|w_after - w_before| / |w_before|``, Euclidean norms over all
    parameters of the layer together; dimensionless, 0 for a layer that stayed.

    Attributes:
        name: The layer.
        numel: Elements of its parameters.
        lr_mult: Declared relative learning rate of each parameter.
        wd_mult: Declared relative weight decay of each parameter.
        locked: Whether nothing in it may move.
        declared: Its movement at the declared rates.
        uniform: Its movement at one rate for all.
    """

    name: str
    numel: int
    lr_mult: Mapping[str, float]
    wd_mult: Mapping[str, float]
    locked: bool
    declared: float
    uniform: float

    @property
    def rates(self) -> str:
        """The declared relative rates in short: ``locked``, ``1``, ``0.1 / 0.2``."""
        if self.locked:
            return "locked"
        return " / ".join(f"{value:g}" for value in dict.fromkeys(self.lr_mult.values()))


def weights(net: nn.Module) -> Weights:
    """Copy the parameters as they are now, in float64 and on the CPU."""
    return {
        name: parameter.detach().cpu().double()  # always a copy: they are float32
        for name, parameter in net.named_parameters()
    }


def relative(before: Weights, after: Weights, names: Sequence[str]) -> float:
    """Relative movement of some parameters together.

    Examples:
        >>> before = {"a": Tensor([3, 0]).double(), "b": Tensor([4]).double()}
        >>> after = {"a": Tensor([3, 0.5]).double(), "b": Tensor([4]).double()}
        >>> relative(before, after, ["a", "b"])
        0.1
    """
    old = torch.cat([before[name].flatten() for name in names])
    new = torch.cat([after[name].flatten() for name in names])
    return float((new - old).norm() / old.norm())


def layers(plan: nnlr.Plan, before: Weights, declared: Weights, uniform: Weights) -> list[Layer]:
    """Measure every layer.

    Args:
        plan: The plan of the declared run; a layer is what its rows have before the dot.
        before: The weights both runs began with.
        declared: The weights after the run at the declared rates.
        uniform: The weights after the run at one rate for all.

    Raises:
        NnlrError: If a layer moved that is locked.
    """
    by_layer: dict[str, list[str]] = {}
    for row in plan.rows:
        by_layer.setdefault(row.name.rpartition(".")[0], []).append(row.name)
    found = [
        Layer(
            name=layer,
            numel=sum(plan[name].numel for name in names),
            lr_mult={name.rpartition(".")[2]: plan[name].lr_mult for name in names},
            wd_mult={name.rpartition(".")[2]: plan[name].wd_mult for name in names},
            locked=all(plan[name].locked for name in names),
            declared=relative(before, declared, names),
            uniform=relative(before, uniform, names),
        )
        for layer, names in by_layer.items()
    ]
    for layer in found:
        if layer.locked and layer.declared != 0:
            raise nnlr.NnlrError(
                f"{layer.name} is locked, yet it moved by {layer.declared:g} of its norm. "
                "This is a bug in nnlr; please report it with the command you ran.",
                layer=layer.name,
            )
    return found


def ticks(found: Sequence[Layer]) -> list[float]:
    """Marks for a logarithmic scale: 1, 2 and 5 times powers of ten, around all but the zeros.

    Examples:
        >>> layer = Layer(name="a", numel=1, lr_mult={}, wd_mult={}, locked=False,
        ...     declared=0.03, uniform=0.4)
        >>> ticks([layer])
        [0.02, 0.05, 0.1, 0.2, 0.5]
    """
    moved = [m for layer in found for m in (layer.declared, layer.uniform) if m > 0]
    first, last = math.floor(math.log10(min(moved))), math.ceil(math.log10(max(moved)))
    marks = [
        float(f"{digit}e{power}") for power in range(first - 1, last + 1) for digit in (1, 2, 5)
    ]
    below = [mark for mark in marks if mark <= min(moved)][-1]
    above = next(mark for mark in marks if mark > max(moved))
    return marks[marks.index(below) : marks.index(above) + 1]
