"""Ordered groups of parameters, from the input to the head, as fastai's splitters make them.

``discriminative`` and ``freeze`` take them in the same ways: as patterns, as a splitter, as
an indexer (every layer a group), or as a number of groups that the layers are cut into.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from nnlr._arguments import is_listing
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo
from nnlr._model.names import unwrap
from nnlr._select.selector import Selector, as_selector
from nnlr._select.suggestions import must_match
from nnlr._text import listed, plural, shown
from nnlr.depth._auto import auto
from nnlr.depth._flow import flow
from nnlr.depth._given import INDEXERS, as_indexer
from nnlr.depth._layer import Indexer, Layer, layers_of
from nnlr.errors import CoverageError, NnlrError, PatternError

AnyGroups = (
    Sequence[str | Selector]
    | Callable[[nn.Module], Iterable[Any]]
    | str
    | Indexer
    | Mapping[str | Selector, int]
    | int
    | None
)

# AWD-LSTM's number of groups, on which ULMFiT's factor was found.
DEFAULT_COUNT: Final = 5

_SPLITTER: Final = (
    "It is given the model and has to give a list of groups, each of modules or parameters; "
    "a function of ParamInfo that numbers layers is nnlr.depth.by_function(f)."
)


class GroupPlace(NamedTuple):
    """The place of a parameter in a row of groups."""

    position: int  # its group, 0 nearest the input
    last: int  # the group nearest the output
    layer: Layer | None = None  # where groups are made of layers
    # Whether it was put there; what is outside every tower counts with the last.
    inside: bool = True

    def __str__(self) -> str:
        """``group 1 of 4``, counted from 0 as layers are."""
        if not self.inside:
            return "outside every tower, as the last group"
        layer = f", {self.layer}" if self.layer else ""
        return f"group {self.position} of {self.last}{layer}"


class Groups(ABC):
    """Says in which group each parameter is; made by :func:`as_groups`."""

    @abstractmethod
    def of(self, model: ModelInfo) -> list[GroupPlace | None]:
        """The group of each of ``model.params``; ``None`` for what is frozen and in none."""

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What is to be pointed out about the groups; nothing by default."""
        return ()

    @abstractmethod
    def written_as(self) -> object:
        """The argument that stands for them."""

    def __repr__(self) -> str:
        """The groups as a user would write them."""
        return repr(self.written_as())


def as_groups(value: object) -> Groups:
    """Return ordered groups from anything that says which.

    Examples:
        >>> as_groups(["embed.*", "head.*"]), as_groups("auto"), as_groups(4), as_groups(None)
        (['embed.*', 'head.*'], auto(), 4, None)
    """
    if value is None:
        return _Cut(DEFAULT_COUNT, at_most=True)
    if isinstance(value, Integral) and not isinstance(value, bool):
        if value < 1:
            raise NnlrError(f"groups must be >= 1 as a number, got {shown(value)}.", value=value)
        return _Cut(int(value))
    if value is flow:
        return _Layers(as_indexer(value))  # an error
    if isinstance(value, str) and value not in INDEXERS:
        raise NnlrError(
            f"groups={value!r} is no indexer ({', '.join(map(repr, INDEXERS))}). Patterns "
            "come as a list, from the input to the head: ['embed.*', 'blocks.*', 'head.*'].",
            value=value,
        )
    uncalled = any(value is made for made in INDEXERS.values())
    if uncalled or isinstance(value, str | Indexer | Mapping):
        return _Layers(as_indexer(value))
    if isinstance(value, list | tuple) and value:
        return _Patterns([as_selector(item, f"groups[{i}]") for i, item in enumerate(value)])
    if callable(value) and not isinstance(value, type | nn.Module):
        return _Split(value)
    raise NnlrError(
        "groups must be a list of patterns from the input to the head, such as "
        "['embed.*', 'blocks.*', 'head.*'], a splitter (a function of the model that gives "
        "lists of modules or parameters), an indexer such as 'auto', or a number of groups; "
        f"got {shown(value, typed=True)}.",
        value=value,
    )


@dataclass(frozen=True, repr=False, eq=False)
class _Layers(Groups):
    """Every layer a group; every tower counts its own."""

    indexer: Indexer

    def of(self, model: ModelInfo) -> list[GroupPlace | None]:
        layers = layers_of(self.indexer, model)
        last = max((layer.last for layer in layers if layer), default=0)
        outside = GroupPlace(last, last, inside=False)
        return [
            GroupPlace(layer.depth, layer.last, layer) if layer else outside for layer in layers
        ]

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        return self.indexer.findings(model)

    def written_as(self) -> object:
        return self.indexer


@dataclass(frozen=True, repr=False, eq=False)
class _Cut(Groups):
    """Layers, cut into some groups of nearly equal size with the head alone on top."""

    count: int
    _: KW_ONLY
    at_most: bool = False

    def of(self, model: ModelInfo) -> list[GroupPlace | None]:
        layers = auto().layers(model)
        headed = {layer.tower for layer in layers if layer and layer.part == "head"}
        outside = GroupPlace(self.count - 1, self.count - 1, inside=False)
        group_of = {
            layer: self._group(layer, layer.tower in headed, model) if layer else outside
            for layer in set(layers)
        }
        return [group_of[layer] for layer in layers]

    def _group(self, layer: Layer, headed: bool, model: ModelInfo) -> GroupPlace:
        layers = layer.last + 1
        count = min(self.count, layers) if self.at_most else self.count
        if count > layers:
            tower = f"tower {layer.tower!r} of " if layer.tower else ""
            raise NnlrError(
                f"groups={shown(count)}, but {tower}{model.label} has {plural(layers, 'layer')}: "
                f"pass 1 to {layers}, or groups='auto' for one group per layer.",
                groups=count,
                layers=layers,
            )
        if headed and count > 1:
            if layer.depth == layer.last:
                return GroupPlace(count - 1, count - 1, layer)
            index = layer.depth * (count - 1) // layer.last
        else:
            index = layer.depth * count // layers
        return GroupPlace(index, count - 1, layer)

    def written_as(self) -> object:
        return None if self.at_most else self.count


@dataclass(frozen=True, repr=False, eq=False)
class _Patterns(Groups):
    """A list of selectors of which the first that matches a parameter counts."""

    selectors: list[Selector]

    def of(self, model: ModelInfo) -> list[GroupPlace | None]:
        taken: dict[int, int] = {}
        for position, selector in enumerate(self.selectors):
            who = f"groups[{position}] {selector!r}"
            matched = must_match(selector, model, who, may_be_optional=False)
            unclaimed = matched - taken.keys()
            if not unclaimed:
                raise PatternError(
                    f"{who} is left with no parameter of {model.label}: all that it matches "
                    f"(such as {model.params[min(matched)].name}) is in earlier groups.\n"
                    "  Groups run from the input to the head, and the first that matches a "
                    "parameter gets it: narrow the earlier ones.",
                    pattern=repr(selector),
                    nearest=[],
                )
            taken.update(dict.fromkeys(unclaimed, position))
        return _complete(taken, len(self.selectors), model)

    def written_as(self) -> object:
        return self.selectors


@dataclass(frozen=True, repr=False, eq=False)
class _Split(Groups):
    """What a function of the model gives: a list of lists of modules or parameters."""

    splitter: Callable[[nn.Module], Any]

    def of(self, model: ModelInfo) -> list[GroupPlace | None]:
        if model.module is None:
            raise NnlrError(
                f"{self!r} splits a model, but there are only tensors: give groups as patterns."
            )
        try:
            groups = self.splitter(unwrap(model.module))
        except AttributeError as error:
            raise NnlrError(
                f"The splitter {self!r} was called with {model.label} and failed: {error}. "
                f"{_SPLITTER}"
            ) from error
        if not is_listing(groups) or isinstance(groups, Tensor):
            raise NnlrError(f"The splitter {self!r} gave {shown(groups, typed=True)}. {_SPLITTER}")
        index_of = {id(places[0].tensor): i for i, places in enumerate(model.places)}
        taken: dict[int, int] = {}
        count = 0
        for position, group in enumerate(groups):
            count += 1
            # By id, which is safe while the dict holds the tensors.
            tensors = {id(tensor): tensor for tensor in self._tensors(group, position)}
            if not tensors:
                raise NnlrError(f"Group {position} of the splitter {self!r} holds no parameter.")
            if tensors.keys() - index_of.keys():
                raise NnlrError(
                    f"Group {position} of the splitter {self!r} holds a tensor that is no "
                    f"parameter of {model.label}. Split the model that is handed in, not a "
                    "copy of it."
                )
            for index in sorted(index_of[key] for key in tensors):
                # A tied tensor counts where it comes first; any other may come only once.
                first, param = taken.setdefault(index, position), model.params[index]
                if first != position and not param.aliases:
                    raise NnlrError(
                        f"{param.name!r} is in groups {first} and {position} of the splitter "
                        f"{self!r}: each parameter has one group.",
                        name=param.name,
                    )
        return _complete(taken, count, model)

    def _tensors(self, part: object, position: int) -> Iterator[Tensor]:
        if isinstance(part, nn.Module):
            yield from part.parameters()
        elif isinstance(part, Tensor):
            yield part
        elif is_listing(part):
            for item in part:
                yield from self._tensors(item, position)
        else:
            raise NnlrError(
                f"Group {position} of the splitter {self!r} holds "
                f"{shown(part, typed=True)}, which is neither a module nor a parameter."
            )

    def written_as(self) -> object:
        return self.splitter

    def __repr__(self) -> str:
        return getattr(self.splitter, "__name__", repr(self.splitter))


def _complete(taken: Mapping[int, int], count: int, model: ModelInfo) -> list[GroupPlace | None]:
    """A group for each parameter, once every trainable one has its own."""
    missing = [
        param.name
        for index, param in enumerate(model.params)
        if param.requires_grad and index not in taken
    ]
    if missing:
        raise CoverageError(
            f"{plural(len(missing), 'trainable parameter')} of {model.label} "
            f"{'is' if len(missing) == 1 else 'are'} in none of the groups: "
            f"{listed(missing)}.\n"
            "  Add them to a group; '*' as the last group takes all that is left.",
            names=missing,
        )
    places = [GroupPlace(position, count - 1) for position in range(count)]
    return [places[taken[index]] if index in taken else None for index in range(len(model.params))]
