"""torchtitan's parameter groups: ordered entries of (pattern, optimizer and its settings).

The first pattern that is found anywhere in a parameter's name claims it, and the entry says
everything: rates are absolute and nothing is inherited.

    lr(p) = entry.lr,   weight_decay(p) = entry.weight_decay

After ``torchtitan.components.optimizer`` (PyTorch torchtitan).
"""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from typing import Any, Final

import torch

from nnlr._arguments import is_listing, number, options, word
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError, CoverageError, PatternError
from nnlr.schemes._frameworks.claims import (
    Claims,
    Imported,
    Watch,
    compiled,
    cut_names,
    like_mapping,
    mapping,
)

_RATES: Final = ("lr", "weight_decay")

# How a step is computed: where off, an optimizer need not know of it.
_IMPLEMENTATION: Final = ("foreach", "fused")


@dataclass(frozen=True)
class Entry:
    """One entry of the list: a pattern and what it sets."""

    pattern: re.Pattern[str]
    factor: Factor


def torchtitan(param_groups: object, *, strict: bool = True) -> Scheme:
    """The ordered list of torchtitan's parameter groups, also in ``config.optimizer``.

    An entry is a mapping with ``pattern``, ``lr``, ``weight_decay``, other settings of the
    group, and the ``optimizer``'s name; or torchtitan's own object, that of older versions
    (``ParamGroupConfig`` with ``optimizer_name`` and ``optimizer_kwargs``) or of newer ones
    (``AdamW.Config``). Entries of more than one optimizer route: ``plan.optimizer`` takes a
    class for each name, ``{"Muon": torch.optim.Muon, "AdamW": torch.optim.AdamW}``.

    As rates are absolute, those of ``resolve`` are only what all multipliers refer to: pass
    the rates of the last, broadest entry, or one for each optimizer by its name.

    Args:
        param_groups: The entries; the first whose pattern is found in a name claims it. Or the
            configuration that has them, ``config.optimizer``; its ``implementation`` and what is
            for constructors only is left to you. An entry without ``lr`` or ``weight_decay`` gets
            torch's own default for that optimizer, as in torchtitan, and there is a finding.
        strict: Refuse misspelt settings. With ``False`` they are findings.

    Raises:
        ConfigError: If an entry is malformed.
        PatternError: At resolve, if a pattern has nothing to claim.
        CoverageError: At resolve, if trainable parameters are left over.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.ModuleDict({"trunk": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> groups = [
        ...     {"pattern": r"bias$", "optimizer": "AdamW", "lr": 1e-3, "weight_decay": 0.0},
        ...     {"pattern": r".*", "optimizer": "AdamW", "lr": 8e-4, "weight_decay": 0.1},
        ... ]
        >>> plan = nnlr.resolve(net, torchtitan(groups), lr=8e-4, weight_decay=0.1)
        >>> [(row.lr, row.weight_decay) for row in plan][:2]
        [(0.0008, 0.1), (0.001, 0.0)]
    """
    watch = Watch("torchtitan", strict=strict)
    listing = _listing(param_groups)
    items = [_settings(item, f"entry {at}") for at, item in enumerate(listing)]
    entries = [_entry(item, at, watch) for at, item in enumerate(items)]
    if not entries:
        raise ConfigError("torchtitan needs at least one entry.")
    if len({entry.factor.algorithm for entry in entries}) == 1:  # one optimizer needs no name
        entries = [replace(e, factor=replace(e.factor, algorithm=None)) for e in entries]
    return Titan(watch, watch.call(torchtitan, items), entries)


def _listing(config: object) -> Iterable[object]:
    """The entries of a configuration, or what is a list of them."""
    entries = config
    if like_mapping(config):
        entries = mapping(config, "torchtitan's configuration").get("param_groups")
    elif is_dataclass(config) and not isinstance(config, type):
        entries = getattr(config, "param_groups", None)
    if not is_listing(entries) or like_mapping(entries):
        raise ConfigError(
            "torchtitan needs a list of entries, or the configuration whose param_groups they are "
            f"(config.optimizer), got {shown(config)}."
        )
    return entries


def _entry(item: Mapping[str, Any], at: int, watch: Watch) -> Entry:
    """An item of the list, checked."""
    what, settings = f"entry {at}", dict(item)
    if "pattern" not in settings:
        keys = listed(map(repr, settings)) or "nothing"
        raise ConfigError(f"{what} needs a pattern, and has {keys}.")
    pattern = compiled(settings.pop("pattern"), f"pattern of {what}")
    what = f"entry {at} {pattern.pattern!r}"
    older_name = settings.pop("optimizer_name", "AdamW")
    optimizer = settings.pop("optimizer", older_name)
    word(optimizer, f"optimizer of {what}")
    settings |= mapping(settings.pop("optimizer_kwargs", {}), f"optimizer_kwargs of {what}")
    for key in watch.misspelt_keys(settings, (*_RATES, "pattern", "optimizer"), what):
        del settings[key]
    off = [key for key in _IMPLEMENTATION if key in settings and not settings[key]]
    for key in off:
        del settings[key]
    rates: dict[str, Any] = {}
    for rate in _RATES:
        value = settings.pop(rate) if rate in settings else _default(optimizer, rate, what, watch)
        rates[rate] = number(value, f"{rate} of {what}")
    return Entry(
        pattern, Factor(**rates, options=options(settings, what), algorithm=optimizer, why=what)
    )


def _settings(item: object, what: str) -> dict[str, Any]:
    """The settings of an entry as a dict."""
    if like_mapping(item):
        return mapping(item, what)
    if not is_dataclass(item) or isinstance(item, type):
        raise ConfigError(
            f"{what} must be a mapping or one of torchtitan's own objects, got "
            f"{shown(item, typed=True)}."
        )
    settings = {field.name: getattr(item, field.name) for field in fields(item)}
    if settings.get("moment_dtype") == "parameter":  # what torch does anyway
        del settings["moment_dtype"]
    outer, _, name = type(item).__qualname__.rpartition(".")
    if name == "Config":  # AdamW.Config: the class around it is the optimizer
        settings["optimizer"] = outer.rpartition(".")[2]
    return settings


def _default(optimizer: str, rate: str, what: str, watch: Watch) -> float:
    """Torch's own default, which torchtitan takes for what an entry leaves out."""
    cls = getattr(torch.optim, optimizer, None)
    parameters = inspect.signature(cls).parameters if isinstance(cls, type) else {}
    parameter = parameters.get(rate)
    if parameter is None or not isinstance(parameter.default, float | int):
        raise ConfigError(
            f"{what} has no {rate}, and there is no torch.optim.{optimizer} with a default "
            "for it. Entries inherit nothing: write it.",
            key=rate,
        )
    default = float(parameter.default)
    cause = f"{what} has no {rate} and gets {default:g}, the default of {optimizer}"
    finding = warning if default else note
    watch.noted.append(finding("class-default", (), cause, "Entries inherit nothing: write it."))
    return default


@dataclass(frozen=True, repr=False, eq=False)
class Titan(Imported):
    """torchtitan's rules; made by :func:`torchtitan`."""

    entries: Sequence[Entry]

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The first entry's factor; nothing for frozen parameters."""
        claims = self._claims(model)
        if unused := claims.unused():
            at, count = next(iter(unused.items()))
            pattern = claims.patterns[at]
            names = [param.name for param in model.params if param.requires_grad]
            segments = dict.fromkeys(chain(*(name.split(".") for name in names)))
            hint = nearest_hint(pattern.strip(".*$^"), segments)
            why = f"it matches no trainable parameter.{hint and f' {hint}'} Fix the pattern"
            if count:
                size = plural(count, "parameter")
                why = f"all it matches ({size}) is claimed by earlier entries. Move it up"
            raise PatternError(
                f"entry {at} {pattern!r} has nothing to claim in {model.label}: {why} or take "
                "it out.",
                pattern=pattern,
                nearest=[],
            )
        missing = [
            param.name
            for param, matching in zip(model.params, claims.matching, strict=True)
            if param.requires_grad and not matching
        ]
        if missing:
            raise CoverageError(
                f"No entry claims {plural(len(missing), 'trainable parameter')} of "
                f"{model.label}: {listed(missing)}.\n"
                "  Add an entry for them, or end the list with the pattern '.*'.",
                names=missing,
            )
        factors = []
        for matching in claims.matching:
            entries = [self.entries[at] for at in matching]
            # ".*" matches everything: that it is hidden tells nothing.
            patterns = [entry.pattern.pattern for entry in entries[1:]]
            hidden = tuple(f"entry {pattern!r}" for pattern in patterns if pattern != ".*")
            factors.append(replace(entries[0].factor, shadowed=hidden) if entries else NEUTRAL)
        return factors

    def _claims(self, model: ModelInfo) -> Claims:
        """The entries whose patterns are found in each parameter's name."""
        tests = [(entry.pattern.pattern, entry.pattern.search) for entry in self.entries]
        claims = Claims.of("entry", tests, (param.name for param in model.params))
        pairs = zip(model.params, claims.matching, strict=True)
        trainable = [matching if param.requires_grad else () for param, matching in pairs]
        return replace(claims, matching=trainable)

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Defaults taken, and patterns for a number that are found in longer numbers."""
        claimed = []
        for param, at in zip(model.params, self._claims(model).first, strict=True):
            pattern = self.entries[at].pattern if at is not None else None
            # Words are searched for on purpose: "norm" is meant to be in "norm1" too.
            if pattern and pattern.pattern[-1:].isdigit():
                claimed.append((pattern.pattern, param.name, pattern.finditer(param.name)))
        return [*self.watch.noted, *cut_names("pattern", claimed)]
