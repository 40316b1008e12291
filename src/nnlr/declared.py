"""What was declared on the modules, read back as trace entries."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from nnlr.describe import ModelInfo, ParamInfo
from nnlr.factor import Factor, Step, Trace
from nnlr.marks import declared
from nnlr.names import Slot, parametrized_owner, reparametrized
from nnlr.ties import conflict

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
    factor = Factor(
        lr_mult=values.get("lr_mult", 1.0), wd_mult=values.get("wd_mult", 1.0)
    )
    return Step(SOURCE, factor, explicit=True, via=tuple(names))


def _text(values: Values) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())
