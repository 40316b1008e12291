"""Architectures known by the names of their parts: how a published indexer reads a model.

The rules of papers are written on parameter names. A :class:`Family` knows how one or more
implementations spell the parts of its architecture, finds where in the model these names
begin (below any prefix), counts the blocks it sees there, and only then numbers the layers.
"""

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Final, NamedTuple

from nnlr._model.describe import ModelInfo
from nnlr._text import beginnings, plural
from nnlr.depth._layer import Indexer, Layer, Layers, Part
from nnlr.errors import NnlrError

_NEVER: Final = r"(?!)"


class Spelling(NamedTuple):
    """The names of one implementation, as patterns on the start of a name in the tower.

    They are tried in this order: patch embedding, stem, downsampling, block, final norm. A
    name that none of them matches is the head's.

    Attributes:
        said: The names to look for, in words for a message.
        block: Its groups are the numbers of a block, behind that of its stage if there are
            stages.
        patch_embed: The input projection; without one, ``stem`` is what a tower must have.
        stem: What else is below the first block.
        downsample: What stands between two stages; its group is the number of a stage.
        final_norm: The norm after the last block.
    """

    said: str
    block: str
    patch_embed: str = ""
    stem: str = _NEVER
    downsample: str = _NEVER
    final_norm: str = _NEVER

    def patterns(self) -> tuple[tuple[Part, re.Pattern[str]], ...]:
        """What to try on a name, in order; downsampling belongs to the blocks."""
        return (
            ("patch_embed", re.compile(self.patch_embed or _NEVER)),
            ("stem", re.compile(self.stem)),
            ("block", re.compile(self.downsample)),
            ("block", re.compile(self.block)),
            ("final_norm", re.compile(self.final_norm)),
        )


class Found(NamedTuple):
    """What the name of a parameter says of it.

    Attributes:
        tower: Path of its tower.
        part: What it belongs to.
        numbers: ``(block,)``, ``(stage, block)``, or of a downsampling ``(stage,)``.
    """

    tower: str
    part: Part
    numbers: tuple[int, ...] = ()


class Shape(NamedTuple):
    """What was counted in one tower.

    Attributes:
        blocks: Number of blocks, stage by stage; one stage where there are none.
        downsampled: The stages with a downsampling of their own.
        parts: The parts that were seen.
    """

    blocks: tuple[int, ...]
    downsampled: frozenset[int]
    parts: frozenset[Part]


class Family(Indexer):
    """An indexer for models whose names say where in the depth a parameter is."""

    what: str
    staged: bool = False

    @property
    @abstractmethod
    def spellings(self) -> Sequence[Spelling]:
        """How implementations name the parts; the first that fits is used."""

    @abstractmethod
    def depth(self, found: Found, shape: Shape) -> int | None:
        """The layer of a parameter; ``None`` if it is in none."""

    @abstractmethod
    def last(self, shape: Shape) -> int:
        """The layer nearest the output."""

    def layers(self, model: ModelInfo) -> Layers:
        """Read the names, count the blocks, number the layers."""
        names = [param.name for param in model.params]
        for spelling in self.spellings:
            if towers := _towers(names, spelling):
                return self._numbered(_read(names, towers, spelling))
        raise NnlrError(self._unknown(model, names))

    def _numbered(self, found: list[Found | None]) -> Layers:
        shapes = {
            tower: self._shape([each for each in found if each and each.tower == tower])
            for tower in {each.tower for each in found if each}
        }
        layers: list[Layer | None] = []
        for each in found:
            shape = shapes[each.tower] if each else None
            depth = self.depth(each, shape) if each and shape else None
            layers.append(
                Layer(depth, self.last(shape), each.tower, each.part)
                if each and shape and depth is not None
                else None
            )
        return layers

    def _shape(self, tower: list[Found]) -> Shape:
        counts = {0: 0}
        downsampled = set()
        for numbers in (each.numbers for each in tower if each.numbers):
            stage, count = 0, numbers[-1] + 1
            if self.staged:
                stage = numbers[0]
            if self.staged and len(numbers) == 1:
                downsampled.add(stage)
                count = 0
            counts[stage] = max(counts.get(stage, 0), count)
        return Shape(
            tuple(counts.get(stage, 0) for stage in range(max(counts) + 1)),
            frozenset(downsampled),
            frozenset(each.part for each in tower),
        )

    def _unknown(self, model: ModelInfo, names: list[str]) -> str:
        wanted = "".join(f"\n    {spelling.said}" for spelling in self.spellings)
        return (
            f"{self!r} finds no {self.what} in {model.label} "
            f"({plural(len(names), 'parameter')}).\n"
            f"  At the top or below a prefix it looks for:{wanted}\n"
            f"  Names begin with: {beginnings(names)}.\n"
            "  For other names use nnlr.depth.auto(), or a mapping such as\n"
            "  {'stem.*': 0, 'blocks.0.*': 1}."
        )


class Stack(Family):
    """Blocks one upon the other, between a stem and what is above them."""

    def depth(self, found: Found, shape: Shape) -> int | None:
        """Stem 0, block i in layer i + 1, all else in the last layer."""
        if found.part == "block":
            return found.numbers[0] + 1
        return 0 if found.part in {"stem", "patch_embed"} else self.last(shape)

    def last(self, shape: Shape) -> int:
        """One more than there are blocks, also where nothing is on top of them."""
        return shape.blocks[0] + 1


def _towers(names: list[str], spelling: Spelling) -> list[str]:
    """The prefixes below which both blocks and what comes before them are found.

    Of prefixes inside each other only the outermost counts: what is deeper, say a decoder
    with blocks of its own, is a part of it.
    """
    holding = _prefixes(names, spelling.block) & _prefixes(
        names, spelling.patch_embed or spelling.stem
    )
    return sorted(
        tower for tower in holding if not any(_inside(tower, other) for other in holding - {tower})
    )


def _prefixes(names: list[str], pattern: str) -> set[str]:
    start = re.compile(rf"(?:(.+?)\.)??(?:{pattern})")
    return {found[1] or "" for name in names if (found := start.match(name))}


def _inside(name: str, tower: str) -> bool:
    return not tower or name.startswith(f"{tower}.")


def _read(names: list[str], towers: list[str], spelling: Spelling) -> list[Found | None]:
    """What each name says. A lone tower takes in what is outside it: heads of all sorts."""
    patterns = spelling.patterns()
    alone = len(towers) == 1
    found: list[Found | None] = []
    for name in names:
        tower = next((tower for tower in towers if _inside(name, tower)), None)
        if tower is not None:
            part, numbers = _part(name[len(tower) + bool(tower) :], patterns)
            found.append(Found("" if alone else tower, part, numbers))
        else:
            found.append(Found("", "head") if alone else None)
    return found


def _part(
    name: str, patterns: Sequence[tuple[Part, re.Pattern[str]]]
) -> tuple[Part, tuple[int, ...]]:
    for part, pattern in patterns:
        if match := pattern.match(name):
            return part, tuple(map(int, match.groups()))
    return "head", ()
