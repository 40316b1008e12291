"""big_vision's multipliers: ordered lists of (pattern, value), the first match counts.

    p -= s(t) * (lr * lr_mult * update + wd * wd_mult * p)

Its weight decay knows neither ``lr`` nor ``lr_mult``. AdamW shrinks by ``lr * weight_decay``,
so the same numbers come from ``resolve(lr=lr, weight_decay=wd / lr)`` and

    lr_mult(p) = m * lr_mult,   wd_mult(p) = wd_mult / lr_mult

with ``m`` the ``mult`` of the parameter's schedule. Schedules of different shapes are courses of
groups, each parameter in the groups of its schedule. After ``big_vision/optax.py`` (Beyer, Zhai,
Kolesnikov 2022, https://github.com/google-research/big_vision).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from torch.optim.lr_scheduler import LambdaLR

from nnlr._arguments import is_listing, number, text, whole
from nnlr._declare.factor import Factor
from nnlr._findings import Finding, note
from nnlr._model.describe import ModelInfo, ParamInfo
from nnlr._text import listed, plural, shown
from nnlr.errors import ConfigError, CoverageError, NnlrError
from nnlr.schemes._frameworks.big_vision_course import as_schedule, course_of, ends_above_zero
from nnlr.schemes._frameworks.claims import (
    Claims,
    Imported,
    Watch,
    compiled,
    like_mapping,
    mapping,
)

Naming = Callable[[ParamInfo], str]

WD_MULTS: Final = ((".*/kernel$", 1.0),)

# What the scheme reads of a whole configuration.
_READ: Final = ("lr_mults", "wd_mults", "schedule")

# What Flax calls a layer's weight, by role.
_LAYERS: Final = frozenset(["matrix", "conv", "head", "router", "lora_a", "lora_b", "adapter"])

_WEIGHTS: Final = {
    **dict.fromkeys(_LAYERS, "kernel"),
    "norm": "scale",
    "gain": "scale",
    "embedding": "embedding",
    "position": "embedding",
    "token": "embedding",
}


def flax_name(param: ParamInfo) -> str:
    """A parameter's name as Flax would spell it.

    Dots become slashes. The weights of linear maps and convolutions end in ``kernel``,
    whatever torch calls them, those of norms in ``scale``, tables of ``nn.Embedding`` in
    ``embedding``, and biases in ``bias``. Raw parameters keep their names.

    Examples:
        >>> from torch import nn
        >>> from nnlr._model.describe import describe
        >>> net = nn.Sequential(nn.MultiheadAttention(2, 1), nn.LayerNorm(2))
        >>> [flax_name(param) for param in describe(net).params][:3]
        ['0/in_proj/kernel', '0/in_proj/bias', '0/out_proj/kernel']
        >>> flax_name(describe(net).params[4])
        '1/scale'
    """
    leaf, kind = param.leaf, None
    if leaf == "weight":
        kind = _WEIGHTS.get(param.role, leaf)
    elif param.role in _LAYERS:
        kind = "kernel"
    elif param.role == "bias" and "bias" in leaf:
        kind = "bias"
    if kind is None:
        return param.name.replace(".", "/")
    stem = re.sub(f"weight|bias|^{kind}$", "", leaf).strip("_")
    return "/".join(filter(None, (*param.owner.split("."), stem, kind)))


@dataclass(frozen=True)
class Patterns:
    """An ordered list of patterns."""

    what: str  # the argument's name
    members: tuple[re.Pattern[str], ...]
    written: bool = True  # by the user; a default may match nothing


def big_vision(
    lr_mults: Iterable[tuple[str, float]] | Mapping[str, Any] | None = None,
    wd_mults: Iterable[tuple[str, float]] | None = None,
    *,
    schedule: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    name_of: Naming = flax_name,
    strict: bool = True,
) -> "BigVision":
    """big_vision's ``lr_mults``, ``wd_mults``, schedules and frozen parameters.

    Pass ``resolve(..., lr=config.lr, weight_decay=config.wd / config.lr)`` and use an
    optimizer with decoupled decay (AdamW, or SGD without momentum): then every step shrinks
    a weight by ``wd * wd_mult`` times the schedule, whatever its ``lr_mult``. The schedules are
    those of ``nnlr.schedule(optimizer, scheme.courses(total_steps=...))``.

    Args:
        lr_mults: ``[(pattern, factor > 0)]``. A parameter that none matches has 1. Or a whole
            configuration, of which ``lr_mults``, ``wd_mults`` and ``schedule`` are read.
        wd_mults: ``[(pattern, factor >= 0)]``. A parameter that none matches has 0. ``None``
            stands for big_vision's own ``[(".*/kernel$", 1.0)]``.
        schedule: A schedule for all, or ``[(pattern, schedule)]`` that covers every
            parameter. ``None`` as a schedule freezes. Those that differ in more than ``mult``
            keep their parameters in groups of their own.
        name_of: From a described parameter to the name that patterns are compared with.
        strict: Refuse patterns without effect and misspelt settings of schedules, which
            big_vision passes over in silence. With ``False`` they are findings.

    Raises:
        ConfigError: If a list or schedule is malformed, or a pattern starts with a slash.
        PatternError: At resolve, if a pattern has no effect.
        CoverageError: At resolve, if ``schedule`` leaves parameters out.

    Examples:
        >>> import nnlr
        >>> from torch import nn
        >>> net = nn.ModuleDict({"trunk": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> scheme = big_vision([("trunk/.*", 0.1)])
        >>> plan = nnlr.resolve(net, scheme, lr=1e-3, weight_decay=1e-4 / 1e-3)
        >>> [round(row.lr * row.weight_decay, 9) for row in plan]
        [0.0001, 0.0, 0.0001, 0.0]
    """
    watch = Watch("big_vision", strict=strict)
    config = mapping(lr_mults, "the configuration") if like_mapping(lr_mults) else {}
    if {"lr", "wd", *_READ} & config.keys():
        if wd_mults is not None or schedule is not None:
            raise ConfigError("Pass a whole configuration, or its parts; not both.")
        # Configurations have names of their own, such as schedule_base, which is 0.76 alike.
        watch.misspelt_keys(config, _READ, "the configuration", cutoff=0.85)
        lr_mults, wd_mults, schedule = map(config.get, _READ)
    lr_mults, wd_mults, schedule = map(_reusable, (lr_mults, wd_mults, schedule))
    if not callable(name_of):
        raise ConfigError(f"name_of must be a function of ParamInfo, got {shown(name_of)}.")
    decays = WD_MULTS if wd_mults is None else wd_mults
    lr_patterns, lr_values = _pairs([] if lr_mults is None else lr_mults, "lr_mults")
    wd_patterns, wd_values = _pairs(decays, "wd_mults", written=wd_mults is not None)
    everywhere = schedule is None or like_mapping(schedule)
    pairs = [(".*", {} if schedule is None else schedule)] if everywhere else schedule
    when, schedules = _pairs(pairs, "schedule", written=not everywhere)
    try:
        lr_values = [
            number(value, f"{pattern.pattern!r} of lr_mults", above=0)
            for pattern, value in zip(lr_patterns.members, lr_values, strict=True)
        ]
    except NnlrError as error:
        frozen = " To freeze, pass schedule=[(pattern, None), ...]." if error.value == 0 else ""
        raise ConfigError(f"{error}{frozen}", value=error.value) from None
    wd_values = [
        number(value, f"{pattern.pattern!r} of wd_mults")
        for pattern, value in zip(wd_patterns.members, wd_values, strict=True)
    ]
    schedules = [as_schedule(item, watch) for item in schedules]
    peaks = [0.0 if item is None else float(item.get("mult", 1.0)) for item in schedules]
    settings = {"lr_mults": lr_mults, "wd_mults": wd_mults, "schedule": schedule}
    call = watch.call(big_vision, **settings, name_of=name_of)
    tables = (lr_patterns, lr_values), (wd_patterns, wd_values), (when, peaks)
    return BigVision(watch, call, tables, name_of, schedules)


def _reusable(pairs: Any) -> Any:  # noqa: ANN401 - checked when it is read
    """The pairs of an iterator as a list; anything else as it is."""
    return list(pairs) if isinstance(pairs, Iterator) else pairs


def _pairs(pairs: object, what: str, *, written: bool = True) -> tuple[Patterns, list[Any]]:
    """The patterns of a list of pairs, and their values."""
    if like_mapping(pairs) or not is_listing(pairs):
        raise ConfigError(f"{what} must be a list of (pattern, value) pairs, got {shown(pairs)}.")
    patterns, values = [], []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ConfigError(f"{what} must hold (pattern, value) pairs, got {shown(pair)}.")
        pattern = compiled(pair[0], f"pattern of {what}")
        if pattern.pattern.startswith("/"):
            raise ConfigError(
                f"pattern {pattern.pattern!r} of {what} starts with a slash; names do not. "
                "Drop it.",
                key=pattern.pattern,
            )
        patterns.append(pattern)
        values.append(pair[1])
    return Patterns(what, tuple(patterns), written), values


def _group_names(schedules: Sequence[Mapping[str, Any] | None]) -> list[str | None]:
    """A name for the groups of each schedule; none where one course does for all."""
    # A course follows another by a constant factor unless both end at one absolute value.
    shapes = [
        None
        if schedule is None
        else {k: v for k, v in schedule.items() if k != "mult" or ends_above_zero(schedule)}
        for schedule in schedules
    ]
    distinct = [shape for at, shape in enumerate(shapes) if shape not in [None, *shapes[:at]]]
    if len(distinct) < 2:
        return [None] * len(schedules)
    return [None if shape is None else f"schedule{shapes.index(shape)}" for shape in shapes]


@dataclass(frozen=True, repr=False, eq=False)
class BigVision(Imported):
    """big_vision's rules; made by :func:`big_vision`."""

    # The patterns and values of lr_mults, wd_mults and schedule.
    tables: Sequence[tuple[Patterns, list[float]]]
    name_of: Naming
    schedules: Sequence[Mapping[str, Any] | None] = ()  # not in pickles of version 0.1

    @property
    def group_names(self) -> list[str | None]:
        """The name of the group of each schedule."""
        return _group_names(self.schedules) or [None] * len(self.tables[2][1])

    def courses(
        self,
        *,
        total_steps: int,
        batch_size: int | None = None,
        data_size: int | None = None,
    ) -> dict[str, Callable[..., LambdaLR]]:
        """The schedules for ``nnlr.schedule``: by patterns of group names.

        Args:
            total_steps: The steps of the run, >= 1.
            batch_size: Examples in a step: for durations in examples or epochs, and for
                ``scale_with_batchsize``.
            data_size: Examples in an epoch: for durations in epochs.

        Raises:
            ConfigError: If a duration needs a size that is not given, a warm-up fills the whole
                run, or everything is frozen.

        Examples:
            >>> import nnlr, torch
            >>> net = torch.nn.ModuleDict({name: torch.nn.Linear(1, 1) for name in ("img", "txt")})
            >>> scheme = big_vision(schedule=[
            ...     ("img/.*", {"decay_type": "cosine"}), (".*", {"warmup_steps": 4})])
            >>> plan = nnlr.resolve(net, scheme, lr=1.0, weight_decay=0)
            >>> optimizer = plan.optimizer(torch.optim.SGD)
            >>> scheduler = nnlr.schedule(optimizer, scheme.courses(total_steps=10))
            >>> {group["name"]: group["lr"] for group in optimizer.param_groups}
            {'schedule0': 1.0, 'schedule1': 0.0}
        """
        whole(total_steps, "total_steps", minimum=1)
        sizes = {"batch_size": batch_size, "data_size": data_size}
        for what, size in sizes.items():
            if size is not None:
                whole(size, what, minimum=1)
        courses: dict[str, Callable[..., LambdaLR]] = {}
        pairs = zip(self.group_names, self.schedules, strict=True)
        for name, schedule in reversed([*pairs]):  # schedule1* is in schedule10 too
            if schedule is not None:
                course = course_of(schedule, total_steps=total_steps, **sizes)
                courses[f"{name or ''}*"] = partial(LambdaLR, lr_lambda=course)
        if not courses:
            raise ConfigError("Every schedule is None: nothing is trained.")
        return courses

    def factors(self, model: ModelInfo) -> Sequence[Factor]:
        """The product of the first match of each list."""
        claims, _ = self._claims(model)
        first = list(zip(*(claim.first for claim in claims), strict=True))
        pairs = zip(model.params, first, strict=True)
        missing = [param.name for param, (*_, schedule) in pairs if schedule is None]
        if missing:
            raise CoverageError(
                f"schedule leaves out {plural(len(missing), 'parameter')} of "
                f"{model.label}: {listed(missing)}.\n"
                "  Add a pattern for them; (pattern, None) freezes.",
                names=missing,
            )
        return list(map(self._factor, first))

    def _claims(self, model: ModelInfo) -> tuple[list[Claims], list[Finding]]:
        """Which patterns of each list match all of a name, and findings on those of the user."""
        names = [text(self.name_of(param), "what name_of returns") for param in model.params]
        claims, findings = [], []
        for patterns, _ in self.tables:
            tests = [(pattern.pattern, pattern.fullmatch) for pattern in patterns.members]
            claims.append(Claims.of(f"{patterns.what} pattern", tests, names))
            if patterns.written:
                findings += claims[-1].check(self.watch, model, names)
        return claims, findings

    def _factor(self, first: Sequence[int | None]) -> Factor:
        """The factor for the position of the first match in each list."""
        mults, reasons = [1.0, 0.0, 1.0], []
        for index, (at, (patterns, values)) in enumerate(zip(first, self.tables, strict=True)):
            if at is not None:
                mults[index] = values[at]
                if patterns.written:
                    reasons.append(f"{patterns.what} {patterns.members[at].pattern!r}")
        if first[1] is None:
            reasons.append("no wd_mults")
        lr_mult, wd_mult, schedule_mult = mults
        return Factor(
            lr_mult=schedule_mult * lr_mult,
            wd_mult=wd_mult / lr_mult,
            group=None if first[2] is None else self.group_names[first[2]],
            why=", ".join(reasons),
            compensates_decay=True,
        )

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """Patterns without effect, and a default that decays nothing."""
        claims, on_patterns = self._claims(model)
        findings = [*self.watch.noted, *on_patterns]
        if not self.tables[1][0].written and not any(claims[1].matching):
            names = map(self.name_of, model.params[:5])
            cause = "big_vision's default decays only what is called .../kernel, so nothing"
            findings.append(note("no-decay", names, cause, "Pass wd_mults."))
        return findings
