"""Warm-up for some parameters, later for lower layers: rates that rise, fall, or wait at 0.

    begin(p) = after + delay * (last - layer(p))                           in optimizer steps
    lr_mult(p, step) = 0                                                   step < begin(p)
                       start + (1 - start) * (step - begin(p)) / steps     then, and at last 1

A warm-up of all parameters alike belongs into the schedule. YOLOv5 has biases fall from 10 times
the base rate while all else rises; DINO (Caron et al. 2021, arXiv 2104.14294) trains its last layer
from the second epoch on.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from nnlr._arguments import Written, as_call, flag, number, whole
from nnlr._declare.factor import Factor
from nnlr._declare.moves import Move, Moves, Progress, own_name, unit_of
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo
from nnlr._text import shown
from nnlr.depth._given import as_indexer, written_indexer
from nnlr.depth._layer import Indexer, Layer, layers_of
from nnlr.errors import ConfigError, NnlrError
from nnlr.schemes._layer_decay import AnyIndexer

if TYPE_CHECKING:
    from nnlr._rows.units import Unit

# What moves together where layers do not count, and what is outside every tower.
_ALL, _OUTSIDE = "warmup", "outside"


def warmup(
    steps: int,
    *,
    start: float | None = None,
    after: int = 0,
    delay: int = 0,
    lock: bool = True,
    indexer: AnyIndexer = "auto",
) -> Scheme:
    """A warm-up of some parameters: from ``start`` times their rate to their rate, in a line.

    ``lr_mult = start + (1 - start) * t / steps``, where ``t`` counts the optimizer steps since
    the parameter began, and 1 from then on. ``where`` says which parameters; a warm-up of all
    alike belongs into the schedule, with which this one multiplies. Parameters that have not
    begun are locked: no gradient, and normalisation layers a forward as in eval mode.

    Args:
        steps: Length of the warm-up in optimizer steps, >= 0; 0 begins with the whole rate.
        start: Factor at its first step, finite, >= 0; more than 1 falls. By default 0, and ``1 /
            steps`` where something waits before: 0 would be to wait for one step more.
        after: The step in which it begins; before it the rate is 0.
        delay: Layer by layer it begins so many steps later, from the top down: ``delay * (last
            - layer)``.
        lock: Lock what has not begun. Else its rate alone is 0: gradients are computed, and
            optimizers that keep averages fill them.
        indexer: What ``delay`` counts, as in :func:`layer_decay`. What is outside every tower
            begins with the top.

    Raises:
        NnlrError: If an argument is out of range or has no effect; at resolve, if layers are to
            be counted and no depth is found.
        ConfigError: From ``nnlr.attach``, if all that the optimizer trains is to wait.

    Examples:
        >>> import nnlr, torch
        >>> net = torch.nn.Linear(2, 1)
        >>> biases = nnlr.role("bias")  # YOLOv5: these fall, all else rises
        >>> scheme = warmup(4, start=10).where(biases) * warmup(4).where(~biases)
        >>> plan = nnlr.resolve(net, scheme, lr=0.01, weight_decay=0)
        >>> optimizer = plan.optimizer(torch.optim.SGD)
        >>> attached = nnlr.attach(optimizer, plan)
        >>> for _ in range(5):
        ...     print([round(group["lr"], 4) for group in optimizer.param_groups])
        ...     optimizer.step()
        [0.0, 0.1]
        [0.0025, 0.0775]
        [0.005, 0.055]
        [0.0075, 0.0325]
        [0.01, 0.01]
    """
    scheme = Warmup(
        whole(steps, "steps", minimum=0),
        start=None if start is None else number(start, "start"),
        after=whole(after, "after", minimum=0),
        delay=whole(delay, "delay", minimum=0),
        lock=flag(lock, "lock"),
        indexer=as_indexer(indexer),
    )
    waits = scheme.after or scheme.delay
    for has_no_effect, what in (
        (not scheme.length and not waits, "a warm-up of 0 steps that begins at once"),
        (not scheme.length and start is not None, f"start={shown(start)} of 0 steps"),
        (scheme.start == 1 and not waits, "a warm-up from 1 to 1"),
        (scheme.start == 0 and waits and lock, "start=0, which would be one more step of waiting,"),
        (not waits and not lock, "lock=False, where nothing waits,"),
        (not scheme.delay and indexer != "auto", f"indexer={shown(indexer)} without delay"),
    ):
        if has_no_effect:
            raise NnlrError(f"{what} has no effect: {scheme!r}. Leave it out.")
    return scheme


@dataclass(frozen=True, repr=False, eq=False)
class Warmup(Scheme):
    """A warm-up of some parameters; made by :func:`warmup`."""

    length: int
    _: KW_ONLY
    start: float | None
    after: int
    delay: int
    lock: bool
    indexer: Indexer

    @property
    def first(self) -> float:
        """The factor at the first step."""
        if self.start is not None or not self.length:
            return self.start or 0.0
        return 1 / self.length if self.after or self.delay else 0.0

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """A factor of 1 and with the move; one for each layer if they begin in turn."""
        layers = layers_of(self.indexer, model) if self.delay else [None] * len(model.params)
        begins = {layer: self.after + self._delay(layer) for layer in layers}
        move = WarmingUp(self, {self._unit(layer): step for layer, step in begins.items()})
        factor_of = {layer: self._factor(layer, begins[layer], move) for layer in begins}
        return [factor_of[layer] for layer in layers]

    def _delay(self, layer: Layer | None) -> int:
        return 0 if layer is None else self.delay * layer.below

    def _unit(self, layer: Layer | None) -> str:
        return unit_of(layer) or (_OUTSIDE if self.delay else _ALL)

    def _factor(self, layer: Layer | None, begins: int, move: Move) -> Factor:
        how = f"from {self.first:.3g} to 1 in {self.length} steps" if self.length else "1"
        if begins:
            how = f"0{', locked,' if self.lock else ''} until step {begins}, then {how}"
        why = "" if not self.delay else "outside every tower" if layer is None else str(layer)
        moves = Moves("lr", self._unit(layer), how)
        return Factor(why=why, layer=layer, moves=moves, move=move)

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """The indexer's."""
        return self.indexer.findings(model) if self.delay else ()

    def written_as(self) -> Written:
        """The call of :func:`warmup`."""
        return as_call(
            warmup,
            self.length,
            start=self.start,
            after=self.after,
            delay=self.delay,
            lock=self.lock,
            indexer=written_indexer(self.indexer),
        )


class WarmingUp(Move):
    """A line from a start to 1 for each unit, from a step of its own on."""

    norm_eval = True

    def __init__(self, scheme: Warmup, begins: dict[str, int]) -> None:
        self.scheme, self.begins = scheme, begins
        self.locks = scheme.lock and bool(scheme.after or scheme.delay)

    def due(self, now: Progress, units: "Sequence[Unit]") -> bool:
        """Until the last has arrived."""
        return now.step <= max(self.begins.values()) + self.scheme.length

    def mults(self, now: Progress, units: "Sequence[Unit]") -> Sequence[float]:
        """Return the multiplier of each."""
        if self.locks and now.step < min(self.begins.values()):
            self._refuse_to_wait(units)
        begins = [self.begins[own_name(unit.name, self.begins)] for unit in units]
        return [self._mult(now.step - step) for step in begins]

    def _refuse_to_wait(self, units: "Sequence[Unit]") -> None:
        """Raise if all that an optimizer trains waits: a backward pass would fail."""
        waiting = {id(tensor) for unit in units for tensor in unit.tensors}
        groups = units[0].optimizer.param_groups
        if all(id(tensor) in waiting for group in groups for tensor in group["params"]):
            raise ConfigError(
                f"{units[0].source} locks all that the optimizer trains until step "
                f"{min(self.begins.values())}, so that there is nothing to train before. Say which "
                "parameters are to wait, warmup(...).where('head.*'), or leave out after."
            )

    def _mult(self, step: int) -> float:
        if step < 0:
            return 0.0
        if step >= self.scheme.length:
            return 1.0
        return self.scheme.first + (1 - self.scheme.first) * step / self.scheme.length
