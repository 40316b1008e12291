"""Gradients of what a move has locked, and their state."""

from collections.abc import Sequence
from typing import Final

import torch.distributed as dist
from torch import Tensor, nn

from nnlr._model import marks
from nnlr._model.names import Source, inside_ddp, unwrapping
from nnlr._rows.units import Mover, Param, Unit
from nnlr._text import listed, warn
from nnlr.errors import ConfigError


class Locks:
    """Switches off the gradients of what a locking move has at 0, and on again what it has not."""

    def __init__(self, movers: Sequence[Mover]) -> None:
        self._units = [
            (unit, mover.move.drops_state)
            for mover in movers
            if mover.move.locks
            for unit in mover.all
        ]
        self._zeros: list[bool] = []  # of each unit, when it was looked at
        self._tensors: list[Tensor] = []  # that are locked
        self._warned = False  # that nothing is left to train

    def follow(self, *, every: bool = False) -> None:
        """Switch what has changed; ``every`` also what somebody else has switched."""
        zeros = [unit.mult == 0 for unit, _ in self._units]
        if zeros == self._zeros and not every:
            return
        self._zeros, self._tensors = zeros, []
        wanted: dict[int, tuple[Param, bool]] = {}
        for (unit, drops), zero in zip(self._units, zeros, strict=True):
            for param in unit.params:
                _, locked = wanted.get(id(param.tensor), (param, False))
                wanted[id(param.tensor)] = param, zero or locked
                if zero and drops:
                    unit.optimizer.state.pop(param.tensor, None)
        for param, locked in wanted.values():
            if locked == param.tensor.requires_grad:
                param.tensor.requires_grad_(not locked)
                for place in param.places:
                    marks.set_locked(place.tensor, place.module, place.key, locked=locked)
            if locked:
                self._tensors.append(param.tensor)
        self.drop_gradients()
        self._warn_of_all()

    def _warn_of_all(self) -> None:
        """Warn once if moves that lock have left an optimizer nothing to train."""
        optimizer = self._units[0][0].optimizer if self._tensors else None
        if optimizer is None or self._warned:
            return
        if not any(t.requires_grad for group in optimizer.param_groups for t in group["params"]):
            self._warned = True
            sources = _sources([unit for unit, _ in self._units if unit.mult == 0])
            warn(
                f"All that {type(optimizer).__name__} trains is locked, by {sources}: the next "
                "backward pass fails if nothing else needs gradients. Leave something to train: "
                "say by .where(selector) which parameters a scheme is for."
            )

    def drop_gradients(self) -> None:
        """Take gradients away that locked tensors have: an optimizer would apply them."""
        for tensor in self._tensors:
            tensor.grad = None


# How DDP has to wrap a model some of whose parameters have no gradient for a while.
_WRAPPED: Final = "DistributedDataParallel(model, find_unused_parameters=True)"


def refuse_ddp(movers: Sequence[Mover], model: Source) -> None:
    """Refuse locks inside a DDP that waits for all gradients at each step."""
    units = _locking(movers)
    for layer in unwrapping(model) if units and isinstance(model, nn.Module) else ():
        is_ddp = inside_ddp(layer) and hasattr(layer, "find_unused_parameters")
        if is_ddp and (layer.static_graph or not layer.find_unused_parameters):
            raise ConfigError(
                f"{_sources(units)} switches gradients off and on, and DistributedDataParallel "
                f"waits for all of them at each step. Wrap the model by {_WRAPPED}, without "
                "static_graph, and attach then."
            )


def warn_of_ddp(movers: Sequence[Mover]) -> None:
    """Warn where a DDP that wraps the model from now on would not see what is locked."""
    alone = not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1
    units = [unit for unit in _locking(movers) if unit.mult == 0]
    params = [] if alone else [param for unit in units for param in unit.params]
    if params and not hasattr(params[0].tensor, "device_mesh"):  # which fully_shard gives them
        warn(
            f"{_sources(units)} has switched off the gradients of "
            f"{listed(param.row.name for param in params)}, which DistributedDataParallel would "
            f"never exchange if it wraps the model from now on. Wrap it first, by {_WRAPPED}, and "
            "pass nnlr.attach(..., model=that). If nothing is to wrap it, pass model=model."
        )


def _locking(movers: Sequence[Mover]) -> list[Unit]:
    """Return the units of moves that lock."""
    return [unit for mover in movers if mover.move.locks for unit in mover.all]


def _sources(units: Sequence[Unit]) -> str:
    """Return the schemes that move units."""
    return listed(dict.fromkeys(unit.source for unit in units))
