"""Which saved state goes on in a parameter: that which the optimizer's next step can read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnlr.checkpoint._made import Maker, is_whole, kept, small
from nnlr.checkpoint._names import KIND, SHAPE
from nnlr.checkpoint._sides import Group
from nnlr.checkpoint._tensors import fits

# No state was saved, though the optimizer keeps some: the parameter starts afresh.
MISSING: Final = "missing"

MOVED: Final = "moved"

# Elements of a parameter on which a step is tried where the meta device does not do.
_LARGE: Final = 2**20


class Verdict(NamedTuple):
    """What becomes of a saved state: why it does not go on, or what of it does.

    ``reason`` is ``"moved"``, ``"shape"``, ``"kind"`` (of another optimizer) or ``"missing"``;
    ``begun`` are the keys of the part that starts afresh.
    """

    reason: str
    state: Any = None
    begun: Sequence[str] = ()


class Judge:
    """Decides which saved state goes on, and in which part.

    ``other`` and ``same`` say whether another class saved it, or the same, as far as known;
    ``packed`` that it is as a ``state_dict`` has it, where some classes pack what they hold.
    ``states`` are all saved states.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        states: Iterable[object],
        *,
        other: bool,
        same: bool,
        packed: bool = False,
    ) -> None:
        self._maker, self._other, self._same = Maker(optimizer, packed=packed), other, same
        # What no parameter has, a class of others does not keep, whatever it makes in a trial.
        by_trial = not same or type(optimizer).__module__.partition(".")[0] in {"torch", "nnlr"}
        self._seen = None if by_trial else {key for state in states for key in kept(state)}

    def verdict(
        self, state: object, tensor: Tensor, settings: Group, was: Group, *, whole: bool
    ) -> Verdict:
        """Return what becomes of a state under the settings of its group, that ``was`` another.

        ``whole`` says that tensors stay whole where the parameter is sharded.
        """
        made, before = self._maker.made(settings, tensor), None
        if made is None and tensor.numel() <= _LARGE:
            made = self._maker.made(settings, tensor, device="cpu")
        parts = kept(state)
        if made is not None and self._seen is not None:
            before = self._maker.made(was, tensor) or {}
            made = {k: v for k, v in made.items() if k in self._seen or k not in before}
        if not parts:
            if made is None:
                made = self._maker.made(settings, small(tensor), device="cpu")
            return Verdict(MISSING if made else MOVED)
        if made is None:
            reason = self._by_sight(parts, tensor, settings)
        else:
            reason = self._by_trial(parts, made, tensor)
        if reason != MOVED:
            return Verdict(reason)
        lacking = [] if made is None else [key for key in made if key not in parts]
        if not lacking:
            return Verdict(MOVED, state)
        before = self._maker.made(was, tensor) if before is None else before
        switched_on = self._same and before is not None and before.keys().isdisjoint(lacking)
        if not switched_on or not self._starts_at_0(lacking, tensor, settings):
            return Verdict(KIND)
        zeros = torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        fresh = zeros if whole else torch.zeros_like(tensor.detach())
        return Verdict(MOVED, {**parts, **{key: fresh.clone() for key in lacking}}, lacking)

    def _by_trial(self, parts: Group, made: Group, tensor: Tensor) -> str:
        """Compare a state with what the optimizer makes of the parameter."""
        of_another = self._other and parts.keys() != made.keys()
        # A class that is not known may keep more than this one, but not instead of it.
        if of_another or (not made and not self._same):
            return KIND
        there = [(parts[key], value) for key, value in made.items() if key in parts]
        if not all(_is_alike(saved, value) for saved, value in there):
            return KIND
        fitting = all(_has_room(saved, value, tensor) for saved, value in there)
        return MOVED if fitting and (there or fits(parts, tensor)) else SHAPE

    def _by_sight(self, parts: Group, tensor: Tensor, settings: Group) -> str:
        """Judge a state by its shapes and keys alone, where no step can be tried as it is."""
        made = self._maker.made(settings, small(tensor), device="cpu")
        if self._other or (made and not self._same and not made.keys() <= parts.keys()):
            return KIND
        return MOVED if fits(parts, tensor) else SHAPE

    def _starts_at_0(self, lacking: Sequence[str], tensor: Tensor, settings: Group) -> bool:
        """Whether parts of a state are of the parameter's shape and start at 0."""
        like = small(tensor)
        fresh = self._maker.made(settings, like, device="cpu") or {}
        return all(is_whole(fresh.get(key), like) and not fresh[key].any() for key in lacking)


def _is_alike(saved: object, made: object) -> bool:
    """Whether a part of a saved state is a tensor where the optimizer keeps one, and so on."""
    if isinstance(made, Tensor):
        return isinstance(saved, Tensor) or (made.numel() == 1 and isinstance(saved, int | float))
    if isinstance(made, bool | int | float):
        return isinstance(saved, int | float) or (isinstance(saved, Tensor) and saved.numel() == 1)
    return made is None or isinstance(saved, Mapping) == isinstance(made, Mapping)


def _has_room(saved: object, made: object, tensor: Tensor) -> bool:
    """Whether a part of a saved state has the shape that the optimizer makes.

    Counters may be saved with an axis, and what is not of the parameter's shape may grow.
    """
    if not isinstance(made, Tensor) or not isinstance(saved, Tensor) or saved.shape == made.shape:
        return True
    counts = made.numel() == 1 and saved.numel() == 1
    return counts or (not is_whole(made, tensor) and fits({"part": saved}, tensor))
