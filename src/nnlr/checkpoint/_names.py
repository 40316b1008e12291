"""What the tensors of an optimizer are called, and which of them a saved name means."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from nnlr._model.names import Source, resolve_name, slots
from nnlr._text import plural
from nnlr.errors import ConfigError

Pairs = list[tuple[str, Tensor]]

GONE: Final = "gone"

FROZEN: Final = "frozen"

SHAPE: Final = "shape"

TIED: Final = "tied"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of tensors.

    Attributes:
        first: The name of each tensor, by its id.
        known: The id of the tensor that each name, aliases included, means.
    """

    first: dict[int, str] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)

    def add(self, pairs: Iterable[tuple[str, Tensor]]) -> None:
        """Learn names of tensors; what is known already stays."""
        for name, tensor in pairs:
            if self.known.setdefault(name, id(tensor)) == id(tensor):
                self.first.setdefault(id(tensor), name)


def pairs_of(model: Source | None) -> Pairs:
    """Canonical names of a model's parameters, tied ones under each of theirs."""
    if model is None:
        return []
    return [(slot.name, slot.tensor) for slot in slots(model)]


def names_of(optimizer: Optimizer, pairs: Pairs) -> Names:
    """The names of an optimizer's tensors, from a model or else from its own groups."""
    names = Names()
    trained = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    # A tensor that was replaced may be alive still, under the same name.
    names.add(sorted(pairs, key=lambda pair: id(pair[1]) not in trained))
    own = [
        (name, tensor)
        for group in optimizer.param_groups
        for name, tensor in zip(group.get("param_names", ()), group["params"], strict=False)
        if id(tensor) not in names.first
    ]
    names.add(pairs_of(own))
    return names


def unnamed(optimizer: Optimizer, names: Names) -> int:
    """How many of an optimizer's tensors have no name."""
    return sum(
        id(tensor) not in names.first
        for group in optimizer.param_groups
        for tensor in group["params"]
    )


def require_names(optimizer: Optimizer, names: Names) -> None:
    """Refuse an optimizer whose tensors cannot be told apart by name.

    Raises:
        ConfigError: With the ways to name them.
    """
    if count := unnamed(optimizer, names):
        raise ConfigError(
            f"{plural(count, 'tensor')} of {type(optimizer).__name__} have no name, so that "
            "saved state cannot be matched to them. Pass model=, the model whose parameters "
            "it trains, or build it from model.named_parameters() or with plan.optimizer.",
            count=count,
        )


def matched(saved: Sequence[str], known: Collection[str]) -> dict[str, str]:
    """Which known name each saved one means, whatever either was wrapped in.

    A name that is known as it stands counts before one that only means the same.

    Examples:
        >>> matched(["module.a", "b", "c"], {"a", "_orig_mod.b"})
        {'module.a': 'a', 'b': '_orig_mod.b'}
    """
    found = {name: name for name in saved if name in known}
    taken = set(found)
    for name in saved:
        if name not in found:
            meant = resolve_name(name, known)
            if meant is not None and meant not in taken:
                found[name] = meant
                taken.add(meant)
    if left := {name for name in saved if name not in found}:
        for name in known:
            meant = None if name in taken else resolve_name(name, left)
            if meant is not None and meant not in found:
                found[meant] = name
    return {name: found[name] for name in saved if name in found}


@dataclass(frozen=True, slots=True)
class Match:
    """Which saved parameter goes on in which tensor.

    Attributes:
        source: For the id of a tensor of the optimizer, the position of the saved parameter.
        unused: Positions of saved parameters without a tensor, and why.
    """

    source: dict[int, int]
    unused: dict[int, str]


def match(saved: Sequence[str], names: Names, groups: Iterable[dict[str, Any]]) -> Match:
    """Match saved names with the tensors in groups."""
    trained = {id(tensor) for group in groups for tensor in group["params"]}
    found = matched(saved, names.known)
    source: dict[int, int] = {}
    unused: dict[int, str] = {}
    # A tensor's first name before its aliases, so that they decide only where it is missing.
    order = sorted(
        range(len(saved)),
        key=lambda at: (
            (name := found.get(saved[at])) is None or names.first.get(names.known[name]) != name
        ),
    )
    for position in order:
        name = found.get(saved[position])
        tensor = None if name is None else names.known[name]
        if tensor is None:
            unused[position] = GONE
        elif tensor not in trained:
            unused[position] = FROZEN
        elif tensor in source:
            unused[position] = TIED
        else:
            source[tensor] = position
    return Match(source, dict(sorted(unused.items())))
