"""Megatron's overrides: keys that match parameters, and what these get.

All overrides whose key matches are merged; two that set one thing differently are an error.

    lr(p)           = max_lr, or base_lr
    weight_decay(p) = base_weight_decay * wd_mult

After ``megatron.core.optimizer`` (NVIDIA Megatron-LM): ``ParamKey``, ``ParamGroupOverride``
and ``get_standard_config_overrides``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from nnlr._arguments import flag, number, options
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._select.selectors import Indices, Selector
from nnlr._text import shown
from nnlr.errors import ConfigError
from nnlr.schemes._frameworks.claims import Imported, Watch, mapping


@runtime_checkable
class Key(Protocol):
    """What Megatron's ``ParamKey`` can do; ours and Megatron's own both will."""

    def matches(self, param: Tensor, param_name: str) -> bool:
        """Whether a parameter is meant."""


Test = Callable[..., bool]

Entry: TypeAlias = "tuple[Selector | Key, Mapping[str, Any]]"

_RATES: Final = ("max_lr", "lr_mult", "wd_mult")

# Read by Megatron's scheduler from the group; the group carries them.
_SCHEDULED: Final = ("min_lr", "start_wd", "end_wd")

_KNOWN: Final = (*_RATES, *_SCHEDULED, "optimizer")

# Overwritten by Megatron's scheduler at the first step.
_OVERWRITTEN: Final = {"lr": "max_lr", "weight_decay": "wd_mult"}

_TABLES: Final = frozenset(["embedding", "head"])

_MARK: Final = "is_embedding_or_output_parameter"


@dataclass(frozen=True, slots=True)
class ParamKey:
    """Which parameters an override is for: those for which any of its parts says so.

    The same arguments as Megatron's, whose own objects are taken as well.

    Attributes:
        name: Pattern or patterns over the whole name; ``*`` crosses dots.
        attr: Attribute or attributes of the parameter that must be true.
        predicate: Function or functions of the parameter.
        with_name_predicate: The same, of the parameter and its name.

    Examples:
        >>> import torch
        >>> key = ParamKey(name="*.bias", predicate=lambda param: param.ndim == 1)
        >>> key.matches(torch.zeros(2, 2), "fc.weight"), key.matches(torch.zeros(2), "scale")
        (False, True)
    """

    name: str | tuple[str, ...] = ()
    attr: str | tuple[str, ...] = ()
    predicate: Test | tuple[Test, ...] = ()
    with_name_predicate: Test | tuple[Test, ...] = ()

    def matches(self, param: Tensor, param_name: str) -> bool:
        """Whether a parameter is meant."""
        return (
            any(fnmatchcase(param_name, pattern) for pattern in _many(self.name))
            or any(getattr(param, attr, False) for attr in _many(self.attr))
            or any(test(param) for test in _many(self.predicate))
            or any(test(param, param_name) for test in _many(self.with_name_predicate))
        )

    def __repr__(self) -> str:
        parts = {
            "name": self.name,
            "attr": self.attr,
            "predicate": self.predicate,
            "with_name_predicate": self.with_name_predicate,
        }
        given = (f"{part}={_shown(value)}" for part, value in parts.items() if value != ())
        return f"ParamKey({', '.join(given)})"


def _many(value: object) -> Iterable[Any]:
    return value if isinstance(value, tuple | list) else (value,)


def _shown(value: object) -> str:
    return str(getattr(value, "__name__", None) or shown(value))


def megatron(
    config_overrides: Mapping[Any, Mapping[str, Any]] | None = None,
    *,
    standard: bool | None = None,
    apply_wd_to_qk_layernorm: bool = False,
    decoupled_lr: float | None = None,
    decoupled_min_lr: float | None = None,
    strict: bool = True,
) -> Scheme:
    """Megatron's ``config_overrides``, and the standard ones.

    ``OptimizerConfig.lr`` and ``weight_decay`` are those of ``resolve``. An override may set
    ``max_lr`` (absolute), ``wd_mult``, ``lr_mult`` (which Megatron itself no longer reads),
    ``optimizer`` (the optimizer's tag), and settings of the group such as ``eps``; ``min_lr``,
    ``start_wd`` and ``end_wd`` are carried in the group for Megatron's own scheduler. That
    reads ``max_lr`` of each group: set it to the group's ``lr`` before handing them over.

    Args:
        config_overrides: ``{key: override}``. A key is a pattern over the whole name, a
            selector, a :class:`ParamKey`, or Megatron's own ``ParamKey``.
        standard: Whether the standard overrides are in force; ``None``, as in Megatron: only
            if there are no ``config_overrides``. They are ``wd_mult=0`` for ``*.bias`` and
            for vectors, and the decoupled rates.
        apply_wd_to_qk_layernorm: Vectors of ``q_layernorm`` and ``k_layernorm`` do decay.
        decoupled_lr: Absolute rate of embedding and output layers: the parameters marked
            ``is_embedding_or_output_parameter``, and if none is, those of these roles.
        decoupled_min_lr: ``min_lr`` for the same.
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
    given = {} if config_overrides is None else config_overrides
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"config_overrides must be a mapping of keys to overrides, got {shown(given)}."
        )
    use = config_overrides is None if standard is None else flag(standard, "standard")
    flag(apply_wd_to_qk_layernorm, "apply_wd_to_qk_layernorm")
    settings = {
        "apply_wd_to_qk_layernorm": apply_wd_to_qk_layernorm,
        "decoupled_lr": decoupled_lr,
        "decoupled_min_lr": decoupled_min_lr,
    }
    lost = [n for n, value in settings.items() if value is not None and value is not False]
    if lost and not use:
        cause = f"{lost[0]} belongs to the standard overrides, which are not in force"
        watch.refuse("no-effect", lost[0], cause, "Pass standard=True to have both.")
    if decoupled_min_lr is not None and decoupled_lr is None:
        cause = "decoupled_min_lr has no effect without decoupled_lr"
        watch.refuse("no-effect", "decoupled_min_lr", cause, "Pass decoupled_lr too.")
    rates = (decoupled_lr, decoupled_min_lr)
    entries = _standard(*rates, qk_decay=apply_wd_to_qk_layernorm) if use else []
    entries += [(_key(key), _override(key, item, watch)) for key, item in given.items()]
    call = {"standard": standard, **settings}
    return Megatron(entries, len(entries) - len(given), watch, config_overrides, call)


def _standard(lr: float | None, min_lr: float | None, *, qk_decay: bool) -> list[Entry]:
    """The overrides that Megatron makes of its ``OptimizerConfig``."""
    key = ParamKey(name="*.bias", predicate=vector)
    if qk_decay:
        key = ParamKey(with_name_predicate=vector_but_not_qk_layernorm)
    found: list[Entry] = [(key, {"wd_mult": 0.0})]
    if lr is not None:
        rates = {"max_lr": number(lr, "decoupled_lr")}
        if min_lr is not None:
            rates["min_lr"] = number(min_lr, "decoupled_min_lr")
        found.append((_Tables(), rates))
    return found


def vector(param: Tensor) -> bool:
    """Whether a parameter has one axis."""
    return len(param.shape) == 1


def vector_but_not_qk_layernorm(param: Tensor, name: str) -> bool:
    """Whether it is a vector or a bias, and not of the norm of queries or keys."""
    return (vector(param) or name.endswith(".bias")) and not _of_qk_layernorm(name)


def _of_qk_layernorm(name: str) -> bool:
    return "q_layernorm." in name or "k_layernorm." in name


class _Tables(Selector):
    """Embedding and output layers, as marked by Megatron, else by role."""

    def matches(self, model: ModelInfo) -> Indices:
        marked = [i for i, (slot, *_) in enumerate(model.places) if getattr(slot.tensor, _MARK, 0)]
        by_role = [i for i, param in enumerate(model.params) if param.role in _TABLES]
        return frozenset(marked or by_role)

    def __repr__(self) -> str:
        return "embedding and output layers"


def _key(key: object) -> Selector | Key:
    if isinstance(key, str):
        return ParamKey(name=key)
    if isinstance(key, Selector | Key) and not isinstance(key, type):
        return key
    raise ConfigError(
        "a key of config_overrides must be a pattern, a selector or a ParamKey, got "
        f"{shown(key, typed=True)}."
    )


def _override(key: object, item: object, watch: Watch) -> dict[str, Any]:
    what = f"override for {_named(key)}"
    given = mapping(item, what)
    own = (name for name in given if name not in _OVERWRITTEN)
    dropped = watch.misspelt(own, _KNOWN, what)
    for name in filter(given.__contains__, _OVERWRITTEN):
        cause = f"{what} sets {name!r}, which Megatron's scheduler overwrites"
        watch.refuse("overridden-key", name, cause, f"Set {_OVERWRITTEN[name]!r}.")
        dropped.add(name)
    if {"max_lr", "lr_mult"} <= given.keys():
        raise ConfigError(f"{what} sets max_lr and lr_mult: drop one of them.")
    for name in filter(given.__contains__, (*_RATES, *_SCHEDULED)):
        number(given[name], f"{name} of {what}")
    if not isinstance(given.get("optimizer", ""), str):
        raise ConfigError(f"optimizer of {what} must be a name.")
    options({k: v for k, v in given.items() if k not in {*_RATES, *dropped}}, what)
    return {name: value for name, value in given.items() if name not in dropped}


def _named(key: object) -> str:
    return repr(key) if isinstance(key, str | ParamKey | Selector) else shown(key)


class Megatron(Imported):
    """Megatron's rules; made by :func:`megatron`."""

    def __init__(
        self,
        entries: Sequence[Entry],
        standard: int,
        watch: Watch,
        config: object,
        call: Mapping[str, object],
    ) -> None:
        super().__init__(watch, megatron, config_overrides=config, **call)
        self.entries = entries
        self.standard = standard
        self.qk_decay = bool(standard and call["apply_wd_to_qk_layernorm"])

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """All matching overrides, merged; nothing for frozen parameters."""
        hits = [_matched(key, model) for key, _ in self.entries]
        self._idle(hits, model)
        known: dict[tuple[int, ...], Factor] = {(): NEUTRAL}
        found = []
        for index, param in enumerate(model.params):
            matching = tuple(
                at for at, hit in enumerate(hits) if index in hit and param.requires_grad
            )
            if matching not in known:
                known[matching] = self._merged(matching, param.name)
            found.append(known[matching])
        return found

    def _merged(self, matching: Sequence[int], name: str) -> Factor:
        merged: dict[str, Any] = {}
        said_by: dict[str, object] = {}
        for at in matching:
            key, override = self.entries[at]
            for setting, value in override.items():
                if merged.setdefault(setting, value) != value:
                    raise ConfigError(
                        f"{setting} of {name!r} is set to {merged[setting]!r} by "
                        f"{_named(said_by[setting])} and to {value!r} by {_named(key)}. Let "
                        "them agree, or narrow one of the keys.",
                        name=name,
                        option=setting,
                    )
                said_by.setdefault(setting, key)
        if {"max_lr", "lr_mult"} <= merged.keys():
            raise ConfigError(
                f"{name!r} gets max_lr by {_named(said_by['max_lr'])} and lr_mult by "
                f"{_named(said_by['lr_mult'])}: narrow one of the keys.",
                name=name,
                option="lr_mult",
            )
        rest = {k: v for k, v in merged.items() if k not in {*_RATES, "optimizer"}}
        return Factor(
            lr=merged.get("max_lr"),
            lr_mult=merged.get("lr_mult", 1.0),
            wd_mult=merged.get("wd_mult", 1.0),
            tag=merged.get("optimizer"),
            options=options(rest, "a Megatron override"),
            why=", ".join(_brief(self.entries[at][0]) for at in matching),
        )

    def _idle(self, hits: Sequence[Indices], model: ModelInfo) -> list[Finding]:
        """Keys of the user's own that match nothing."""
        idle = {
            _brief(key): False
            for (key, _), hit in list(zip(self.entries, hits, strict=True))[self.standard :]
            if not hit
        }
        return self.watch.must_act(idle, model, "key")

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Keys that match nothing, and what acts otherwise than in Megatron today."""
        hits = [_matched(key, model) for key, _ in self.entries]
        found = [*self.watch.noted, *self._idle(hits, model)]
        if self.qk_decay and not any(_of_qk_layernorm(p.name) for p in model.params):
            cause = "apply_wd_to_qk_layernorm has no effect: no name has q_layernorm. in it"
            fix = "Write it out: {ParamKey(with_name_predicate=...): {'wd_mult': 0}}."
            found.append(warning("no-effect", (), cause, fix))
        for setting, cause, fix in _NOTES:
            names = [
                model.params[index].name
                for (_, override), hit in zip(self.entries, hits, strict=True)
                if setting in override
                for index in sorted(hit)
            ]
            if names:
                found.append(note(setting, names, cause, fix))
        return found


_NOTES: Final = (
    (
        "lr_mult",
        "lr_mult acts here, while newer versions of Megatron do not read it",
        "Nothing to do if meant.",
    ),
    *(
        (
            setting,
            f"{setting} is carried in the group for Megatron's scheduler; others ignore it",
            "Leave it out to build an optimizer with nnlr, and give the schedule a floor.",
        )
        for setting in _SCHEDULED
    ),
)


def _matched(key: Selector | Key, model: ModelInfo) -> Indices:
    if isinstance(key, Selector):
        return key.matches(model)
    return frozenset(
        index
        for index, (slot, *_) in enumerate(model.places)
        if key.matches(slot.tensor, model.params[index].name)
    )


def _brief(key: object) -> str:
    """A key as short as it can be told."""
    if isinstance(key, ParamKey):
        key = key.name if replace(key, name=()) == ParamKey() else key
    return key if isinstance(key, str) else _named(key)
