"""Tied parameters: declarations that reach one tensor by different names must agree."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Final

from nnlr._arguments import optional_mapping
from nnlr._declare.factor import NEUTRAL, Step, Trace
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._text import nearest_hint, shown
from nnlr.errors import NnlrError

# The two rates that a declaration can set, each with the fields of a factor that set it.
_SETTINGS: Final = (("lr_mult", "lr"), ("wd_mult", "weight_decay"))


def check_settled(tied: object, model: ModelInfo) -> dict[str, str]:
    """Return ``resolve(..., tied={alias: name})``, or refuse it."""
    tied = optional_mapping(tied, "tied", "{alias: name}")
    if not tied:
        return {}
    by_name = {name: param for param in model.params for name in param.names}
    for alias, name in tied.items():
        entry = f"tied={{{shown(alias)}: {shown(name)}}}"
        for spelled in (alias, name):
            if not isinstance(spelled, str) or spelled not in by_name:
                hint = nearest_hint(shown(spelled).strip("'\""), by_name)
                raise NnlrError(
                    f"{entry}: {model.label} has no parameter {shown(spelled)}. {hint}".rstrip(),
                    name=spelled,
                )
        if by_name[alias] is not by_name[name] or alias == name:
            raise NnlrError(f"{entry}: these are not two names of one tensor.", name=alias)
    return dict(tied)


def settle(
    traces: Mapping[int, Trace], model: ModelInfo, tied: Mapping[str, str]
) -> dict[int, Trace]:
    """Drop overruled and repeated declarations of tied tensors.

    Declarations that share a name multiply as everywhere. Of those that came by different
    names, equal ones count once, and unequal ones are an error.
    """
    settled = dict(traces)
    for index, param in enumerate(model.params):
        if param.aliases and index in settled:
            settled[index] = _settled(settled[index], param, tied)
    return settled


def _settled(trace: Trace, param: ParamInfo, tied: Mapping[str, str]) -> Trace:
    """The trace of one tied tensor without what is overruled or repeated."""
    before = [step for step in trace if not step.via or not tied.keys() >= set(step.via)]
    after = list(before)
    for fields in _SETTINGS:
        neutral = {field: getattr(NEUTRAL, field) for field in fields}
        declared = {
            index: values
            for index, step in enumerate(after)
            if step.via and (values := _values(step, fields))
        }
        for one, two in combinations(declared, 2):
            names_apart = not set(after[one].via) & set(after[two].via)
            if names_apart and declared[one] != declared[two]:
                raise conflict(
                    param,
                    (f"{after[one].source} ({text_of(declared[one])})", after[one].via),
                    (f"{after[two].source} ({text_of(declared[two])})", after[two].via),
                )
        equal: dict[tuple[Any, ...], list[int]] = {}
        for index, values in declared.items():
            equal.setdefault(tuple(values.items()), []).append(index)
        for indices in equal.values():
            # Of equal declarations those count that came by one name. It is the name by which
            # most came (the first of such names), so the order of schemes makes no difference.
            via = [name for index in indices for name in after[index].via]
            elected = max(param.names, key=via.count)
            for index in indices:
                step = after[index]
                if elected not in step.via:
                    after[index] = replace(step, factor=replace(step.factor, **neutral))
    return tuple(
        step
        for step, old in zip(after, before, strict=True)
        if step is old or replace(step.factor, why="", shadowed=()) != NEUTRAL
    )


def _values(step: Step, fields: Sequence[str]) -> dict[str, float]:
    """Those of the fields of a step's factor that are not neutral."""
    values = {field: getattr(step.factor, field) for field in fields}
    return {field: value for field, value in values.items() if value != getattr(NEUTRAL, field)}


def text_of(values: Mapping[str, float]) -> str:
    """Values as a user writes them: ``lr_mult=2.0, wd_mult=0.0``."""
    return ", ".join(f"{key}={value!r}" for key, value in values.items())


Declaration = tuple[str, Sequence[str]]


def conflict(param: ParamInfo, one: Declaration, two: Declaration) -> NnlrError:
    """The error for two declarations, each a text and the names by which it came."""
    both = " and ".join(
        f"{text} by the name {' and '.join(map(repr, via))}" for text, via in (one, two)
    )
    settled = dict.fromkeys(two[1], one[1][0])
    return NnlrError(
        f"{param.name!r} is one tensor with the names {', '.join(map(repr, param.names))}, "
        f"and two declarations that reach it disagree: {both}.\n"
        f"  Say which counts: resolve(..., tied={settled!r}) keeps the first, "
        "the other way round the second.",
        name=param.name,
        names=param.names,
    )
