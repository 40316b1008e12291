"""Megatron's overrides: keys that match parameters, and what these get.

All overrides whose key matches are merged; two that set one thing differently are an error.

    lr(p)           = max_lr, or base_lr
    weight_decay(p) = base_weight_decay * wd_mult

After ``megatron.core.optimizer`` (NVIDIA Megatron-LM): ``ParamKey``, ``ParamGroupOverride``,
``get_standard_config_overrides`` and ``get_mup_config_overrides``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, TypeVar

from nnlr._arguments import flag, number, options, word
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._select.selector import Indices, Selector
from nnlr._text import shown
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import Claims, Imported, Watch, mapping
from nnlr.schemes._frameworks.megatron_config import (
    TARGET,
    is_config,
    is_recipe,
    read_config,
    read_recipe,
)
from nnlr.schemes._frameworks.megatron_keys import (
    KeyLike,
    ParamKey,
    Tables,
    Width,
    of_qk_layernorm,
    vector,
    vector_but_not_qk_layernorm,
)

# A mapping is not one of a wider type of keys, to a type checker.
Key = TypeVar("Key", bound=str | Selector | KeyLike)

Override: TypeAlias = "tuple[Selector | KeyLike, Mapping[str, Any]]"

_RATES: Final = ("max_lr", "lr_mult", "wd_mult")

# Read by Megatron's scheduler from the group; the group carries them.
_SCHEDULED: Final = ("min_lr", "start_wd", "end_wd")

# Overwritten by Megatron's scheduler at the first step.
_OVERWRITTEN: Final = {"lr": "max_lr", "weight_decay": "wd_mult"}


def megatron(
    config_overrides: Mapping[Key, Mapping[str, Any]] | object | None = None,
    *,
    standard: bool | None = None,
    apply_wd_to_qk_layernorm: bool = False,
    decoupled_lr: float | None = None,
    decoupled_min_lr: float | None = None,
    optimizer: str = "adam",
    mup_width_mult: float = 1.0,
    strict: bool = True,
) -> Scheme:
    """Megatron's ``OptimizerConfig`` or ``config_overrides``, and the standard ones.

    ``OptimizerConfig.lr`` and ``weight_decay`` are those of ``resolve``. An override may set
    ``max_lr`` (absolute), ``wd_mult``, ``lr_mult`` (which Megatron itself no longer reads),
    ``optimizer`` (the algorithm), and settings of the group such as ``eps``; ``min_lr``,
    ``start_wd`` and ``end_wd`` are carried in the group for Megatron's own scheduler. That
    reads ``max_lr`` of each group: set it to the group's ``lr`` before handing them over.

    Args:
        config_overrides: ``{key: override}``. A key is a pattern over the whole name, a
            selector, a :class:`ParamKey`, or Megatron's own ``ParamKey``. Or an
            ``OptimizerConfig``, in place of all that it says; or an ``overrides_config`` with
            ``optimizers``, ``default`` and ``matchers``, in place of the standard overrides.
        standard: Whether the standard overrides are in force; ``None``, as in Megatron: only
            if there are no ``config_overrides``. They are ``wd_mult=0`` for ``*.bias`` and
            for vectors, and the decoupled rates.
        apply_wd_to_qk_layernorm: Vectors of ``q_layernorm`` and ``k_layernorm`` do decay.
        decoupled_lr: Absolute rate of embedding and output layers: the parameters marked
            ``is_embedding_or_output_parameter``, and if none is, those of these roles.
        decoupled_min_lr: ``min_lr`` for the same.
        optimizer: ``OptimizerConfig.optimizer``, Megatron's default: the algorithm of what no
            override sends elsewhere. It counts where an override names another.
        mup_width_mult: Megatron's muP: width by base width, > 0. Under Adam matrices learn, and
            have an ``eps``, smaller by it, under SGD vectors and embeddings learn faster by it, and
            under others matrices slower; embeddings count as vectors, output layers as matrices.
        strict: Refuse what Megatron passes over in silence: misspelt settings and keys that
            match nothing. With ``False`` they are findings.

    Raises:
        ConfigError: If a setting is malformed or has no effect; at resolve, if two
            overrides set one thing of a parameter differently.
        PatternError: At resolve, if a key matches nothing.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4))
        >>> plan = nnlr.resolve(net, megatron(decoupled_lr=3e-4), lr=1e-3, weight_decay=0.1)
        >>> [(row.lr, row.weight_decay) for row in plan][:3]
        [(0.0003, 0.1), (0.001, 0.1), (0.001, 0.0)]
    """
    watch = Watch("megatron", strict=strict)
    settings: dict[str, Any] = {
        "apply_wd_to_qk_layernorm": apply_wd_to_qk_layernorm,
        "decoupled_lr": decoupled_lr,
        "decoupled_min_lr": decoupled_min_lr,
    }
    if is_config(config_overrides):
        beside = [
            name for name, value in settings.items() if value is not None and value is not False
        ]
        if beside:
            raise ConfigError(
                f"{beside[0]} stands beside a configuration, which has its own: change it there.",
                key=beside[0],
            )
        settings |= read_config(config_overrides)
        config_overrides, optimizer = settings.pop("config_overrides"), settings.pop("optimizer")
    written = {} if config_overrides is None else config_overrides
    default: dict[str, Any] | None = None
    if is_recipe(written):
        written, default = read_recipe(written, watch)
        optimizer = default["optimizer"]
    if not isinstance(written, Mapping):
        raise ConfigError(
            f"config_overrides must be a mapping of keys to overrides, got {shown(written)}."
        )
    with_standard = config_overrides is None if standard is None else flag(standard, "standard")
    qk, rate, floor = settings.values()
    flag(qk, "apply_wd_to_qk_layernorm")
    in_use = [name for name, value in settings.items() if value is not None and value is not False]
    if in_use and not with_standard:
        cause = f"{in_use[0]} belongs to the standard overrides, which are not in force"
        watch.refuse("no-effect", in_use[0], cause, "Pass standard=True to have both.")
    if floor is not None and rate is None:
        cause = "decoupled_min_lr has no effect without decoupled_lr"
        watch.refuse("no-effect", "decoupled_min_lr", cause, "Pass decoupled_lr too.")
    overrides = _standard(qk=qk, rate=rate, floor=floor) if with_standard else []
    rest = word(optimizer, "optimizer")
    width = number(mup_width_mult, "mup_width_mult", above=0)
    if width != 1:
        overrides += _by_width(width, rest.lower(), decoupled=rate is not None)
    count = len(overrides)
    for key, item in written.items():
        if isinstance(key, type) or not isinstance(key, str | Selector | KeyLike):
            raise ConfigError(
                "a key of config_overrides must be a pattern, a selector or a ParamKey, got "
                f"{shown(key, typed=True)}."
            )
        matcher = ParamKey(name=key) if isinstance(key, str) else key
        overrides.append((matcher, _override(key, item, watch)))
    if default is not None:
        default = _override("default", default, watch)
    others = {override.get("optimizer", rest) for _, override in overrides} - {rest}
    settings |= {"optimizer": rest, "mup_width_mult": width}
    call = watch.call(megatron, config_overrides=config_overrides, standard=standard, **settings)
    algorithm = rest if others else None
    return Megatron(watch, call, overrides, count, with_standard and qk, algorithm, default)


def _standard(*, qk: bool, rate: float | None, floor: float | None) -> list[Override]:
    """What Megatron makes of its ``OptimizerConfig``."""
    undecayed = ParamKey(name="*.bias", predicate=vector)
    if qk:
        undecayed = ParamKey(with_name_predicate=vector_but_not_qk_layernorm)
    overrides: list[Override] = [(undecayed, {"wd_mult": 0.0})]
    if rate is not None:
        rates = {"max_lr": number(rate, "decoupled_lr")}
        if floor is not None:
            rates["min_lr"] = number(floor, "decoupled_min_lr")
        overrides.append((Tables(), rates))
    return overrides


def _by_width(width: float, optimizer: str, *, decoupled: bool) -> list[Override]:
    """Megatron's muP: what learns slower or faster in a wider model, and the ``eps`` of Adam."""
    if "muon" in optimizer:
        raise ConfigError(
            f"mup_width_mult={width:g} does not know which matrices Megatron leaves to Muon. Pass "
            "the overrides that its own get_mup_config_overrides makes of the model."
        )
    if optimizer == "sgd":
        return [(Width(vectors=True, decoupled=decoupled), {"lr_mult": width})]
    overrides: list[Override] = [
        (Width(vectors=False, decoupled=decoupled), {"lr_mult": 1 / width})
    ]
    if "adam" in optimizer:
        overrides.append((Width(vectors=False, decoupled=False), {"eps_mult": 1 / width}))
    return overrides


def _override(key: object, item: object, watch: Watch) -> dict[str, Any]:
    """The settings of an override, checked."""
    what = f"override for {_named(key)}"
    settings = mapping(item, what)
    others = [name for name in settings if name not in _OVERWRITTEN]
    for name in watch.misspelt_keys(others, (*_RATES, *_SCHEDULED, "optimizer", TARGET), what):
        del settings[name]
    for name in filter(settings.__contains__, _OVERWRITTEN):
        cause = f"{what} sets {name!r}, which Megatron's scheduler overwrites"
        watch.refuse("overridden-key", name, cause, f"Set {_OVERWRITTEN[name]!r}.")
        del settings[name]
    if {"max_lr", "lr_mult"} <= settings.keys():
        raise ConfigError(f"{what} sets max_lr and lr_mult: drop one of them.")
    for name in filter(settings.__contains__, (*_RATES, *_SCHEDULED)):
        number(settings[name], f"{name} of {what}")
    if "optimizer" in settings:
        word(settings["optimizer"], f"optimizer of {what}")
    others = [name for name in settings if name not in {*_RATES, TARGET}]
    options({name: settings[name] for name in others}, what)
    return settings


def _named(key: object) -> str:
    """A key as messages show it."""
    return repr(key) if isinstance(key, str | ParamKey | Selector) else shown(key)


def _brief(key: object) -> str:
    """A key as short as possible: a pattern alone is itself."""
    if isinstance(key, ParamKey):
        key = key.name if replace(key, name=()) == ParamKey() else key
    return key if isinstance(key, str) else _named(key)


@dataclass(frozen=True, repr=False, eq=False)
class Megatron(Imported):
    """Megatron's rules; made by :func:`megatron`."""

    entries: Sequence[Override]  # the standard ones first
    standard: int  # how many of them are standard ones
    qk_decay: bool  # whether norms of queries and keys decay
    rest: str | None  # the algorithm of what no override names one for; None if there is one only
    default: Mapping[str, Any] | None = None  # of a recipe: what no matcher is for

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """All matching overrides, merged; nothing for frozen parameters."""
        matches, _ = self._matches(model)
        merged: dict[tuple[int, ...], Factor] = {}
        factors = []
        for index, param in enumerate(model.params):
            at = tuple(at for at, chosen in enumerate(matches) if index in chosen)
            if param.requires_grad and at not in merged:
                merged[at] = self._merged(at, param.name)
            factors.append(merged[at] if param.requires_grad else NEUTRAL)
        return factors

    def _matches(self, model: ModelInfo) -> tuple[list[Indices], list[Finding]]:
        """The positions that each key matches, and findings on the user's that match nothing."""
        matches = []
        for key, _ in self.entries:
            if isinstance(key, Selector):
                matches.append(key.matches(model))
                continue
            pairs = zip(model.params, model.places, strict=True)
            tests = (key.matches(places[0].tensor, param.name) for param, places in pairs)
            matches.append(frozenset(index for index, matching in enumerate(tests) if matching))
        patterns = [_brief(key) for key, _ in self.entries[self.standard :]]
        # Overrides are merged: each match counts, not only the first.
        acting = [(at,) for at, chosen in enumerate(matches[self.standard :]) if chosen]
        return matches, Claims("key", patterns, acting).check(self.watch, model)

    def _merged(self, matching: Sequence[int], name: str) -> Factor:
        """The factor of some overrides together, for the parameter of this name."""
        merged: dict[str, Any] = {}
        set_by: dict[str, object] = {}
        entries = [self.entries[at] for at in matching]
        if self.default is not None and not entries:
            entries = [(ParamKey(name="*"), self.default)]
        for key, override in entries:
            for setting, value in override.items():
                if merged.setdefault(setting, value) != value:
                    raise ConfigError(
                        f"{setting} of {name!r} is set to {merged[setting]!r} by "
                        f"{_named(set_by[setting])} and to {value!r} by {_named(key)}. Let "
                        "them agree, or narrow one of the keys.",
                        name=name,
                        option=setting,
                    )
                set_by.setdefault(setting, key)
        if {"max_lr", "lr_mult"} <= merged.keys():
            raise ConfigError(
                f"{name!r} gets max_lr by {_named(set_by['max_lr'])} and lr_mult by "
                f"{_named(set_by['lr_mult'])}: narrow one of the keys.",
                name=name,
                option="lr_mult",
            )
        if {"eps", "eps_mult"} <= merged.keys():
            raise ConfigError(
                f"eps of {name!r} is set by {_named(set_by['eps'])} and by mup_width_mult: narrow "
                "the key.",
                name=name,
                option="eps",
            )
        algorithm = merged.pop("optimizer", self.rest)
        target = merged.pop(TARGET, None)
        return Factor(
            lr=merged.pop("max_lr", None),
            lr_mult=merged.pop("lr_mult", 1.0),
            wd_mult=merged.pop("wd_mult", 1.0),
            eps_mult=merged.pop("eps_mult", 1.0),
            algorithm=None if self.rest is None else algorithm,
            options=options(merged, "a Megatron override"),
            why=", ".join(
                [*([f"group {target}"] if target else []), *(_brief(key) for key, _ in entries)]
            ),
        )

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Keys that match nothing, and what acts otherwise than in Megatron today."""
        matches, on_keys = self._matches(model)
        findings = [*self.watch.noted, *on_keys]
        if self.qk_decay and not any(of_qk_layernorm(p.name) for p in model.params):
            cause = "apply_wd_to_qk_layernorm has no effect: no name has q_layernorm. in it"
            fix = "Write it out: {ParamKey(with_name_predicate=...): {'wd_mult': 0}}."
            findings.append(warning("no-effect", (), cause, fix))
        for setting in ("lr_mult", *_SCHEDULED):
            first = self.standard if setting == "lr_mult" else 0  # muP's own is meant
            names = [
                model.params[index].name
                for (_, override), chosen in zip(self.entries[first:], matches[first:], strict=True)
                if setting in override
                for index in sorted(chosen)
            ]
            cause = f"{setting} is carried in the group for Megatron's scheduler; others ignore it"
            fix = "Leave it out to build an optimizer with nnlr, and give the schedule a floor."
            if setting == "lr_mult":
                cause = "lr_mult acts here, while newer versions of Megatron do not read it"
                fix = "Nothing to do if meant."
            if names:
                findings.append(note(setting.replace("_", "-"), names, cause, fix))
        return findings
