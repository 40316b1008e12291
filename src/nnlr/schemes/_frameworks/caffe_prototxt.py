"""Caffe's prototxt files: ``lr_mult`` and ``decay_mult`` of each layer's blobs.

    lr(p) = base_lr * lr_mult,   weight_decay(p) = base_weight_decay * decay_mult;  default 1 and 1

A layer is the module of its name, and its blobs are the module's own parameters in order: weight,
bias. After ``ParamSpec`` of ``caffe.proto`` (Jia et al. 2014, arXiv 1408.5093); the older forms
are ``blobs_lr`` and ``weight_decay``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from nnlr._arguments import number
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError, PatternError
from nnlr.schemes._frameworks.claims import Imported, Watch, key_hint
from nnlr.schemes._frameworks.prototxt import Message, parse

Naming: TypeAlias = Mapping[str, str | None] | Callable[[str], str | None]

_SPEC: Final = ("lr_mult", "decay_mult", "name", "share_mode")


class Spec(NamedTuple):
    """What a file says of one blob."""

    lr_mult: float | None  # None where it says nothing: 1
    decay_mult: float | None
    name: str | None  # under which layers share it


@dataclass(frozen=True)
class Layer:
    """A layer, as far as rates go."""

    name: str
    kind: str
    specs: tuple[Spec, ...]
    norm: str | None  # of a Scale layer the BatchNorm layer before it


def caffe_prototxt(
    prototxt: "str | PathLike[str]",
    *,
    name_of: Naming | None = None,
    strict: bool = True,
) -> Scheme:
    """The ``lr_mult`` and ``decay_mult`` of a Caffe network, for the same network in torch.

    Its solver's ``base_lr`` and ``weight_decay`` are the ``lr`` and ``weight_decay`` of
    ``resolve``. A layer is the module whose path is its name, where ``/``, ``.``, ``-`` and ``_``
    are the same, or the only one whose path ends with it. A Scale layer without a module of its
    name is the module of the BatchNorm layer before it; the blobs of BatchNorm layers are buffers
    in torch.

    Args:
        prototxt: A file, or its text, of a network for training: of today (``layer``, ``param``)
            or older (``layers``, ``blobs_lr``, ``weight_decay``).
        name_of: From layers' names to paths of modules, where they differ: a mapping, or a
            function that returns ``None`` where they do not. ``None`` in a mapping leaves a layer
            out.
        strict: Refuse a layer with multipliers and no module. With ``False`` it is a finding.

    Raises:
        ConfigError: If there is no such file, or it is malformed or a solver; at resolve, if
            layers set one tied parameter differently, or which blob is which parameter is not
            known.
        PatternError: At resolve, if a layer has no module or several.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3), "fc8_new": nn.Linear(4, 2)})
        >>> scheme = caffe_prototxt('''
        ...     layer { name: "conv1" param { lr_mult: 0 } param { lr_mult: 0 } }
        ...     layer { name: "fc8_new" param { lr_mult: 10 } param { lr_mult: 20 decay_mult: 0 } }
        ... ''')
        >>> plan = nnlr.resolve(net, scheme, lr=0.001, weight_decay=5e-4)
        >>> [(row.lr_mult, row.wd_mult) for row in plan]
        [(0.0, 1.0), (0.0, 1.0), (10.0, 1.0), (20.0, 0.0)]
    """
    watch = Watch("Caffe", strict=strict)
    if not isinstance(prototxt, str | PathLike):
        raise ConfigError(
            f"prototxt must be a file or its text, got {shown(prototxt, typed=True)}."
        )
    written = fspath(prototxt)
    layers = _layers(parse(written if re.search(r"[{\n]", written) else _text(written)))
    if name_of is not None and not isinstance(name_of, Mapping) and not callable(name_of):
        raise ConfigError(
            "name_of must be a mapping from layers to modules, or a function, got "
            f"{shown(name_of)}."
        )
    names = [layer.name for layer in layers]
    if isinstance(name_of, Mapping):
        for name in name_of:
            if name not in names:
                hint = nearest_hint(str(name), names)
                raise ConfigError(f"name_of has {shown(name)}, which is no layer. {hint}".rstrip())
    return Prototxt(watch, watch.call(caffe_prototxt, written, name_of=name_of), layers, name_of)


def _text(path: str) -> str:
    """The text of a file."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:  # no such file, and no such name of a file
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"prototxt {shown(path)} cannot be read: {why}.", path=path) from None


def _layers(net: Message) -> list[Layer]:
    """The layers that are trained, in order."""
    net = next((net[key][0] for key in ("train_net_param", "net_param") if key in net), net)
    written = [*net.get("layer", ()), *net.get("layers", ())]
    if not written and "base_lr" in net:
        rates = [f"{new}={net[old][0]:g}" for old, new in _RATES.items() if old in net]
        files = [repr(net[key][0]) for key in ("train_net", "net") if key in net]
        raise ConfigError(
            f"This is a solver. Pass the network that it names ({listed(files)}), and its rates to "
            f"resolve: {', '.join(rates)}."
        )
    if not written:
        raise ConfigError("The prototxt has no layer.")
    layers: list[Layer] = []
    made_by: dict[str, tuple[str, str]] = {}  # the last layer with each top: its type and name
    for at, item in enumerate(written):
        if not isinstance(item, dict):
            raise ConfigError(f"layer {at} must be a message, got {shown(item)}.")
        # The oldest form has a layer inside, and its connections beside it.
        layer = {**item, **item["layer"][0]} if "layer" in item else item
        if not _is_trained(layer):
            continue
        name, kind = (str(layer.get(key, [""])[0]) for key in ("name", "type"))
        before = made_by.get(layer.get("bottom", [""])[0], ("", ""))
        norm = before[1] if kind == "Scale" and before[0] == "BatchNorm" else None
        made_by |= dict.fromkeys(layer.get("top", ()), (kind, name))
        layers.append(Layer(name, kind, tuple(_specs(layer, f"layer {name!r}")), norm))
    return layers


_RATES: Final = {"base_lr": "lr", "weight_decay": "weight_decay"}


def _is_trained(layer: Message) -> bool:
    """Whether a layer is in the network of the training phase."""
    phases = {key: [rule.get("phase", [""])[0] for rule in layer.get(key, ())] for key in _RULES}
    in_test_only = bool(phases["include"]) and {"TEST", 1.0} >= {*phases["include"]}
    return not in_test_only and not {"TRAIN", 0.0} & {*phases["exclude"]}


_RULES: Final = ("include", "exclude")


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
        yield Spec(lr_mult, decay_mult, spec.get("name", [None])[0])


@dataclass(frozen=True, repr=False, eq=False)
class Prototxt(Imported):
    """Caffe's rules; made by :func:`caffe_prototxt`."""

    layers: Sequence[Layer]
    name_of: Naming | None

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The multipliers of each parameter's blob; 1 and 1 where no layer speaks of it."""
        by_index, _ = self._claims(model)
        return [by_index.get(at, NEUTRAL) for at in range(len(model.params))]

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Layers without a module, and parameters without a layer."""
        by_index, findings = self._claims(model)
        others = [param.name for at, param in enumerate(model.params) if at not in by_index]
        if others:
            cause = "no layer of the prototxt is for these, which learn at the base rate"
            fix = "If they have layers, pass name_of={layer: module}."
            findings.append(warning("no-layer", others, cause, fix))
        return [*self.watch.noted, *findings]

    def _claims(self, model: ModelInfo) -> tuple[dict[int, Factor], list[Finding]]:
        """The factor of each parameter of which a layer speaks, by position, and findings."""
        modules = _Modules(model)
        shared = self._shared()
        by_index: dict[int, Factor] = {}
        findings: list[Finding] = []
        absent = []
        for layer in self.layers:
            if layer.kind == "BatchNorm":  # its blobs are running statistics
                continue
            path = self._path(layer, modules)
            if path is None:
                absent += [layer.name] * bool(layer.specs)
                continue
            own = modules.own[path]
            specs = [shared.get(spec.name or "", spec) for spec in layer.specs]
            if len(specs) > len(own) and not modules.has_buffers(own):
                count = plural(len(own), "parameter")
                cause = f"layer {layer.name!r} has {len(specs)} blobs, and its module {count}"
                findings.append(note("no-effect", (), cause, "Nothing to do if it has no bias."))
            if {*own} - {"weight", "bias"} and len(own) > 1:
                if len({spec[:2] for spec in specs}) > 1:
                    raise ConfigError(
                        f"layer {layer.name!r} has {len(specs)} blobs of several multipliers, and "
                        f"its module {listed(own)}: which is which is not known. Leave it out by "
                        f"name_of={{{layer.name!r}: None}} and multiply with nnlr.rule.",
                        name=layer.name,
                    )
                specs = specs[:1] * len(own)
            for at, (key, index) in enumerate(own.items()):
                spec = specs[at] if at < len(specs) else Spec(None, None, None)
                factor = Factor(
                    lr_mult=1.0 if spec.lr_mult is None else spec.lr_mult,
                    wd_mult=1.0 if spec.decay_mult is None else spec.decay_mult,
                    why=f"layer {layer.name!r}, blob {at}",
                )
                earlier = by_index.setdefault(index, factor)
                if replace(earlier, why="") != replace(factor, why=""):
                    raise ConfigError(
                        f"{path}.{key} is tied and set differently by {earlier.why} and "
                        f"{factor.why}. Let the two agree.",
                        name=model.params[index].name,
                    )
        if absent:
            findings += self._absent(absent, modules, model)
        return by_index, findings

    def _path(self, layer: Layer, modules: "_Modules") -> str | None:
        """The path of a layer's module; ``None`` if it has none or is left out."""
        for name in filter(None, (layer.name, layer.norm)):
            if isinstance(self.name_of, Mapping):
                if name in self.name_of and self.name_of[name] is None:
                    return None
                path = self.name_of.get(name)
            else:
                path = None if self.name_of is None else self.name_of(name)
            if path is not None:
                modules.check(path, name)
                return path
            if (path := modules.named(name, only=bool(layer.specs))) is not None:
                return path
        return None

    def _shared(self) -> dict[str, Spec]:
        """What layers say together of each blob that they share by name."""
        shared: dict[str, Spec] = {}
        for layer in self.layers:
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
        return shared

    def _absent(self, names: list[str], modules: "_Modules", model: ModelInfo) -> list[Finding]:
        """Refuse layers without a module, or make a finding of them."""
        if isinstance(self.name_of, Mapping):
            names = [name for name in names if self.name_of.get(name, "") is not None]
        if not names:
            return []
        first = names[0]
        others = f" (and {len(names) - 1} more: {listed(names[1:])})" if names[1:] else ""
        cause = f"layer {first!r} has no module in {model.label}{others}"
        # A layer that is new in fine-tuning begins with the name of the one that it replaces.
        paths = filter(None, modules.own)
        replaced = [path for path in paths if first.startswith(path.rpartition(".")[2])]
        hint = nearest_hint(first, modules.own) or f"Modules: {listed(modules.own, 3)}."
        hint = f"Nearest: {max(replaced, key=len)!r}." if replaced else hint
        fix = f"{hint} Pass name_of={{{first!r}: path}}, or None for its path to leave it out."
        if self.watch.strict:
            raise PatternError(f"{cause}.\n  {fix}", pattern=first, nearest=[])
        return [warning("no-module", (), cause, fix)]


class _Modules:
    """The modules that own parameters, by path and by what a layer may be called."""

    def __init__(self, model: ModelInfo) -> None:
        self.model = model
        self.own: dict[str, dict[str, int]] = {}  # path -> own name of a parameter -> position
        for at, places in enumerate(model.places):
            for place in places:
                self.own.setdefault(place.name.rpartition(".")[0], {})[place.key] = at
        self.ends: dict[str, list[str]] = {}  # the end of a path -> paths
        for path in self.own:
            parts = path.split(".")
            for start in range(len(parts)):
                self.ends.setdefault(_plain(".".join(parts[start:])), []).append(path)

    def named(self, layer: str, *, only: bool) -> str | None:
        """The path of the module of a layer's name, if there is one; ``only`` refuses several."""
        paths = self.ends.get(_plain(layer), [])
        whole = [path for path in paths if _plain(path) == _plain(layer)]
        if only and len(whole or paths) > 1:
            raise PatternError(
                f"layer {layer!r} may be {listed(whole or paths)}. Say which: "
                f"name_of={{{layer!r}: {paths[0]!r}}}.",
                pattern=layer,
                nearest=paths[:3],
            )
        return next(iter(whole or paths), None)

    def check(self, path: str, layer: str) -> None:
        """Refuse a path that is no module with parameters of its own."""
        if path in self.own:
            return
        inside = [other for other in self.own if other.startswith(f"{path}.")]
        hint = f"Inside are {listed(inside, 3)}." if inside else nearest_hint(str(path), self.own)
        raise PatternError(
            f"name_of gives {shown(path)} for layer {layer!r}, which is no module of "
            f"{self.model.label} with parameters of its own. {hint}".rstrip(),
            pattern=layer,
            nearest=inside[:3],
        )

    def has_buffers(self, own: Mapping[str, int]) -> bool:
        """Whether a module has running statistics, which are blobs in Caffe."""
        modules = [place.module for at in own.values() for place in self.model.places[at]]
        return any(list(module.buffers(recurse=False)) for module in modules if module is not None)


def _plain(name: str) -> str:
    """A name in which all that joins words is one sign."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
