"""The layers of a Caffe network, as far as rates go, from its prototxt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from nnlr._arguments import number
from nnlr._text import listed, shown
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import key_hint
from nnlr.schemes._frameworks.prototxt import Message, first, parse, values

_SPEC: Final = ("lr_mult", "decay_mult", "name", "share_mode")


class Spec(NamedTuple):
    """What a file says of one blob."""

    lr_mult: float | None  # None where it says nothing: 1
    decay_mult: float | None
    name: str | None  # under which layers share it

    @property
    def mults(self) -> tuple[float, float]:
        """Its two multipliers."""
        lr_mult, decay_mult, _ = self
        return (1.0 if lr_mult is None else lr_mult, 1.0 if decay_mult is None else decay_mult)


@dataclass(frozen=True)
class Layer:
    """A layer, as far as rates go."""

    name: str
    kind: str
    specs: tuple[Spec, ...]
    norm: str | None  # of a Scale layer the BatchNorm layer before it


def trained_layers(text: str) -> list[Layer]:
    """The layers of a network that are trained, in order.

    Raises:
        ConfigError: If the text is malformed or a solver, or layers set a shared blob differently.
    """
    net = parse(text)
    inner = (first(net, key, dict, "the prototxt") for key in ("train_net_param", "net_param"))
    net = next(filter(None, inner), net)
    written = [layer for key in ("layer", "layers") for layer in values(net, key, dict, "the net")]
    if not written and "base_lr" in net:
        rates = [
            f"{new}={rate:g}"
            for old, new in _RATES.items()
            if (rate := first(net, old, float, "the solver")) is not None
        ]
        files = [shown(file) for key in ("train_net", "net") for file in net.get(key, ())]
        raise ConfigError(
            f"This is a solver. Pass the network that it names ({listed(files)}), and its rates to "
            f"resolve: {', '.join(rates)}."
        )
    if not written:
        raise ConfigError("The prototxt has no layer.")
    layers: list[Layer] = []
    made_by: dict[str, tuple[str, str]] = {}  # the last layer with each top: its type and name
    for at, item in enumerate(written):
        # The oldest form has a layer inside, and its connections beside it.
        layer = {**item, **(first(item, "layer", dict, f"layer {at}") or {})}
        name = first(layer, "name", str, f"layer {at}") or ""
        what = f"layer {name!r}"
        if not _is_trained(layer, what):
            continue
        kind = str(next(iter(layer.get("type", ())), ""))
        before = made_by.get(first(layer, "bottom", str, what) or "", ("", ""))
        norm = before[1] if kind == "Scale" and before[0] == "BatchNorm" else None
        made_by |= dict.fromkeys(values(layer, "top", str, what), (kind, name))
        layers.append(Layer(name, kind, tuple(_specs(layer, what)), norm))
    return _merged(layers)


_RATES: Final = {"base_lr": "lr", "weight_decay": "weight_decay"}


def _is_trained(layer: Message, what: str) -> bool:
    """Whether a layer is in the network of the training phase."""

    def phases(field: str) -> list[object]:
        rules = values(layer, field, dict, what)
        return [next(iter(rule.get("phase", ())), None) for rule in rules]

    include = phases("include")
    in_test_only = bool(include) and all(phase in _TEST for phase in include)
    return not in_test_only and not any(phase in _TRAIN for phase in phases("exclude"))


# The phases, as words and as numbers.
_TRAIN: Final = ("TRAIN", 0.0)
_TEST: Final = ("TEST", 1.0)


def _specs(layer: Message, what: str) -> Iterator[Spec]:
    """What a layer says of its blobs."""
    params = layer.get("param", [])
    older = [layer.get(key, []) for key in ("blobs_lr", "weight_decay")]
    if any(older) and any(isinstance(param, dict) for param in params):
        raise ConfigError(f"{what} has param and blobs_lr or weight_decay: write one form.")
    for at in range(max(len(params), *map(len, older))):
        spec = params[at] if at < len(params) else {}
        if isinstance(spec, str):  # in the older form the name alone
            spec = {"name": [spec]}
        if not isinstance(spec, dict):
            raise ConfigError(f"param of {what} must be a message, got {shown(spec)}.")
        if strays := [key for key in spec if key not in _SPEC]:
            hint = key_hint(strays[0], _SPEC[:2])
            raise ConfigError(f"param of {what} has the field {strays[0]!r}. {hint}", key=strays[0])
        values = [
            spec.get(key, mults[at : at + 1]) for key, mults in zip(_SPEC, older, strict=False)
        ]
        lr_mult, decay_mult = (
            number(value[0], f"{key} of {what}") if value else None
            for key, value in zip(_SPEC, values, strict=False)
        )
        yield Spec(lr_mult, decay_mult, first(spec, "name", str, f"param of {what}"))


def _merged(layers: Sequence[Layer]) -> list[Layer]:
    """The layers, where those that share a blob by name all have what any of them says of it."""
    shared: dict[str, Spec] = {}
    for layer in layers:
        for spec in layer.specs:
            if spec.name is None:
                continue
            earlier = shared.get(spec.name, spec)
            pairs = list(zip(earlier[:2], spec[:2], strict=True))
            if any(None not in pair and pair[0] != pair[1] for pair in pairs):
                raise ConfigError(
                    f"the shared param {spec.name!r} is set differently by {layer.name!r} and "
                    "a layer before it. Let them agree.",
                    name=spec.name,
                )
            lr_mult, decay_mult = (one if one is not None else two for one, two in pairs)
            shared[spec.name] = Spec(lr_mult, decay_mult, spec.name)
    return [
        replace(layer, specs=tuple(shared.get(spec.name or "", spec) for spec in layer.specs))
        for layer in layers
    ]
