"""The reading of a model's depth that a plan went by: towers, layers, and what is outside."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nnlr._rows.row import PlanRow
from nnlr._text import listed, plural

# Columns of a line for the names of a layer, beside its number.
_WIDTH: Final = 71


@dataclass(frozen=True)
class PlanLayers(Mapping[str, tuple[tuple[str, ...], ...]]):
    """The layers of each tower, nearest the input first: a mapping from a tower's path.

    The path is ``""`` where the whole model is one tower. A layer is the names of its
    parameters; a number that an indexer left out is a layer without any. It is empty where no
    scheme asked for depth.

    Attributes:
        towers: Path of each tower -> its layers.
        outside: The parameters that are in no layer.
    """

    towers: Mapping[str, tuple[tuple[str, ...], ...]]
    outside: tuple[str, ...] = ()

    def __getitem__(self, tower: str) -> tuple[tuple[str, ...], ...]:
        """The layers of a tower."""
        return self.towers[tower]

    def __iter__(self) -> Iterator[str]:
        """The paths of the towers."""
        return iter(self.towers)

    def __len__(self) -> int:
        """The number of towers."""
        return len(self.towers)

    @property
    def summary(self) -> str:
        """One line: how many layers each tower has, and how much is outside."""
        if not self.towers:
            return ""
        counts = [
            f"{f'{path} ' if path else ''}{plural(len(layers), 'layer')}"
            for path, layers in self.towers.items()
        ]
        outside = f"; {plural(len(self.outside), 'parameter')} outside" if self.outside else ""
        return f"depth: {listed(counts)}{outside}"

    def __str__(self) -> str:
        """The summary, and a line for each layer."""
        lines = [self.summary or "no scheme asked for depth"]
        every = [*(names for layers in self.towers.values() for names in layers), self.outside]
        spread = Counter(part for names in every for part in {p for n in names for p in _parts(n)})
        for path, layers in self.towers.items():
            lines += [f"{path}:"] if path else []
            lines += [f"  {at:>3}  {_folded(names, spread)}" for at, names in enumerate(layers)]
        if self.outside:
            lines.append(f"outside: {_folded(self.outside, spread)}")
        return "\n".join(lines)


def _parts(name: str) -> list[str]:
    """The modules that a parameter is in, outermost first."""
    return [name[:at] for at, letter in enumerate(name) if letter == "."]


def _folded(names: Sequence[str], spread: Mapping[str, int]) -> str:
    """Names of one layer; of a module with several of them and none elsewhere, ``module.*``."""
    inside = Counter(part for name in names for part in _parts(name))
    folded = dict.fromkeys(
        next((f"{p}.*" for p in _parts(name) if inside[p] > 1 and spread[p] == 1), name)
        for name in names
    )
    lines = (listed(folded, limit) for limit in range(3, 0, -1))
    return next((line for line in lines if len(line) <= _WIDTH), listed(folded, 1))


def layers_of_rows(rows: Iterable[PlanRow]) -> PlanLayers:
    """The layers that the rows of a plan are in."""
    towers: dict[str, list[list[str]]] = {}
    outside: list[str] = []
    for row in rows:
        if row.depth is None:
            outside.append(row.name)
            continue
        depth, last = row.depth
        layers = towers.setdefault(row.tower or "", [])
        layers.extend([] for _ in range(last + 1 - len(layers)))
        layers[depth].append(row.name)
    read = {tower: tuple(map(tuple, layers)) for tower, layers in towers.items()}
    return PlanLayers(read, tuple(outside) if read else ())


def depth_text(rows: Sequence[PlanRow]) -> str:
    """The layers that some rows are in: a number, or the first and the last of several."""
    depths = sorted({row.depth[0] for row in rows if row.depth is not None})
    if len(depths) < 2:
        return str(depths[0]) if depths else ""
    return f"{depths[0]}..{depths[-1]}"
