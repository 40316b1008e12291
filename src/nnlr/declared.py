"""What was declared on the modules, read back as a scheme."""

from collections.abc import Mapping, Sequence

from nnlr.describe import ModelInfo, ParamInfo, owner_of
from nnlr.marks import declared
from nnlr.names import Slot
from nnlr.scheme import NEUTRAL, Factor, Scheme, Step, Trace
from nnlr.ties import conflict

Values = Mapping[str, float]


class Declarations(Scheme):
    """The relative rates that ``learning_rate`` and its kin have set on a model's modules.

    Args:
        tied: Names of tied tensors that do not count, as in :func:`nnlr.resolve`.
    """

    def __init__(self, tied: Mapping[str, str]) -> None:
        self.tied = tied

    def steps(self, model: ModelInfo) -> dict[int, Trace]:
        """The values found at the places where a parameter hangs; equal ones count once."""
        said: dict[int, Trace] = {}
        shared: dict[tuple[tuple[str, float], ...], Trace] = {}
        for index, places in enumerate(model.places):
            if len(places) == 1:
                values = declared_at(places[0])
                if values:
                    key = tuple(sorted(values.items()))
                    said[index] = shared.setdefault(key, (_step(values),))
            elif found := self._at_all(places, model.params[index]):
                said[index] = found
        return said

    def _at_all(self, places: Sequence[Slot], param: ParamInfo) -> Trace:
        names_of: dict[tuple[tuple[str, float], ...], list[str]] = {}
        for place in places:
            if place.name not in self.tied and (values := declared_at(place)):
                names_of.setdefault(tuple(sorted(values.items())), []).append(place.name)
        said = [(dict(key), names) for key, names in names_of.items()]
        for position, (values, names) in enumerate(said):
            for others, other_names in said[:position]:
                if any(others[key] != values[key] for key in others.keys() & values.keys()):
                    raise conflict(
                        param,
                        (f"{_text(others)} on a module", other_names[0]),
                        (f"{_text(values)} on a module", names[0]),
                    )
        return tuple(_step(values, names) for values, names in said)

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """What is declared for each parameter, where its places say one thing."""
        said = self.steps(model)
        return [said[i][0].factor if i in said else NEUTRAL for i in range(len(model.params))]

    def __repr__(self) -> str:
        return "declarations on modules"


def declared_at(place: Slot) -> Values | None:
    """The values declared for a parameter on the module that owns it at this place."""
    if place.node is None:
        return None
    values = declared(place.node.module).get(place.key)
    if values is None:
        owner, leaf = owner_of(place.node, place.key)
        values = declared(owner.module).get(leaf)
    return values


def _step(values: Values, names: Sequence[str] = ()) -> Step:
    factor = Factor(lr_mult=values.get("lr_mult", 1.0), wd_mult=values.get("wd_mult", 1.0))
    return Step("declared on the module", factor, tuple(names))


def _text(values: Values) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())
