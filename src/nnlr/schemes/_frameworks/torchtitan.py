"""torchtitan's parameter groups: ordered entries of (pattern, optimizer and its settings).

The first pattern that is found anywhere in a parameter's name claims it, and the entry says
everything: rates are absolute and nothing is inherited.

    lr(p) = entry.lr,   weight_decay(p) = entry.weight_decay

After ``torchtitan.components.optimizer`` (PyTorch torchtitan).
"""

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

import torch

from nnlr._arguments import number, options
from nnlr._declare.factor import NEUTRAL, Factor
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding
from nnlr._model.describe import ModelInfo
from nnlr._text import listed, plural, shown
from nnlr.errors import ConfigError, CoverageError, PatternError
from nnlr.schemes._frameworks.claims import (
    Imported,
    Watch,
    compiled,
    cut_names,
    is_whole,
    like_mapping,
    mapping,
)

_OWN: Final = ("pattern", "optimizer", "optimizer_name", "optimizer_kwargs")

_RATES: Final = ("lr", "weight_decay")


@dataclass(frozen=True)
class Entry:
    """One entry of the list: a pattern and what it sets."""

    pattern: re.Pattern[str]
    factor: Factor

    def __str__(self) -> str:
        return repr(self.pattern.pattern)


def torchtitan(param_groups: Iterable[object], *, strict: bool = True) -> Scheme:
    """The ordered list of torchtitan's parameter groups.

    An entry is a mapping with ``pattern``, ``lr``, ``weight_decay``, other settings of the
    group, and the ``optimizer``'s name; or torchtitan's own object, that of older versions
    (``ParamGroupConfig`` with ``optimizer_name`` and ``optimizer_kwargs``) or of newer ones
    (``AdamW.Config``). Entries for more than one optimizer tag the parameters with its name.

    As rates are absolute, those of ``resolve`` are only what all multipliers refer to: pass
    the rates of the last, broadest entry.

    Args:
        param_groups: The entries; the first whose pattern is found in a name claims it.
        strict: Refuse an entry without ``lr`` or ``weight_decay``, and misspelt settings.
            With ``False`` torch's own default for that optimizer is taken, as in torchtitan,
            and there is a finding.

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
    listed_up = isinstance(param_groups, Iterable) and not isinstance(param_groups, str)
    if not listed_up or like_mapping(param_groups):
        raise ConfigError(f"torchtitan needs a list of entries, got {shown(param_groups)}.")
    given = list(param_groups)
    entries = [_entry(item, at, watch) for at, item in enumerate(given)]
    if not entries:
        raise ConfigError("torchtitan needs at least one entry.")
    if len({entry.factor.tag for entry in entries}) == 1:  # nothing to tell apart
        entries = [replace(e, factor=replace(e.factor, tag=None)) for e in entries]
    return Titan(entries, watch, given)


def _entry(item: object, at: int, watch: Watch) -> Entry:
    what = f"entry {at}"
    given = _settings(item, what)
    pattern = compiled(given.get("pattern"), f"pattern of {what}")
    what = f"entry {at} {pattern.pattern!r}"
    optimizer = given.get("optimizer", given.get("optimizer_name", "AdamW"))
    if not isinstance(optimizer, str):
        raise ConfigError(f"optimizer of {what} must be a name, got {shown(optimizer)}.")
    inner = mapping(given.get("optimizer_kwargs", {}), f"optimizer_kwargs of {what}")
    settings = {k: v for k, v in given.items() if k not in _OWN}
    settings |= inner
    dropped = watch.misspelt(settings, _RATES, what)
    for rate in _RATES:
        if rate not in settings:
            settings[rate] = _default(optimizer, rate, what, watch)
    rest = {k: v for k, v in settings.items() if k not in {*_RATES, *dropped}}
    factor = Factor(
        lr=number(settings["lr"], f"lr of {what}"),
        weight_decay=number(settings["weight_decay"], f"weight_decay of {what}"),
        options=options(rest, what),
        tag=optimizer,
        why=what,
    )
    return Entry(pattern, factor)


def _settings(item: object, what: str) -> dict[str, Any]:
    """What an entry sets, as a dict."""
    if like_mapping(item):
        return mapping(item, what)
    if not is_dataclass(item) or isinstance(item, type):
        raise ConfigError(
            f"{what} must be a mapping or one of torchtitan's own objects, got "
            f"{shown(item, typed=True)}."
        )
    given = {field.name: getattr(item, field.name) for field in fields(item)}
    # torchtitan's own word for torch's way
    if given.get("moment_dtype") == "parameter":
        del given["moment_dtype"]
    # AdamW.Config: the class around it is the optimizer
    *_, owner, name = ("", *type(item).__qualname__.split("."))
    if name == "Config":
        given["optimizer"] = owner
    return given


def _default(optimizer: str, rate: str, what: str, watch: Watch) -> float:
    """Torch's own default, which torchtitan takes for what an entry leaves out."""
    cls = getattr(torch.optim, optimizer, None)
    known = inspect.signature(cls).parameters if isinstance(cls, type) else {}
    parameter = known.get(rate)
    if parameter is None or not isinstance(parameter.default, float | int):
        raise ConfigError(
            f"{what} has no {rate}, and there is no torch.optim.{optimizer} with a default "
            "for it. Entries inherit nothing: write it.",
            key=rate,
        )
    default = float(parameter.default)
    cause = f"{what} has no {rate} and gets {default:g}, the default of {optimizer}"
    watch.refuse("class-default", rate, cause, "Entries inherit nothing: write it.")
    return default


class Titan(Imported):
    """torchtitan's rules; made by :func:`torchtitan`."""

    def __init__(self, entries: Sequence[Entry], watch: Watch, given: object) -> None:
        super().__init__(watch, torchtitan, given)
        self.entries = entries

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The first entry's factor; nothing for frozen parameters."""
        claims = self._claims(model)
        self._check(claims, model)
        known = {hits: self._factor(hits) if hits else NEUTRAL for hits in set(claims)}
        return [known[hits] for hits in claims]

    def _claims(self, model: ModelInfo) -> list[tuple[int, ...]]:
        """For each parameter the entries that match, the first of which claims it."""
        return [
            tuple(at for at, entry in enumerate(self.entries) if entry.pattern.search(param.name))
            if param.requires_grad
            else ()
            for param in model.params
        ]

    def _factor(self, hits: Sequence[int]) -> Factor:
        first, *later = (self.entries[at] for at in hits)
        # ".*" matches everything: no news.
        rest = tuple(f"entry {entry}" for entry in later if entry.pattern.pattern != ".*")
        return replace(first.factor, shadowed=rest)

    def _check(self, claims: Sequence[tuple[int, ...]], model: ModelInfo) -> None:
        used = {hits[0] for hits in claims if hits}
        for at, entry in enumerate(self.entries):
            if at in used:
                continue
            lost = [hits for hits in claims if at in hits]
            taken = plural(len(lost), "parameter")
            why = (
                f"all it matches ({taken}) is claimed by earlier entries. Move it up"
                if lost
                else "it matches no trainable parameter. Fix the pattern"
            )
            raise PatternError(
                f"entry {at} {entry} has nothing to claim in {model.label}: {why} or take it out.",
                pattern=entry.pattern.pattern,
                nearest=[],
            )
        missing = [
            param.name
            for param, hits in zip(model.params, claims, strict=True)
            if param.requires_grad and not hits
        ]
        if missing:
            raise CoverageError(
                f"No entry claims {plural(len(missing), 'trainable parameter')} of "
                f"{model.label}: {listed(missing)}.\n"
                "  Add an entry for them, or end the list with the pattern '.*'.",
                names=missing,
            )

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Defaults taken, and patterns for a number that are found in longer numbers."""
        hits: dict[str, dict[str, bool]] = {}
        for param, matching in zip(model.params, self._claims(model), strict=True):
            pattern = self.entries[matching[0]].pattern if matching else None
            # Words are searched for on purpose: "norm" is meant to be in "norm1" too.
            if pattern and pattern.pattern[-1:].isdigit():
                whole = is_whole(param.name, pattern.finditer(param.name))
                hits.setdefault(pattern.pattern, {})[param.name] = whole
        return [*self.watch.noted, *cut_names(hits, "pattern")]
