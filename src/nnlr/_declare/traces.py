"""Traces of several parameters, by position in the model: joined, and restricted to a part."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from nnlr._declare.factor import Step, Trace
from nnlr._declare.moves import inside


def merge(traces: Iterable[Mapping[int, Trace]]) -> dict[int, Trace]:
    """Join the traces of several schemes, parameter by parameter."""
    merged: dict[int, Trace] = {}
    for of_scheme in traces:
        for index, trace in of_scheme.items():
            merged[index] = (*merged[index], *trace) if index in merged else trace
    return merged


def restricted(traces: Mapping[int, Trace], restriction: str, path: str = "") -> dict[int, Trace]:
    """The same traces, whose sources name a restriction; steps that were shared stay shared.

    Towers and units get the path of the submodule that they were found in.
    """

    def renamed(step: Step) -> Step:
        factor, layer = step.factor, step.factor.layer
        if path and layer is not None:
            factor = replace(factor, layer=layer._replace(tower=inside(path, layer.tower)))
        if path and (moves := factor.moves) is not None:
            factor = replace(factor, moves=moves._replace(unit=inside(path, moves.unit)))
        return replace(step, source=f"{step.source} {restriction}", factor=factor)

    steps = {id(step): step for trace in traces.values() for step in trace}
    new = {key: renamed(step) for key, step in steps.items()}
    return {index: tuple(new[id(step)] for step in trace) for index, trace in traces.items()}
