"""Caffe's prototxt files: ``lr_mult`` and ``decay_mult`` of each layer's blobs.

    lr(p) = base_lr * lr_mult,   weight_decay(p) = base_weight_decay * decay_mult;  default 1 and 1

A layer is the module of its name, and its blobs are the module's own parameters in order: weight,
bias. After ``ParamSpec`` of ``caffe.proto`` (Jia et al. 2014, arXiv 1408.5093); the older forms
are ``blobs_lr`` and ``weight_decay``.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Final, TypeAlias

from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError, PatternError
from nnlr.schemes._frameworks.caffe_layers import Layer, Spec, trained_layers
from nnlr.schemes._frameworks.claims import Imported, Watch

Naming: TypeAlias = Mapping[str, str | None] | Callable[[str], str | None]


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
        ConfigError: If there is no such file, it is malformed or a solver, or layers set one
            shared blob differently; at resolve, if they set one tied parameter differently, or
            which blob is which parameter is not known.
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
    layers = trained_layers(written if re.search(r"[{\n]", written) else _text(written))
    if name_of is not None and not isinstance(name_of, Mapping) and not callable(name_of):
        raise ConfigError(
            "name_of must be a mapping from layers to modules, or a function, got "
            f"{shown(name_of)}."
        )
    names = [layer.name for layer in layers]
    if isinstance(name_of, Mapping):
        for name, path in name_of.items():
            if name not in names:
                hint = nearest_hint(str(name), names)
                raise ConfigError(f"name_of has {shown(name)}, which is no layer. {hint}".rstrip())
            if not isinstance(path, str | None):
                raise ConfigError(
                    f"name_of must give the path of a module or None, gives {shown(path)} for "
                    f"{name!r}."
                )
    return Prototxt(watch, watch.call(caffe_prototxt, written, name_of=name_of), layers, name_of)


def _text(path: str) -> str:
    """The text of a file."""
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except (OSError, ValueError) as error:  # no such file, and no such name of a file
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"prototxt {shown(path)} cannot be read: {why}.", path=path) from None


# A torch LSTM of one layer -> the blobs of Caffe's: input weights, biases, recurrent weights.
_LSTM: Final = {"weight_ih_l0": 0, "bias_ih_l0": 1, "bias_hh_l0": 1, "weight_hh_l0": 2}


def _blobs(layer: Layer, keys: Iterable[str]) -> dict[str, int]:
    """Which blob each of a module's own parameters is.

    Raises:
        ConfigError: If that is not known, and the blobs differ.
    """
    keys = list(keys)
    if len(keys) == 1 or {*keys} <= {"weight", "bias"}:
        return {key: at for at, key in enumerate(keys)}
    if layer.kind == "LSTM" and {*keys} <= _LSTM.keys():
        return {key: _LSTM[key] for key in keys}
    # One blob alone is the first of several.
    specs = layer.specs if len(layer.specs) != 1 else (*layer.specs, Spec(None, None, None))
    if len({spec.mults for spec in specs}) > 1:
        raise ConfigError(
            f"layer {layer.name!r} has blobs of several multipliers, and its module "
            f"{listed(keys)}: which is which is not known. Leave it out by "
            f"name_of={{{layer.name!r}: None}} and multiply with nnlr.rule.",
            name=layer.name,
        )
    return dict.fromkeys(keys, 0)


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
        by_index: dict[int, Factor] = {}
        findings: list[Finding] = []
        absent: list[Layer] = []
        at_hand: set[str | None] = set()  # the shared blobs that some module has
        # What says nothing of rates comes last and changes nothing.
        for layer in sorted(self.layers, key=lambda layer: not layer.specs):
            if layer.kind == "BatchNorm":  # its blobs are running statistics
                continue
            path = self._path(layer, modules)
            if path is None:
                absent.append(layer)
                continue
            own = modules.own[path]
            at_hand |= {spec.name for spec in layer.specs} - {None}
            specs = layer.specs
            if len(specs) > len(own) and not modules.has_buffers(own):
                count = plural(len(own), "parameter")
                cause = f"layer {layer.name!r} has {len(specs)} blobs, and its module {count}"
                findings.append(note("no-effect", (), cause, "Nothing to do if it has no bias."))
            for key, at in _blobs(layer, own).items():
                index = own[key]
                lr_mult, wd_mult = specs[at].mults if at < len(specs) else (1.0, 1.0)
                why = f"layer {layer.name!r}, blob {at}"
                factor = Factor(lr_mult=lr_mult, wd_mult=wd_mult, why=why)
                earlier = by_index.setdefault(index, factor)
                if specs and replace(earlier, why="") != replace(factor, why=""):
                    raise ConfigError(
                        f"{path}.{key} is tied and set differently by {earlier.why} and "
                        f"{factor.why}. Let the two agree.",
                        name=model.params[index].name,
                    )
        names = [
            layer.name for layer in absent if any(spec.name not in at_hand for spec in layer.specs)
        ]
        if names:
            findings += self._absent(names, modules, model)
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
