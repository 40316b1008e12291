"""Tied parameters: declarations that reach one tensor by different names must agree."""

from collections.abc import Mapping

from nnlr.describe import ModelInfo, ParamInfo
from nnlr.errors import NnlrError, nearest_hint
from nnlr.scheme import Factor, Step, Trace

# What a declaration can set, and the value that says it does not.
_SETTINGS = {"lr_mult": 1.0, "wd_mult": 1.0, "lr": None, "weight_decay": None}


def check_settled(tied: Mapping[str, str], model: ModelInfo) -> None:
    """Check ``resolve(..., tied={alias: name})``.

    Raises:
        NnlrError: If an alias and its name are not two names of one tensor.
    """
    by_name = {name: param for param in model.params for name in param.names}
    for alias, name in tied.items():
        for spelled in (alias, name):
            if spelled not in by_name:
                hint = nearest_hint(str(spelled), by_name)
                raise NnlrError(
                    f"tied={{{alias!r}: {name!r}}}: {model.label} has no parameter "
                    f"{spelled!r}. {hint}".rstrip(),
                    name=spelled,
                )
        if by_name[alias] is not by_name[name] or alias == name:
            raise NnlrError(
                f"tied={{{alias!r}: {name!r}}}: these are not two names of one tensor.",
                name=alias,
            )


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
    for index, trace in traces.items():
        if sum(bool(step.via) for step in trace) > 1:
            settled[index] = _agreed(trace, model.params[index], tied)
    return settled


def _agreed(trace: Trace, param: ParamInfo, tied: Mapping[str, str]) -> Trace:
    kept: list[Step] = []
    for step in trace:
        if step.via and tied.keys() >= set(step.via):
            continue  # reached only by names that the user overruled
        others = [other for other in kept if other.via and not set(other.via) & set(step.via)]
        for other in others if step.via else ():
            if _disagree(step.factor, other.factor):
                raise conflict(param, _said(other), _said(step))
        if not any(step.via and _same(step.factor, other.factor) for other in others):
            kept.append(step)
    return tuple(kept)


def _disagree(one: Factor, two: Factor) -> bool:
    return any(
        getattr(one, key) != neutral != getattr(two, key)
        and getattr(one, key) != getattr(two, key)
        for key, neutral in _SETTINGS.items()
    )


def _same(one: Factor, two: Factor) -> bool:
    return all(getattr(one, key) == getattr(two, key) for key in (*_SETTINGS, "options"))


def conflict(param: ParamInfo, one: tuple[str, str], two: tuple[str, str]) -> NnlrError:
    """The error for two declarations, each a text and the name by which it came."""
    said = " and ".join(f"{text} by the name {name!r}" for text, name in (one, two))
    return NnlrError(
        f"{param.name!r} is one tensor with the names {', '.join(map(repr, param.names))}, and "
        f"two declarations that reach it disagree: {said}.\n"
        f"  Say which counts: resolve(..., tied={{{two[1]!r}: {one[1]!r}}}) keeps the first, "
        "the other way round the second.",
        name=param.name,
    )


def _said(step: Step) -> tuple[str, str]:
    settings = ", ".join(
        f"{key}={getattr(step.factor, key)!r}"
        for key, neutral in _SETTINGS.items()
        if getattr(step.factor, key) != neutral
    )
    return f"{step.source} ({settings})", step.via[0]
