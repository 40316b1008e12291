"""Findings about an optimizer's state: whether a next step can work with what it has.

State comes from elsewhere after a load, a copy or a resize, and may be of another shape, of
another parameter or of another class. A step of a small optimizer on tensors without values, of
the parameters' shapes, tells.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from nnlr._checks.optimizer_probe import probe_of
from nnlr._checks.subject import Member, Subject
from nnlr._findings import Finding, error
from nnlr._sandbox import undisturbed
from nnlr._text import plural

# Parameters whose state is dropped by name; of more it is dropped for all.
_MOST: Final = 8


class _Misfit(NamedTuple):
    """A parameter whose state does not fit."""

    member: Member
    error: str  # of the step


def misfits(subject: Subject) -> Iterator[Finding]:
    """State with which the next step raises."""
    unfit: list[_Misfit] = []
    for _, optimizer in subject.parts:
        unfit += _misfits(optimizer, subject)
    if not unfit:
        return
    (name, tensor, *_), why = unfit[0]
    shapes = [
        f"{key} {tuple(value.shape)}"
        for optimizer in subject.optimizers
        for key, value in optimizer.state.get(tensor, {}).items()
        if isinstance(value, Tensor) and value.ndim
    ]
    names = [misfit.member.name for misfit in unfit]
    yield error(
        "wrong-state",
        names,
        cause=f"{plural(len(unfit), 'parameter', 'have')} a state with which the next step raises: "
        f"{name!r} of shape {tuple(tensor.shape)} has {', '.join(shapes) or 'no tensors'} ({why})",
        fix="Start it afresh, where the step begins anew: "
        f"[optimizer.state.pop(model.get_parameter(name), None) for name in {names}]"
        if len(names) <= _MOST
        else "Start it afresh, where the step begins anew: optimizer.state.clear()",
    )


def _misfits(optimizer: Optimizer, subject: Subject) -> list[_Misfit]:
    """The parameters of an optimizer whose state does not fit; equal ones are tried once."""
    groups = {id(group) for group in optimizer.param_groups}
    tried: dict[Any, str | None] = {}
    unfit = []
    with undisturbed():
        for member in subject.members:
            state = optimizer.state.get(member.tensor) if id(member.group) in groups else None
            if not isinstance(state, dict) or not state:
                continue
            key = id(member.group) if _is_odd(member.tensor, state) else None, _form(member, state)
            if key not in tried:
                try:
                    probe = probe_of(subject, optimizer)
                except Exception:  # noqa: BLE001 - anyone's optimizer
                    return []
                tried[key] = probe.raises_with(member.tensor, member.group, state)
            if (why := tried[key]) is not None:
                unfit.append(_Misfit(member, why))
    return unfit


def _is_odd(tensor: Tensor, state: dict[str, Any]) -> bool:
    """Whether a part of the state is neither a number nor shaped like the parameter."""
    return any(
        isinstance(value, Tensor) and value.ndim and value.shape != tensor.shape
        for value in state.values()
    )


def _form(member: Member, state: dict[str, Any]) -> tuple[object, ...]:
    """What tells states apart: their keys, and the shapes where these are not the parameter's."""
    shapes: tuple[object, ...] = ()
    if _is_odd(member.tensor, state):
        shapes = tuple(value.shape for value in state.values() if isinstance(value, Tensor))
        shapes = member.tensor.shape, *shapes
    return member.tensor.dtype, tuple(state), shapes
