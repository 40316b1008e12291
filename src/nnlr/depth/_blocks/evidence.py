"""Whether the code of a model's classes proves the layers that were read, or contradicts them.

Two layers follow one another if a part of the second takes what a part of the first gives. Code
says so, or that none does; where it cannot be read, the widths have to be believed.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import Final

from torch import nn

from nnlr.depth._blocks.code import Takes, takes_by_code
from nnlr.depth._blocks.order import refuse_all
from nnlr.depth._blocks.source import UnreadableError, Used
from nnlr.depth._blocks.tree import Tree
from nnlr.depth._layer import LayerPlace, is_layer

Span = dict[str, set[int]]  # the layers of a module, in each tower

_OPEN: Final = 1
_SURE: Final = 2


def check_by_code(tree: Tree, places: Sequence[LayerPlace | None]) -> None:
    """Check the layers against the code, and settle what widths left in doubt.

    Raises:
        NnlrError: If the code contradicts the layers; if there were doubts, and it proves nothing.
    """
    evidence = _Evidence(tree, places)
    evidence.read(tree.root.module)
    evidence.check_steps()
    if evidence.against or (tree.doubts and not evidence.proves):
        refuse_all(tree, [*evidence.against, *tree.doubts])


class _Evidence:
    """What code says of the layers of a model."""

    def __init__(self, tree: Tree, places: Sequence[LayerPlace | None]) -> None:
        self.tree = tree
        orders = defaultdict(set)
        for layer in filter(None, places):
            orders[layer.tower].add(layer.order)
        self.numbers = {  # of the layers in each tower
            tower: {order: at for at, order in enumerate(sorted(in_tower))}
            for tower, in_tower in orders.items()
        }
        self.params: dict[int, tuple[str, int]] = {}  # of all matrices
        self.heads: set[tuple[str, int]] = set()
        self.names: dict[tuple[str, int], str] = {}
        for place, param, slots in zip(places, tree.model.params, tree.model.places, strict=True):
            if place and is_layer(param) and len(slots) == 1:  # not what is tied
                at = place.tower, self.numbers[place.tower][place.order]
                self.params[id(slots[0].tensor)] = at
                self.names.setdefault(at, param.owner or param.name)
                if place.part == "head":
                    self.heads.add(at)
        self.spans: dict[nn.Module, Span] = {}
        self.steps: dict[tuple[str, int], int] = {}  # how a layer takes what the one before gives
        self.against: list[str] = []
        self.proves = True

    def span(self, module: nn.Module) -> Span:
        """The layers of all matrices in a module."""
        if not (module._modules or module._parameters):
            return {}
        if module not in self.spans:
            span = self.spans[module] = self._own_span(module)
            for part in _parts(module):
                for tower, layers in self.span(part).items():
                    span.setdefault(tower, set()).update(layers)
        return self.spans[module]

    def _own_span(self, module: nn.Module) -> Span:
        """The layers of the matrices that a module holds itself."""
        span: Span = {}
        for tensor in module._parameters.values():
            if at := self.params.get(id(tensor)):
                span.setdefault(at[0], set()).add(at[1])
        return span

    def read(self, module: nn.Module, *, one_by_one: bool = False) -> None:
        """Read the code of a module, or of the members that other code uses one by one."""
        span = self.span(module)
        if sum(map(len, span.values())) < 2:
            return
        takes: Takes = {}
        if not one_by_one:
            try:
                takes = takes_by_code(module)
            except UnreadableError:
                self._join(span, span, _OPEN)
                self.proves &= len(span) < 2
        layers = [used for used in takes if any(True for _ in used.module.parameters())]
        for a, b in permutations(layers, 2):
            self._compare(a, b, takes)
        for used, sources in takes.items():
            if used.member and used in sources:
                self._join_members(used.module)
            runs_in_turn = used in sources or not used.member
            if used.backwards and runs_in_turn and used.turned() not in takes:
                self._turn(used)
        called = {used.module for used in takes}
        silent = [module] if takes else []  # its code does not say what takes their own weights
        while silent:
            part = silent.pop()
            silent += [kid for kid in _parts(part) if kid not in called]
            if own := self._own_span(part):
                self._join(own, span, _OPEN)
                self._join(span, own, _OPEN)
        whole = {used.module for used in takes if not used.member}
        for part in called or _parts(module):
            self.read(part, one_by_one=bool(takes) and part not in whole)

    def _turn(self, used: Used) -> None:
        """Note that the members of a list run from the last to the first."""
        if any(len(layers) > 1 for layers in self.span(used.module).values()):
            path = self._path(used)
            self.against.append(f"by the code, {path} runs from its last member to its first")

    def _path(self, used: Used) -> str:
        """Where a module is, for messages."""
        paths = (unit.path for unit in self.tree.root.below() if unit.module is used.module)
        return repr(next(paths, ""))

    def _join_members(self, module: nn.Module) -> None:
        """Note that each member of a list may take what the one before gives."""
        self._join(self.span(module), self.span(module), _SURE)
        spans = list(map(self.span, _parts(module)))
        for before, after in pairwise(spans):
            for tower in before.keys() & after.keys():
                self.proves &= max(before[tower]) <= min(after[tower])

    def _compare(self, before: Used, after: Used, takes: Takes) -> None:
        """Compare what code says of two parts with their layers."""
        first, second = self.span(before.module), self.span(after.module)
        in_turn = before in takes[after] and after in takes[before]
        if before in takes[after]:
            self._join(first, second, _OPEN if in_turn else _SURE)
            self.proves &= first.keys() == second.keys()
        for tower in first.keys() & second.keys():
            if max(first[tower]) >= min(second[tower]):
                continue
            if in_turn and before.member and after.member:
                self.proves = False
            if after in takes[before] and not in_turn:
                self.against.append(
                    f"by the code, {self._path(after)} runs before {self._path(before)}"
                )
            is_head = {(tower, layer) for layer in second[tower]} <= self.heads
            one_by_one = all(u.member and Used(u.module) not in takes for u in (before, after))
            if in_turn and one_by_one and not is_head:
                self.against.append(
                    f"by the code, {self._path(before)} and {self._path(after)} take turns"
                )

    def _join(self, before: Span, after: Span, how: int) -> None:
        """Note that some layers may take what others give."""
        for tower, layers in after.items():
            for layer in layers:
                if layer - 1 in before.get(tower, ()):
                    self.steps[tower, layer] = max(how, self.steps.get((tower, layer), 0))

    def check_steps(self) -> None:
        """Check that every layer may take what the one before it gives."""
        whole = self.span(self.tree.root.module)  # a wrapper may hold layers beside it
        for tower, numbers in self.numbers.items():
            for layer in range(1, len(numbers)):
                how = self.steps.get((tower, layer), 0)
                self.proves &= how == _SURE
                a, b = (self.names.get((tower, at)) for at in (layer - 1, layer))
                if not how and a and b and {layer - 1, layer} <= whole.get(tower, set()):
                    self.against.append(f"by the code, {b!r} takes nothing of what {a!r} gives")


def _parts(module: nn.Module) -> list[nn.Module]:
    """The modules that it holds."""
    return [part for part in module._modules.values() if part is not None]
