"""Relative rates declared on the modules themselves, as in the Lua package.

A call writes at once into every module it reaches: the module itself and all its
descendants that own a parameter of that name. The last call wins, at whatever level;
modules added later are not reached.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final, TypeVar

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from nnlr._arguments import instance, number, text
from nnlr._declare.factor import Factor, Step, Trace
from nnlr._declare.ties import conflict, text_of
from nnlr._model import marks
from nnlr._model.describe import ModelInfo
from nnlr._model.marks import declared
from nnlr._model.names import Slot, parametrized_owner, reparametrized
from nnlr._text import listed, nearest_hint
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
    values = {
        key: number(value, key)
        for key, value in (("lr_mult", lr_mult), ("wd_mult", wd_mult))
        if value is not None
    }
    if not values:
        raise NnlrError("Nothing to set: pass lr_mult=, wd_mult= or both.")
    return _write(module, name, **values)


def _write(module: Module, name: str, **values: float) -> Module:
    """Write the values into every module below that owns a parameter of this name."""
    instance(module, "module", nn.Module)
    text(name, "name", "weight")
    owners = [inner for inner in module.modules() if name in owned(inner)]
    if not owners:
        present = set().union(
            *(owned(m) for m in module.modules() if not isinstance(m, ParametrizationList))
        )
        label = type(module).__name__
        if not present:
            raise NnlrError(
                f"{label} has no parameters, so {name!r} cannot be set on it.", name=name
            )
        raise NnlrError(
            f"No module in {label} has a parameter {name!r}. It has "
            f"{listed(map(repr, sorted(present)))}. {nearest_hint(name, present)}".rstrip(),
            name=name,
        )
    for owner in owners:
        marks.declare(owner, name, values)
        # Also the tensors that the parameter is computed from: the last call wins for them too.
        for key in list(owner._parameters.keys()):  # scripted: no iterator
            if reparametrized(owner, key) == name:
                marks.declare(owner, key, values)
        if is_parametrized(owner, name):
            originals: nn.Module = owner.parametrizations[name]  # type: ignore[index, assignment]
            for key in originals._parameters:
                marks.declare(originals, key, values)
    return module


def owned(module: nn.Module) -> set[str]:
    """Names of a module's own parameters, also of those computed by a parametrization."""
    names = set()
    for key, tensor in module._parameters.items():
        if tensor is not None:
            names |= {key, reparametrized(module, key) or key}
    if is_parametrized(module):
        names |= {
            name
            for name, originals in module.parametrizations.items()  # type: ignore[union-attr, operator]
            if any(tensor is not None for tensor in originals._parameters.values())
        }
    return names


SOURCE: Final = "declared on the module"


def declarations(model: ModelInfo, tied: Mapping[str, str]) -> dict[int, Trace]:
    """The relative rates that ``learning_rate`` and the like have set on a model's modules.

    Args:
        model: The described model.
        tied: Names of tied tensors that do not count, as in :func:`nnlr.resolve`.
    """
    traces: dict[int, Trace] = {}
    shared: dict[object, Trace] = {}  # equal declarations share a trace
    for index, places in enumerate(model.places):
        # Places that declare the same values share a step.
        names: dict[tuple[tuple[str, Any], ...], list[str]] = {}
        for place in places:
            if place.name not in tied and (values := declared_at(place)):
                names.setdefault(tuple(sorted(values.items())), []).append(place.name)
        for one, two in combinations(names, 2):
            first, second = dict(one), dict(two)
            if any(first[key] != second[key] for key in first.keys() & second.keys()):
                raise conflict(
                    model.params[index],
                    (f"{text_of(first)} on a module", names[one]),
                    (f"{text_of(second)} on a module", names[two]),
                )
        key = tuple(
            (values, tuple(via) if len(places) > 1 else ()) for values, via in names.items()
        )
        if key and key not in shared:
            shared[key] = tuple(
                Step(SOURCE, Factor(**dict(values)), explicit=True, via=via) for values, via in key
            )
        if key:
            traces[index] = shared[key]
    return traces


def declared_at(place: Slot) -> Mapping[str, float]:
    """The values declared for a parameter on the module that owns it at this place."""
    node, key = place.node, place.key
    if node is None:
        return {}
    on_module = declared(node.module)
    owner = parametrized_owner(node, key)
    if owner is not None:
        return {**declared(owner.module).get(node.attr, {}), **on_module.get(key, {})}
    if not on_module:
        return {}
    computed = reparametrized(node.module, key)
    return {**(on_module.get(computed, {}) if computed else {}), **on_module.get(key, {})}
