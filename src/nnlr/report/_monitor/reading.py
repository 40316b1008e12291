"""What one look of the monitor reads: numbers of parameters, joined to layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["trained", "locked", "frozen", "in no group"]


@dataclass(frozen=True, slots=True)
class LayerReading:
    """What one step of the optimizer did to one layer.

    Norms are Euclidean, over all elements of all parameters of the layer that the optimizer
    has: ``sqrt(sum(x**2))``.

    Attributes:
        name: The layer; or the group, or the parameter.
        state: ``"trained"``, ``"locked"``, ``"frozen"`` or ``"in no group"``.
        lr: The learning rate that the step used; of several the largest, 0 where there is none.
        lr_min: The smallest of several.
        update: Norm of the weights after the step minus those before, >= 0.
        weight: Norm of the weights before the step, >= 0.
        gradient: Norm of the gradient that the step used, after clipping; ``None`` without one.
    """

    name: str
    state: State
    lr: float
    lr_min: float
    update: float
    weight: float
    gradient: float | None

    @property
    def ratio(self) -> float:
        """``update / weight``, relative size of the step; 0 if nothing moved."""
        if self.weight == 0:
            return math.inf if self.update else 0.0
        return self.update / self.weight

    def to_dict(self) -> dict[str, Any]:
        """The numbers for JSON, which has none for what is not finite: ``None``."""
        values = {
            "state": self.state,
            "lr": self.lr,
            "lr_min": self.lr_min,
            "update": self.update,
            "weight": self.weight,
            "ratio": self.ratio,
            "gradient": self.gradient,
        }
        return {key: _plain(value) for key, value in values.items()}


@dataclass(frozen=True, slots=True)
class Reading:
    """What one step of the optimizer did.

    Attributes:
        step: Which step of the optimizer, counted from 1.
        rates: The learning rate of each group, by its name.
        layers: One for each layer, in the order of the plan.
    """

    step: int
    rates: Mapping[str, float]
    layers: tuple[LayerReading, ...]

    def scalars(self) -> dict[str, float]:
        """The numbers under the names that trackers show in panels.

        ``lr/GROUP`` for each group, ``update_ratio/LAYER`` and ``grad_norm/LAYER`` for each
        layer that is trained.
        """
        values = {f"lr/{name}": rate for name, rate in self.rates.items()}
        for layer in self.layers:
            if layer.state == "trained":
                values[f"update_ratio/{layer.name}"] = layer.ratio
            if layer.gradient is not None:
                values[f"grad_norm/{layer.name}"] = layer.gradient
        return values

    def to_dict(self) -> dict[str, Any]:
        """The reading as plain dicts and numbers, fit for JSON."""
        layers = {layer.name: layer.to_dict() for layer in self.layers}
        rates = {name: _plain(rate) for name, rate in self.rates.items()}
        return {"step": self.step, "lr": rates, "layers": layers}


@dataclass(slots=True)
class ParamReading:
    """What one step did to one parameter; sums of squares, not norms.

    ``weight`` is that before the step. ``bits`` tells of a parameter that the optimizer does
    not have whether it changed. The shares of elements that moved, and that have a gradient, are
    counted in half precision.
    """

    name: str
    layer: str
    state: State
    dtype: str = ""
    half: bool = False
    lr: float = 0.0
    decay: float = 0.0
    update: float = 0.0
    weight: float = 0.0
    gradient: float | None = None
    moved: float = 0.0  # elements that changed
    pulled: float = 0.0  # elements with a gradient that is not 0
    bits: float | None = None

    @property
    def has_gradient(self) -> bool:
        """Whether there was a gradient other than 0."""
        return self.gradient is not None and self.gradient != 0


def joined(params: Sequence[ParamReading]) -> tuple[LayerReading, ...]:
    """The readings of parameters as those of their layers."""
    by_layer: dict[str, list[ParamReading]] = {}
    for param in params:
        by_layer.setdefault(param.layer, []).append(param)
    layers = []
    for name, members in by_layer.items():
        trained = [param for param in members if param.bits is None and param.state == "trained"]
        seen = trained or members
        gradients = [param.gradient for param in trained if param.gradient is not None]
        layers.append(
            LayerReading(
                name=name,
                state=seen[0].state,
                lr=max(param.lr for param in seen),
                lr_min=min(param.lr for param in seen),
                update=math.sqrt(sum(param.update for param in trained)),
                weight=math.sqrt(sum(param.weight for param in trained)),
                gradient=math.sqrt(sum(gradients)) if gradients else None,
            )
        )
    return tuple(layers)


def _plain(value: object) -> object:
    """A number for JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
