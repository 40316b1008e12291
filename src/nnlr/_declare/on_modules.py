"""Relative rates declared on the modules themselves, as the Lua package does it.

A call writes at once into every module it reaches: the module itself and all its
descendants that own a parameter of that name. The last call wins, at whatever level;
modules added later are not reached.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, TypeVar

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from nnlr._arguments import number
from nnlr._declare.factor import Factor, Step, Trace
from nnlr._declare.ties import conflict
from nnlr._model import marks
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._model.marks import declared
from nnlr._model.names import Slot, parametrized_owner, reparametrized
from nnlr._text import listed, nearest_hint, shown
from nnlr.errors import NnlrError

Module = TypeVar("Module", bound=nn.Module)


def learning_rate(module: Module, name: str, value: float) -> Module:
    """Set the relative learning rate of a parameter: ``lr = base_lr * value``.

    Args:
        module: The module, or a container: every descendant that has the parameter is reached.
        name: The parameter's name on its owner: ``"weight"``, ``"bias"``, ``"in_proj_weight"``.
            Under a parametrization, the original name.
        value: Relative learning rate, dimensionless, finite, >= 0. 0 locks the parameter.

    Returns:
        The module, so that calls nest and chain.

    Raises:
        NnlrError: If nothing below ``module`` has such a parameter, or the value is no
            finite number >= 0. Nothing is written then.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> layer = learning_rate(nn.Linear(2, 4), "bias", 0.2)
        >>> nnlr.resolve(layer, lr=0.1, weight_decay=0)["bias"].lr
        0.020000000000000004
    """
    return _write(module, name, lr_mult=number(value, "relative learning rate"))


def weight_decay(module: Module, name: str, value: float) -> Module:
    """Set the relative weight decay of a parameter: ``weight_decay = base * value``.

    Args, result and errors are those of :func:`learning_rate`.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> layer = weight_decay(nn.Linear(2, 4), "bias", 0)
        >>> nnlr.resolve(layer, lr=0.1, weight_decay=0.01)["bias"].weight_decay
        0.0
    """
    return _write(module, name, wd_mult=number(value, "relative weight decay"))


def annotate(
    module: Module,
    name: str,
    *,
    lr_mult: float | None = None,
    wd_mult: float | None = None,
) -> Module:
    """Set the relative learning rate, the relative weight decay, or both.

    Args:
        module: The module, or a container.
        name: The parameter's name on its owner.
        lr_mult: Relative learning rate, finite, >= 0; ``None`` leaves it as it is.
        wd_mult: Relative weight decay, finite, >= 0; ``None`` leaves it as it is.

    Returns:
        The module.

    Raises:
        NnlrError: As :func:`learning_rate`, or if there is nothing to set.

    Examples:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> annotate(net, "bias", lr_mult=2, wd_mult=0) is net
        True
    """
    given = {"lr_mult": lr_mult, "wd_mult": wd_mult}
    values = {key: number(value, key) for key, value in given.items() if value is not None}
    if not values:
        raise NnlrError("Nothing to set: pass lr_mult=, wd_mult= or both.")
    return _write(module, name, **values)


def _write(module: Module, name: str, **values: float) -> Module:
    if not isinstance(module, nn.Module):
        raise NnlrError(f"module must be a torch.nn.Module, got {type(module).__name__}.")
    if not isinstance(name, str):
        raise NnlrError(f"name must be a parameter's name such as 'weight', got {shown(name)}.")
    owners = [inner for inner in module.modules() if name in owned(inner)]
    if not owners:
        raise _nobody_owns(module, name)
    for owner in owners:
        for holder, key in _written_as(owner, name):
            marks.declare(holder, key, values)
    return module


def _written_as(owner: nn.Module, name: str) -> Iterator[tuple[nn.Module, str]]:
    """A name, and the originals it is computed from: the last call wins for them too."""
    yield owner, name
    for key in owner._parameters:
        if reparametrized(owner, key) == name:
            yield owner, key
    if is_parametrized(owner, name):
        made: nn.Module = owner.parametrizations[name]  # type: ignore[index, assignment]
        yield from ((made, key) for key in made._parameters)


def owned(module: nn.Module) -> set[str]:
    """Names of a module's own parameters, also of those computed by a parametrization."""
    names = set()
    for key, tensor in module._parameters.items():
        if tensor is not None:
            names |= {key, reparametrized(module, key) or key}
    if is_parametrized(module):
        names |= {
            name
            for name, made in module.parametrizations.items()  # type: ignore[union-attr, operator]
            if any(tensor is not None for tensor in made._parameters.values())
        }
    return names


def _nobody_owns(module: nn.Module, name: str) -> NnlrError:
    present = set().union(
        *(owned(m) for m in module.modules() if not isinstance(m, ParametrizationList))
    )
    label = type(module).__name__
    if not present:
        return NnlrError(f"{label} has no parameters, so {name!r} cannot be set on it.", name=name)
    there = f"It has {listed(map(repr, sorted(present)))}."
    hint = nearest_hint(name, present)
    return NnlrError(
        f"No module in {label} has a parameter {name!r}. {there} {hint}".rstrip(),
        name=name,
    )


SOURCE: Final = "declared on the module"

Values = Mapping[str, float]


def declarations(model: ModelInfo, tied: Mapping[str, str]) -> dict[int, Trace]:
    """The relative rates that ``learning_rate`` and its kin have set on a model's modules.

    Args:
        model: The described model.
        tied: Names of tied tensors that do not count, as in :func:`nnlr.resolve`.

    Raises:
        NnlrError: If the places where a tied tensor hangs say different things.
    """
    said: dict[int, Trace] = {}
    shared: dict[tuple[tuple[str, float], ...], Trace] = {}
    for index, places in enumerate(model.places):
        if len(places) == 1:
            if values := declared_at(places[0]):
                key = tuple(sorted(values.items()))
                said[index] = shared.setdefault(key, (_step(values),))
        elif found := _at_all(places, model.params[index], tied):
            said[index] = found
    return said


def _at_all(places: Sequence[Slot], param: ParamInfo, tied: Mapping[str, str]) -> Trace:
    """What the places of a tied tensor say; those that say the same share a step."""
    alike: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for place in places:
        if place.name not in tied and (values := declared_at(place)):
            alike.setdefault(tuple(sorted(values.items())), []).append(place.name)
    said = [(dict(key), names) for key, names in alike.items()]
    for (one, its_names), (two, other_names) in combinations(said, 2):
        if any(one[key] != two[key] for key in one.keys() & two.keys()):
            raise conflict(
                param,
                (f"{_text(one)} on a module", its_names),
                (f"{_text(two)} on a module", other_names),
            )
    return tuple(_step(values, names) for values, names in said)


def declared_at(place: Slot) -> Values:
    """The values declared for a parameter on the module that owns it at this place."""
    node, key = place.node, place.key
    if node is None:
        return {}
    here = declared(node.module)
    owner = parametrized_owner(node, key)
    if owner is not None:
        return {**declared(owner.module).get(node.attr, {}), **here.get(key, {})}
    if not here:
        return {}
    base = reparametrized(node.module, key)
    return {**(here.get(base, {}) if base else {}), **here.get(key, {})}


def _step(values: Values, names: Sequence[str] = ()) -> Step:
    factor = Factor(lr_mult=values.get("lr_mult", 1.0), wd_mult=values.get("wd_mult", 1.0))
    return Step(SOURCE, factor, explicit=True, via=tuple(names))


def _text(values: Values) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())
