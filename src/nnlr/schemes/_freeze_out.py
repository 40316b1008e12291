"""FreezeOut: the lower a layer, the sooner its rate falls to 0, and then it is frozen.

    part(l) = f(t_0 + (1 - t_0) * l / last)       f(x) = x, x ** 2 or x ** 3
    lr_mult(l, t) = (1 + cos(pi * t / part(l))) / 2 / (part(l) if scale else 1)   t < part(l)
                    0, locked                                                     part(l) <= t

``t`` is the part of the run that is done, ``l`` the layer from 0 at the input. With ``scale`` the
area under each layer's rate is the same. Brock et al. 2017, arXiv 1706.04983; the paper leaves out
the 1/2, the authors' code has it.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from math import cos, pi
from typing import TYPE_CHECKING, Final, Literal, get_args

from nnlr._arguments import Written, as_call, choice, flag, number
from nnlr._declare.factor import Factor
from nnlr._declare.moves import Move, Moves, Progress, own_name, unit_of
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note
from nnlr._model.describe import ModelInfo
from nnlr._text import plural
from nnlr.depth._given import as_indexer, written_indexer
from nnlr.depth._layer import Indexer, Layer, layers_of
from nnlr.schemes._layer_decay import AnyIndexer

if TYPE_CHECKING:
    from nnlr._rows.units import Unit

Shape = Literal["cubic", "squared", "linear"]
_POWERS: Final[dict[Shape, int]] = dict(zip(get_args(Shape), (3, 2, 1), strict=True))

# What is outside every tower is annealed as a last layer.
_OUTSIDE: Final = "outside"


def freeze_out(
    t_0: float = 0.8,
    shape: Shape = "cubic",
    *,
    scale: bool = True,
    indexer: AnyIndexer = "auto",
) -> Scheme:
    """FreezeOut: each layer's rate falls to 0 by a half cosine, lower layers first.

    ``lr_mult(l, t) = (1 + cos(pi * t / part(l))) / 2``, over ``part(l)`` if ``scale``, where
    ``part(l)`` of the run is over; from then on the layer is locked: it has no gradient, and
    its normalisation layers a forward as in eval mode. Layers are frozen from below, so the
    backward pass ends at the lowest that is trained. It is the whole course of the rates: keep
    the base rate constant. Reference: arXiv 1706.04983.

    Args:
        t_0: The part of the run after which the first layer is frozen, in (0, 1], before
            ``shape`` is applied: 0.8 cubed is 0.512. 1 is one cosine for all.
        shape: ``"cubic"``, ``"squared"`` or ``"linear"``: how that part grows with depth.
        scale: Begin at ``1 / part(l)`` of the base rate, so that each layer has the same area
            under its rate as one that is trained to the end.
        indexer: Which layer a parameter is in, as in :func:`layer_decay`. What is outside every
            tower counts as a last layer.

    Raises:
        NnlrError: If an argument is out of range; at resolve, if no depth is found.
        ConfigError: If ``nnlr.attach`` is not told ``total_steps``.

    Examples:
        >>> import nnlr, torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> scheme = freeze_out(0.5, "linear", indexer={"0.*": 0, "1.*": 1, "2.*": 2})
        >>> plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
        >>> optimizer = plan.optimizer(torch.optim.SGD)
        >>> attached = nnlr.attach(optimizer, plan, total_steps=8)
        >>> for _ in range(8):
        ...     print([round(unit.mult, 2) for unit in attached.units])
        ...     optimizer.step()
        [2.0, 1.33, 1.0]
        [1.71, 1.24, 0.96]
        [1.0, 1.0, 0.85]
        [0.29, 0.67, 0.69]
        [0.0, 0.33, 0.5]
        [0.0, 0.09, 0.31]
        [0.0, 0.0, 0.15]
        [0.0, 0.0, 0.04]
    """
    return FreezeOut(
        number(t_0, "t_0", above=0, maximum=1),
        choice(shape, "shape", _POWERS),
        scale=flag(scale, "scale"),
        indexer=as_indexer(indexer),
    )


@dataclass(frozen=True, repr=False, eq=False)
class FreezeOut(Scheme):
    """FreezeOut; made by :func:`freeze_out`."""

    t_0: float
    shape: Shape
    _: KW_ONLY
    scale: bool
    indexer: Indexer

    def part(self, layer: Layer | None) -> float:
        """The part of the run after which a layer is frozen."""
        height = 1.0 if layer is None or not layer.last else layer.depth / layer.last
        return (self.t_0 + (1 - self.t_0) * height) ** _POWERS[self.shape]

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """One factor, of 1 and with the move, for each layer."""
        layers = layers_of(self.indexer, model)
        parts = {layer: self.part(layer) for layer in layers}
        move = FreezingOut({_unit(layer): part for layer, part in parts.items()}, scale=self.scale)
        factor_of = {layer: self._factor(layer, part, move) for layer, part in parts.items()}
        return [factor_of[layer] for layer in layers]

    def _factor(self, layer: Layer | None, part: float, move: Move) -> Factor:
        first = 1 / part if self.scale else 1
        when = f"{part:.1%} of the run, then locked" if part < 1 else "the end"
        how = f"cosine from {first:.3g} to 0 at {when}"
        why = "outside every tower" if layer is None else str(layer)
        moves = Moves("lr", _unit(layer), how)
        return Factor(why=why, layer=layer, moves=moves, move=move)

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """The indexer's, and parameters in no layer."""
        layers = layers_of(self.indexer, model)
        pairs = zip(model.params, layers, strict=True)
        outside = [param.name for param, layer in pairs if layer is None]
        findings = list(self.indexer.findings(model))
        if outside:
            findings.append(
                note(
                    "freeze-out-outside",
                    outside,
                    f"{self.indexer!r} finds no layer for {plural(len(outside), 'parameter')}, so "
                    "freeze_out trains them to the end, as the last layer",
                    "If they belong to a layer, say so with a mapping of patterns to layers.",
                )
            )
        return findings

    def written_as(self) -> Written:
        """The call of :func:`freeze_out`."""
        settings = {"t_0": self.t_0, "shape": self.shape, "scale": self.scale}
        return as_call(freeze_out, **settings, indexer=written_indexer(self.indexer))


def _unit(layer: Layer | None) -> str:
    """What a layer is called among the units."""
    return unit_of(layer) or _OUTSIDE


class FreezingOut(Move):
    """A half cosine to 0 for each unit, in its own part of the run."""

    needs_total = locks = norm_eval = True

    def __init__(self, parts: dict[str, float], *, scale: bool) -> None:
        self.parts, self.scale = parts, scale

    def mults(self, now: Progress, units: "Sequence[Unit]") -> Sequence[float]:
        """Return the multiplier of each; past the last step it stays."""
        total = now.total_steps or 1
        step = min(now.step, total - 1)
        return [
            self._mult(step, total, self.parts[own_name(unit.name, self.parts)]) for unit in units
        ]

    def _mult(self, step: int, total: int, part: float) -> float:
        last = total * part
        half = (1 + cos(pi * step / last)) / 2 if step < last else 0.0
        return half / part if self.scale else half
