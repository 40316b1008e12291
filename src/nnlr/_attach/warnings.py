"""What is legal when moves are attached, and probably not meant."""

from collections.abc import Sequence

from nnlr._rows.units import Mover, Unit
from nnlr._text import listed, warn


def warn_of_no_decay(units: Sequence[Unit]) -> None:
    """Warn of schemes that move weight decay where there is none."""
    decays: dict[str, set[float]] = {}
    for unit in units:
        if unit.setting == "weight_decay":
            rows = [param.row for param in unit.params]
            decays.setdefault(unit.source, set()).update(row.weight_decay for row in rows)
    if bare := [source for source, values in decays.items() if values == {0.0}]:
        warn(
            f"{listed(bare)} moves weight decay, and all that it moves has a weight decay of 0, "
            "which no multiplier changes. Resolve with one: nnlr.resolve(model, scheme, lr=..., "
            "weight_decay=0.1)."
        )


def warn_of_late_steps(movers: Sequence[Mover], total_steps: int | None) -> None:
    """Warn of what waits for a step that the run does not have."""
    for mover in movers:
        step = mover.move.opens_at_step
        if total_steps is not None and step >= total_steps:
            warn(
                f"{mover.all[-1].source} waits until step {step:,}, and the run has "
                f"{total_steps:,}: what it opens is never trained. Begin it earlier, or by "
                "'fraction' of the run; or pass another total_steps."
            )
