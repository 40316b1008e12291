"""Architectures recognised by the names of their parts: how a published indexer reads a model.

The rules of papers are written on parameter names. A :class:`Family` knows how one or more
implementations name the parts of its architecture, finds where in the model these names
begin (below any prefix), counts the blocks it sees there, and only then numbers the layers.
"""

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple

from nnlr._arguments import Call
from nnlr._model.describe import ModelInfo
from nnlr._text import beginnings, plural
from nnlr.depth._layer import Indexer, Layer, Layers, Part
from nnlr.errors import NnlrError

_NEVER: Final = r"(?!)"


class NamePatterns(NamedTuple):
    """The names of one implementation, as patterns on the start of a name in the tower.

    They are tried in this order: patch embedding, stem, downsampling, block, final norm. A
    name that none of them matches is the head's.
    """

    described: str  # the names to look for, in words for a message
    block: str  # its groups are the number of a block, or those of a stage and a block
    patch_embed: str = ""  # the input projection; without one a tower must have a stem
    stem: str = _NEVER  # what else is below the first block
    downsample: str = _NEVER  # what stands between two stages; its group is a stage's number
    final_norm: str = _NEVER  # the norm after the last block


class NamedPart(NamedTuple):
    """What the name of a parameter says: its tower and its part of it."""

    tower: str  # path
    part: Part
    numbers: tuple[int, ...] = ()  # (block,), (stage, block), or of a downsampling (stage,)


class TowerSize(NamedTuple):
    """What was counted in one tower."""

    blocks: tuple[int, ...]  # number of blocks, stage by stage; one stage where there are none
    downsampled: frozenset[int]  # the stages with a downsampling of their own
    parts: frozenset[Part]  # the parts that were seen


class Family(Call, Indexer):
    """An indexer for models whose names say where in the depth a parameter is."""

    what: ClassVar[str]
    staged: ClassVar[bool] = False

    @property
    @abstractmethod
    def implementations(self) -> Sequence[NamePatterns]:
        """How implementations name the parts; the first that fits is used."""

    def depth(self, named: NamedPart, size: TowerSize) -> int | None:
        """The layer of a parameter: stem 0, block i in layer i + 1, all else in the last."""
        if named.part == "block":
            return named.numbers[0] + 1
        return 0 if named.part in {"stem", "patch_embed"} else self.last(size)

    def last(self, size: TowerSize) -> int:
        """The last layer: one more than there are blocks, also with nothing on top of them."""
        return sum(size.blocks) + 1

    def layers(self, model: ModelInfo) -> Layers:
        """Read the names, count the blocks, number the layers."""
        names = [param.name for param in model.params]
        for patterns in self.implementations:
            if towers := _towers(names, patterns):
                break
        else:
            texts = "".join(f"\n    {patterns.described}" for patterns in self.implementations)
            raise NnlrError(
                f"{self!r} finds no {self.what} in {model.label} "
                f"({plural(len(names), 'parameter')}).\n"
                f"  At the top or below a prefix it looks for:{texts}\n"
                f"  Names begin with: {beginnings(names)}.\n"
                "  For other names use nnlr.depth.auto(), or a mapping such as\n"
                "  {'stem.*': 0, 'blocks.0.*': 1}."
            )
        named_parts = _named_parts(names, towers, patterns)
        members: dict[str, list[NamedPart]] = {}
        for named in named_parts:
            if named is not None:
                members.setdefault(named.tower, []).append(named)
        sizes = {tower: self._size(parts) for tower, parts in members.items()}
        layers: list[Layer | None] = []
        for named in named_parts:
            depth = None if named is None else self.depth(named, sizes[named.tower])
            if named is None or depth is None:
                layers.append(None)
            else:
                last = self.last(sizes[named.tower])
                layers.append(Layer(depth, last, named.tower, named.part))
        return layers

    def _size(self, tower: list[NamedPart]) -> TowerSize:
        counts = {0: 0}
        downsampled = set()
        for numbers in (named.numbers for named in tower if named.numbers):
            stage = numbers[0] if self.staged else 0
            count = numbers[-1] + 1
            if self.staged and len(numbers) == 1:
                downsampled.add(stage)
                count = 0
            counts[stage] = max(counts.get(stage, 0), count)
        return TowerSize(
            tuple(counts.get(stage, 0) for stage in range(max(counts) + 1)),
            frozenset(downsampled),
            frozenset(named.part for named in tower),
        )


def _towers(names: list[str], patterns: NamePatterns) -> list[str]:
    """The prefixes below which both blocks and what comes before them are found.

    Of prefixes inside each other only the outermost counts: what is deeper, say a decoder
    with blocks of its own, is a part of it.
    """
    prefixes = _prefixes(names, patterns.block)
    prefixes &= _prefixes(names, patterns.patch_embed or patterns.stem)
    return sorted(
        tower
        for tower in prefixes
        if not any(_is_inside(tower, other) for other in prefixes - {tower})
    )


def _prefixes(names: list[str], pattern: str) -> set[str]:
    start = re.compile(rf"(?:(.+?)\.)??(?:{pattern})")
    return {match[1] or "" for name in names if (match := start.match(name))}


def _is_inside(name: str, tower: str) -> bool:
    return not tower or name.startswith(f"{tower}.")


def _named_parts(
    names: list[str], towers: list[str], patterns: NamePatterns
) -> list[NamedPart | None]:
    """What each name says. A lone tower takes in what is outside it: heads of all sorts."""
    in_order: tuple[tuple[Part, re.Pattern[str]], ...] = (
        ("patch_embed", re.compile(patterns.patch_embed or _NEVER)),
        ("stem", re.compile(patterns.stem)),
        ("block", re.compile(patterns.downsample)),
        ("block", re.compile(patterns.block)),
        ("final_norm", re.compile(patterns.final_norm)),
    )
    alone = len(towers) == 1
    named_parts: list[NamedPart | None] = []
    for name in names:
        tower = next((tower for tower in towers if _is_inside(name, tower)), None)
        if tower is None:
            named_parts.append(NamedPart("", "head") if alone else None)
            continue
        inside = name[len(tower) + 1 :] if tower else name
        label = "" if alone else tower
        for part, pattern in in_order:
            if match := pattern.match(inside):
                named_parts.append(NamedPart(label, part, tuple(map(int, match.groups()))))
                break
        else:
            named_parts.append(NamedPart(label, "head"))
    return named_parts
