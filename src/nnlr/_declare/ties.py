"""Tied parameters: declarations that reach one tensor by different names must agree."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Final

from nnlr._declare.factor import NEUTRAL, Factor, Step, Trace
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._text import nearest_hint, shown
from nnlr.errors import NnlrError

# What a declaration can say, and the fields of a factor in which it says it.
_SETTINGS: Final = (("lr_mult", "lr"), ("wd_mult", "weight_decay"))


def check_settled(tied: object, model: ModelInfo) -> dict[str, str]:
    """Return ``resolve(..., tied={alias: name})``, or refuse it.

    Raises:
        NnlrError: If an alias and its name are not two names of one tensor.
    """
    if not isinstance(tied, Mapping):
        raise NnlrError(f"tied must be a mapping {{alias: name}}, got {shown(tied)}.")
    if not tied:
        return {}
    by_name = {name: param for param in model.params for name in param.names}
    for alias, name in tied.items():
        said = f"tied={{{alias!r}: {name!r}}}"
        for spelled in (alias, name):
            if spelled not in by_name:
                hint = nearest_hint(str(spelled), by_name)
                raise NnlrError(
                    f"{said}: {model.label} has no parameter {spelled!r}. {hint}".rstrip(),
                    name=spelled,
                )
        if by_name[alias] is not by_name[name] or alias == name:
            raise NnlrError(f"{said}: these are not two names of one tensor.", name=alias)
    return dict(tied)


def settle(
    traces: Mapping[int, Trace], model: ModelInfo, tied: Mapping[str, str]
) -> dict[int, Trace]:
    """Drop overruled and repeated declarations of tied tensors.

    Declarations that share a name multiply as everywhere. Of those that came by different
    names, equal ones count once, and unequal ones are an error.

    Raises:
        NnlrError: If two declarations disagree and ``tied`` does not settle it.
    """
    settled = dict(traces)
    for index, param in enumerate(model.params):
        if param.aliases and index in settled:
            settled[index] = _settled(settled[index], param, tied)
    return settled


def _settled(trace: Trace, param: ParamInfo, tied: Mapping[str, str]) -> Trace:
    kept = [step for step in trace if not step.via or not tied.keys() >= set(step.via)]
    before = list(kept)
    for fields in _SETTINGS:
        said = {i: step for i, step in enumerate(kept) if step.via and _said(step, fields)}
        _check_agreement(said.values(), fields, param)
        for index in _repeated(said, fields, param.names):
            neutral = {field: getattr(NEUTRAL, field) for field in fields}
            kept[index] = replace(kept[index], factor=replace(kept[index].factor, **neutral))
    return tuple(
        now for was, now in zip(before, kept, strict=True) if now is was or _speaks(now.factor)
    )


def _said(step: Step, fields: Iterable[str]) -> dict[str, float]:
    """What a step says of one setting: its fields that are not neutral."""
    values = {field: getattr(step.factor, field) for field in fields}
    return {f: value for f, value in values.items() if value != getattr(NEUTRAL, f)}


def _check_agreement(steps: Iterable[Step], fields: Sequence[str], param: ParamInfo) -> None:
    for one, two in combinations(steps, 2):
        apart = not set(one.via) & set(two.via)
        if apart and _said(one, fields) != _said(two, fields):
            raise conflict(
                param,
                (_text(one.source, _said(one, fields)), one.via),
                (_text(two.source, _said(two, fields)), two.via),
            )


def _repeated(said: Mapping[int, Step], fields: Sequence[str], names: Sequence[str]) -> list[int]:
    """Steps that say again, by another name, what counts already.

    Of equal declarations those count that came by one name, the one most of them came by, so
    that the order of the schemes makes no difference.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for index, step in said.items():
        alike.setdefault(tuple(_said(step, fields).items()), []).append(index)
    repeated = []
    for indices in alike.values():
        # The first of the names that most of them came by.
        elected = max(names, key=[n for i in indices for n in said[i].via].count)
        repeated += [i for i in indices if elected not in said[i].via]
    return repeated


def _speaks(factor: Factor) -> bool:
    """Whether a factor still says anything."""
    return replace(factor, why="", shadowed=()) != NEUTRAL


def _text(source: str, said: Mapping[str, float]) -> str:
    return f"{source} ({', '.join(f'{key}={value!r}' for key, value in said.items())})"


Said = tuple[str, Sequence[str]]


def conflict(param: ParamInfo, one: Said, two: Said) -> NnlrError:
    """The error for two declarations, each a text and the names by which it came."""
    said = " and ".join(
        f"{text} by the name {' and '.join(map(repr, via))}" for text, via in (one, two)
    )
    settled = dict.fromkeys(two[1], one[1][0])
    return NnlrError(
        f"{param.name!r} is one tensor with the names {', '.join(map(repr, param.names))}, "
        f"and two declarations that reach it disagree: {said}.\n"
        f"  Say which counts: resolve(..., tied={settled!r}) keeps the first, "
        "the other way round the second.",
        name=param.name,
        names=param.names,
    )
