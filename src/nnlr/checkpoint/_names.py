"""Names of an optimizer's tensors, and matching of saved names with them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from nnlr._model.names import Source, resolve_name, slots
from nnlr._text import plural
from nnlr.errors import ConfigError

Pairs = list[tuple[str, Tensor]]

# Why saved state is not used; see Report.unused.
GONE: Final = "gone"
FROZEN: Final = "frozen"
SHAPE: Final = "shape"
KIND: Final = "kind"
TIED: Final = "tied"
ALGORITHM: Final = "algorithm"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of tensors, by their ids, and the ids by names, aliases included."""

    name_of: dict[int, str] = field(default_factory=dict)
    id_of: dict[str, int] = field(default_factory=dict)

    def add(self, pairs: Iterable[tuple[str, Tensor]]) -> None:
        """Add names of tensors; earlier ones are kept."""
        for name, tensor in pairs:
            if self.id_of.setdefault(name, id(tensor)) == id(tensor):
                self.name_of.setdefault(id(tensor), name)


def pairs_of(model: Source | None) -> Pairs:
    """Return a model's parameters by canonical name, tied ones under each of theirs."""
    return [] if model is None else [(slot.name, slot.tensor) for slot in slots(model)]


def names_of(optimizer: Optimizer, pairs: Pairs) -> Names:
    """Return the names of an optimizer's tensors: a model's, or else those in its groups."""
    names = Names()
    trained = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    # A tensor that was replaced may be alive still, under the same name.
    names.add(sorted(pairs, key=lambda pair: id(pair[1]) not in trained))
    in_groups = [
        (name, tensor)
        for group in optimizer.param_groups
        for name, tensor in zip(group.get("param_names", ()), group["params"], strict=False)
        if id(tensor) not in names.name_of
    ]
    names.add(pairs_of(in_groups))
    return names


def paired(group: dict[str, Any], names: Names) -> list[str]:
    """Return the names of a group's tensors, in their order, as the group spells them.

    An optimizer may have sorted its tensors and not their names.
    """
    spelled, tensors = list(group["param_names"]), group["params"]
    canonical = [names.name_of.get(id(tensor)) for tensor in tensors]
    if canonical == spelled:
        return spelled
    meant = matched(spelled, names.id_of)
    spelling = {names.id_of[name]: spelt for spelt, name in meant.items()}
    return [
        spelling.get(id(tensor), name or spelt if spelt in meant else spelt)
        for tensor, name, spelt in zip(tensors, canonical, spelled, strict=True)
    ]


def require_names(optimizer: Optimizer, names: Names) -> None:
    """Refuse an optimizer of which a tensor has no name."""
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if count := sum(id(tensor) not in names.name_of for tensor in tensors):
        raise ConfigError(
            f"{plural(count, 'tensor')} of {type(optimizer).__name__} have no name, so that "
            "saved state cannot be matched to them. Pass model=, the model whose parameters "
            "it trains, or build it from model.named_parameters() or with plan.optimizer.",
            count=count,
        )


def matched(saved: Sequence[str], names: Collection[str]) -> dict[str, str]:
    """Return the present name for each saved one that has one, whatever wrapped either model.

    An equal name counts before one that only means the same.

    Examples:
        >>> matched(["module.a", "b", "c"], {"a", "_orig_mod.b"})
        {'module.a': 'a', 'b': '_orig_mod.b'}
    """
    name_of = {name: name for name in saved if name in names}
    taken = set(name_of)
    for name in saved:
        if name not in name_of:
            meant = resolve_name(name, names)
            if meant is not None and meant not in taken:
                name_of[name] = meant
                taken.add(meant)
    # The present names may be the wrapped ones.
    if unmatched := {name for name in saved if name not in name_of}:
        for name in names:
            meant = None if name in taken else resolve_name(name, unmatched)
            if meant is not None and meant not in name_of:
                name_of[meant] = name
    return {name: name_of[name] for name in saved if name in name_of}


@dataclass(frozen=True, slots=True)
class Match:
    """Which saved parameter belongs to which tensor."""

    source: dict[int, int]  # for the id of a tensor, the position of the saved parameter
    unused: dict[int, str]  # positions of saved parameters without a tensor, and why


def match(saved: Sequence[str], names: Names, groups: Iterable[dict[str, Any]]) -> Match:
    """Match saved names with the tensors in groups."""
    trained = {id(tensor) for group in groups for tensor in group["params"]}
    name_of = matched(saved, names.id_of)
    source: dict[int, int] = {}
    unused: dict[int, str] = {}

    def is_alias(position: int) -> bool:
        name = name_of.get(saved[position])
        return name is None or names.name_of.get(names.id_of[name]) != name

    # A tensor's first name before its aliases, so that they decide only where it is missing.
    for position in sorted(range(len(saved)), key=is_alias):
        name = name_of.get(saved[position])
        tensor = None if name is None else names.id_of[name]
        if tensor is None:
            unused[position] = GONE
        elif tensor not in trained:
            unused[position] = FROZEN
        elif tensor in source:
            unused[position] = TIED
        else:
            source[tensor] = position
    return Match(source, dict(sorted(unused.items())))
