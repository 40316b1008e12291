"""Groups of the code beside the saved groups of their parameters, and how values compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any, Final

from torch import Tensor

from nnlr._schedule.moved import MOVED
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN, as_built, plain
from nnlr._schedule.progress import SCHEDULED
from nnlr.optim._members import ALGORITHM

Group = Mapping[str, Any]

# The key under which the hook of `on_load` adds names and classes to groups of a state dict.
NOTE: Final = "nnlr"

# Numbers that differ by less are one number, computed in another order or as float32.
NOISE: Final = 1e-6

# Which class and kernels run: those of the checkpoint need not exist on this machine.
KERNELS: Final = {"foreach", "fused", "capturable", "differentiable", "triton"}
OF_THE_CODE: Final = {*KERNELS, "decoupled_weight_decay"}  # what makes an AdamW of an Adam

# What a scheduler notes in proportion to each rate.
NOTES: Final = {"lr": SCHEDULED[1:], "weight_decay": ("initial_weight_decay",)}

# Settings that say which parameters a group has, or are decided as rates.
APART: Final = {
    *("params", "param_names", "name", NOTE, ORIGIN, ALGORITHM, MOVED),
    *("cycles_momentum", "cycles_betas"),  # notes of version 0.1
    *MULTIPLIERS,
    *MULTIPLIERS.values(),
    *(note for notes in NOTES.values() for note in notes),
}


def same(one: object, other: object) -> bool:
    """Whether two settings are equal, be they floats or tensors, tuples or lists."""
    one, other = plain(one), plain(other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        both = isinstance(one, Tensor) and isinstance(other, Tensor)
        return both and one.shape == other.shape and bool((one == other).all())  # type: ignore[attr-defined]
    if type(one) is type(other) is float:
        return isclose(one, other, rel_tol=NOISE)
    return bool(one == other)


@dataclass(frozen=True, slots=True)
class Source:
    """A saved group of some parameters, and its settings as they were built."""

    group: Group
    origin: Group
    names: Sequence[str] = ()
    related: bool | None = None  # whether the class that steps them now saved it, if known

    @property
    def algorithm(self) -> str | None:
        """The algorithm that trained them, where there were several."""
        return self.group.get(ALGORITHM)

    def moved(self, key: str) -> bool:
        """Whether training has moved a setting, or made it."""
        was, now = plain(self.origin.get(key, ...)), plain(self.group[key])
        if isinstance(was, list | tuple) and isinstance(now, list | tuple):
            was, now = tuple(was), tuple(now)
        return not (was is now or (Tensor not in {type(was), type(now)} and was == now))

    def started_elsewhere(self, key: str, code: object) -> bool:
        """Whether a setting was built with another value than in the code, as far as known."""
        was = self.origin.get(key, self.group[key])
        return was is not None and not same(was, code)


@dataclass(frozen=True, slots=True)
class Target:
    """A group of the code, its settings as built, and the saved groups of its parameters."""

    group: Group
    origin: Group
    label: str  # its name in messages
    sources: Sequence[Source]
    rerouted: Sequence[Source] = ()  # those of other algorithms, beside such that tell more

    @property
    def algorithm(self) -> str | None:
        """The algorithm that trains the group, where there are several."""
        return self.group.get(ALGORITHM)

    def wrote(self, key: str) -> bool:
        """Whether the code built the group with a setting, or training has added it since."""
        return key in self.origin or key not in as_built(self.group)

    def having(self, key: str) -> list[Source]:
        """Return the saved groups that have a setting."""
        return [source for source in self.sources if key in source.group]
