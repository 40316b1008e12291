"""Findings about depth: whether the layers of a plan are in the order of computation."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Final, NamedTuple

from nnlr._checks.subject import Subject
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import describe
from nnlr._model.names import Source
from nnlr._plan import Plan
from nnlr._text import plural
from nnlr.depth._flow import Flow, recorded
from nnlr.depth._forward.units import bits_of
from nnlr.depth._layer import is_layer

# What may be far from where it acts: learned rows that are added or appended.
_ADDED: Final = ("token", "position")


class _PlanLayer(NamedTuple):
    """One layer of one tower, with the parameters by which its place is judged."""

    tower: str
    depth: int
    names: list[str]
    bits: int  # the parameters
    before: int  # the parameters before one of them

    def feeds(self, other: "_PlanLayer") -> bool:
        """Whether something in this layer is computed before something in the other."""
        return bool(other.before & self.bits)

    def __str__(self) -> str:
        tower = f" of {self.tower}" if self.tower else ""
        return f"layer {self.depth}{tower} ({self.names[0]})"


def contradictions(subject: Subject) -> Iterator[Finding]:
    """Layers that one forward computes side by side, or in another order."""
    if subject.example is None or subject.plan is None:
        return
    layers = _layers(subject.plan, subject.source, subject.example)
    inverted: list[tuple[_PlanLayer, _PlanLayer]] = []
    parallel: list[tuple[_PlanLayer, _PlanLayer]] = []
    straddling: list[tuple[_PlanLayer, _PlanLayer]] = []
    for tower in dict.fromkeys(layer.tower for layer in layers):
        of_tower = [layer for layer in layers if layer.tower == tower]
        parallel += [
            (one, two)
            for one, two in pairwise(of_tower)
            if not one.feeds(two) and not two.feeds(one)
        ]
        backwards = [(one, two) for one, two in combinations(of_tower, 2) if two.feeds(one)]
        inverted += [pair for pair in backwards if not pair[0].feeds(pair[1])]
        straddling += [pair for pair in backwards if pair[0].feeds(pair[1])]
    between: dict[tuple[str, str], tuple[_PlanLayer, _PlanLayer]] = {}
    for one in reversed(layers):
        for two in layers:
            if one.tower != two.tower and one.feeds(two):
                between.setdefault((one.tower, two.tower), (one, two))
    by_kind = [("*inputs", subject.example.inputs), ("**kwargs", subject.example.kwargs)]
    arguments = ", ".join(text for text, value in by_kind if value)
    fix = (
        "If that is not meant, take the order from the forward: plan = nnlr.resolve(model, "
        f"nnlr.layer_decay(decay, nnlr.depth.flow({arguments})), lr=lr, weight_decay=wd)"
    )
    if inverted:
        one, two = inverted[0]
        yield warning(
            "order-inverted",
            _names(inverted),
            f"{plural(len(inverted), 'pair')} of layers are computed in the opposite order: "
            f"{two} before {one}",
            fix,
        )
    if parallel:
        one, two = parallel[0]
        yield warning(
            "order-parallel",
            _names(parallel),
            f"{plural(len(parallel), 'pair')} of neighbouring layers run side by side, neither "
            f"takes what the other gives: {one} and {two}",
            fix,
        )
    if straddling:
        one, two = straddling[0]
        yield note(
            "order-straddles",
            _names(straddling),
            f"in {plural(len(straddling), 'pair')} of layers each is partly before the other: "
            f"{one} and {two}",
            fix,
        )
    if between:
        one, two = next(iter(between.values()))
        yield note(
            "order-of-towers",
            dict.fromkeys(tower or "the rest" for pair in between for tower in pair),
            f"one tower feeds another, and each counts its own layers: {one} is before {two}, "
            "and may have the higher rate",
            "For an encoder and a decoder that is usual. To count through both: plan = "
            f"nnlr.resolve(model, nnlr.layer_decay(decay, nnlr.depth.flow({arguments}, "
            'towers="chain")), lr=lr, weight_decay=wd)',
        )


def _layers(plan: Plan, source: Source, example: Flow) -> list[_PlanLayer]:
    """The layers of the plan, as far as the forward uses them, from the input on."""
    model = describe(source)
    before = recorded(model, example).before
    rows = {row.name: row for row in plan.rows}
    members: dict[tuple[str, int], list[int]] = {}
    for at, param in enumerate(model.params):
        row = rows.get(param.name)
        if row and row.depth and at in before and is_layer(param) and param.role not in _ADDED:
            members.setdefault((row.tower or "", row.depth[0]), []).append(at)
    layers = []
    for (tower, depth), positions in sorted(members.items()):
        earlier = 0
        for at in positions:
            earlier |= before[at]
        names = [model.params[at].name for at in positions]
        layers.append(_PlanLayer(tower, depth, names, bits_of(positions), earlier))
    return layers


def _names(pairs: list[tuple[_PlanLayer, _PlanLayer]]) -> dict[str, None]:
    """The parameters in pairs of layers, each once."""
    return dict.fromkeys(name for pair in pairs for layer in pair for name in layer.names)
