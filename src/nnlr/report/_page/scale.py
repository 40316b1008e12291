"""A logarithmic scale, for bars and for steps of colour."""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from nnlr._rows.row import PlanRow

# Steps of colour, in page.css: c0 is the least, c8 the most.
_STEPS: Final = 8

# Share of a track that the least positive value fills, so that it can be seen.
_LEAST: Final = 0.08


class Scale(NamedTuple):
    """The least and the greatest positive value; both 0 where there is none.

    Examples:
        >>> scale = Scale.of([0.0, 1e-4, 1e-2])
        >>> scale.share(0.0), scale.share(1e-3), scale.share(1e-2), scale.colour(1e-3)
        (0.0, 0.54, 1.0, 'c4')
    """

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Scale":
        """The scale on which all of some values fit."""
        positive = [value for value in values if value > 0]
        return cls(min(positive, default=0.0), max(positive, default=0.0))

    def share(self, value: float) -> float:
        """How much of its track the bar of a value fills, from 0 to 1."""
        return round(_LEAST + (1 - _LEAST) * self._place(value), 4) if value > 0 else 0.0

    def colour(self, value: float) -> str:
        """The class of a value's colour."""
        return f"c{round(self._place(value) * _STEPS)}" if value > 0 else "c0"

    def _place(self, value: float) -> float:
        """Where a positive value is between the least and the greatest, by its logarithm."""
        low, span = math.log(self.low), math.log(self.high) - math.log(self.low)
        return (math.log(value) - low) / span if span else 1.0


class Scales(NamedTuple):
    """The scales of the rates that act: those of trained rows."""

    lr: Scale
    decay: Scale


def scales_of(rows: Iterable[PlanRow]) -> Scales:
    """The scales of some rows."""
    trained = [row for row in rows if row.trainable]
    return Scales(
        Scale.of(row.lr for row in trained), Scale.of(row.weight_decay for row in trained)
    )
