"""What the importers of other frameworks' configurations share.

A framework silently accepts many mistakes: a misspelt key, a pattern that matches nothing. Here
they are errors, or findings where the user asks for leniency with ``strict=False``.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any, cast

from nnlr._arguments import Written, as_call, flag
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Slot
from nnlr._model.scopes import module_class
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError, NnlrError, PatternError

# Multipliers in one framework or another; no optimizer reads them from a group.
MULTIPLIERS = frozenset({"lr_mult", "wd_mult", "decay_mult", "lr_scale"})


class Watch:
    """Raises for what the framework silently accepts, or records a finding in ``noted``."""

    def __init__(self, framework: str, *, strict: bool) -> None:
        self.framework = framework
        self.strict = flag(strict, "strict")
        self.noted: list[Finding] = []

    def refuse(self, kind: str, key: str, cause: str, fix: str) -> None:
        """Raise, or record a finding if not strict."""
        if self.strict:
            raise ConfigError(
                f"{cause}; {self.framework} itself passes over that.\n"
                f"  {fix} strict=False makes a finding of it.",
                key=key,
            )
        self.noted.append(warning(kind, (), cause, fix))

    def misspelt_keys(
        self, keys: Iterable[str], readable: Collection[str], what: str, cutoff: float = 0.75
    ) -> Collection[str]:
        """Refuse keys that look almost like readable ones, or return them if not strict."""
        # Optimizers have settings such as decoupled_weight_decay, which is 0.71 alike, and
        # decay_rate (0.7); typing errors are 0.8 and more.
        misspelt = [
            key
            for key in keys
            if key not in readable
            and (key in MULTIPLIERS or get_close_matches(key, readable, cutoff=cutoff))
        ]
        for key in misspelt:
            cause = f"{what} has the key {key!r}, which does nothing"
            self.refuse("misspelt-key", key, cause, key_hint(key, readable))
        return misspelt

    def call(self, function: Callable[..., Scheme], *args: object, **kwargs: object) -> Written:
        """The call that a user would write; a copy, as configurations may change later."""
        return deepcopy(as_call(function, *args, **kwargs, strict=self.strict))


def key_hint(key: str, readable: Collection[str]) -> str:
    """The most similar readable key, or else all of them."""
    return nearest_hint(key, readable) or f"Known: {', '.join(readable)}."


@dataclass(frozen=True)
class Claims:
    """Which of some ordered patterns match each parameter; the first one claims it."""

    what: str  # what messages call a pattern: "custom key"
    patterns: Sequence[str]  # as messages show them, in order
    matching: Sequence[tuple[int, ...]]  # for each parameter the positions of its patterns
    matching_aliases: frozenset[int] = frozenset()  # the patterns that match any other name

    @classmethod
    def of(
        cls,
        what: str,
        tests: Sequence[tuple[str, Callable[[str], object]]],
        names: Iterable[str],
        aliases: Iterable[str] = (),
    ) -> "Claims":
        """Try each pattern, given with its test, on each name."""

        def positions(name: str) -> tuple[int, ...]:
            return tuple(at for at, (_, test) in enumerate(tests) if test(name))

        matching_aliases = frozenset(chain.from_iterable(map(positions, aliases)))
        patterns = [pattern for pattern, _ in tests]
        return cls(what, patterns, list(map(positions, names)), matching_aliases)

    @property
    def first(self) -> list[int | None]:
        """For each parameter the position of the pattern that claims it."""
        return [matches[0] if matches else None for matches in self.matching]

    def unused(self) -> dict[int, int]:
        """The position of each pattern that claims nothing -> how many parameters it matches."""
        first = set(self.first)
        return {
            at: sum(at in matches for matches in self.matching)
            for at in range(len(self.patterns))
            if at not in first
        }

    def check(
        self,
        watch: Watch,
        model: ModelInfo,
        names: Iterable[str] | None = None,
        excused: Collection[str] = (),
        hint: Callable[[str], str] | None = None,
    ) -> list[Finding]:
        """Refuse patterns that match no name, or only what earlier ones claim.

        ``hint`` gives a sentence on a pattern that is like no name of this model.
        """
        findings = []
        for at, count in self.unused().items():
            pattern = self.patterns[at]
            if pattern in excused:
                continue
            if count or at in self.matching_aliases:
                cause = f"{self.what} {pattern!r} has no effect on {model.label}"
                fix = "All it matches is claimed by others or tied to another name."
            else:
                size = plural(len(model.params), "parameter")
                cause = f"{self.what} {pattern!r} matches no parameter of {model.label} ({size})"
                names = list(dict.fromkeys(model.spellings[0] if names is None else names))
                segments = chain(*(re.split("[./]", name) for name in names[:2000]), names[:2000])
                fix = nearest_hint(pattern.strip(".*$^"), dict.fromkeys(segments))
                if containing := [name for name in names if pattern in name]:
                    fix = f"It must match a whole name, such as {containing[0]}."
                fix = fix or (hint(pattern) if hint else "")
                fix = fix or f"Names there: {listed(names, 3)}."
            if watch.strict:
                raise PatternError(
                    f"{cause}.\n  {fix}\n"
                    "  Fix it or take it out; strict=False makes a finding of it.",
                    pattern=pattern,
                    nearest=[],
                )
            findings.append(warning("no-effect", (), cause, fix))
        return findings


def cut_names(
    what: str, claimed: Iterable[tuple[str, str, Iterable[re.Match[str]]]]
) -> list[Finding]:
    """Point out patterns that match whole segments of some names and parts in others.

    Each of ``claimed`` is a pattern, a name that it claims, and its matches in that name.
    """
    whole: dict[str, list[str]] = {}
    cut: dict[str, list[str]] = {}
    for pattern, name, matches in claimed:
        (whole if is_whole(matches) else cut).setdefault(pattern, []).append(name)
    findings = []
    for pattern in filter(cut.__contains__, whole):
        cause = (
            f"{what} {pattern!r} matches whole segments of names such as {whole[pattern][0]}, "
            "and parts of segments elsewhere"
        )
        fix = "If these are not meant, let the pattern end with a dot."
        finding = warning if pattern[-1:].isdigit() else note
        findings.append(finding("segment-cut", cut[pattern], cause, fix))
    return findings


def is_whole(matches: Iterable[re.Match[str]]) -> bool:
    """Whether one of the matches begins and ends where segments of the name do.

    Examples:
        >>> name = "blocks.10.weight"
        >>> [is_whole(re.finditer(p, name)) for p in ("10", "weight", "blocks.1")]
        [True, True, False]
    """

    def is_edge(name: str, at: int) -> bool:
        return at in {0, len(name)} or "." in name[at - 1 : at + 1]

    return any(all(is_edge(match.string, at) for at in match.span()) for match in matches)


@dataclass(frozen=True, repr=False, eq=False)
class Imported(Scheme):
    """A scheme made from another framework's configuration."""

    watch: Watch  # what was noted about the configuration itself
    _call: Written | str  # by Watch.call; in pickles of version 0.1 its text

    def written_as(self) -> Written:
        """The call that made it."""
        return self._call if isinstance(self._call, Written) else Written(self._call)

    def __repr__(self) -> str:
        """The call that made it, without its arguments if these are long."""
        call = str(self._call)
        # Every trace entry names the scheme: a long configuration would drown it.
        is_short = len(call) <= 60 and "\n" not in call
        return call if is_short else f"{call.partition('(')[0]}(...)"

    def slots(self, model: ModelInfo) -> list[Slot]:
        """The first place of each parameter, which decides where it is tied."""
        if model.module is None:
            raise NnlrError(
                f"{self.watch.framework} looks at the classes of modules: resolve the model "
                "itself, not its bare tensors."
            )
        return [places[0] for places in model.places]


def like_mapping(value: object) -> bool:
    """Whether ``dict`` would take it: ``ConfigDict`` of ml_collections is no ``Mapping``."""
    return hasattr(value, "keys") and not isinstance(value, type)


def mapping(value: object, what: str) -> dict[str, Any]:
    """Return a mapping with strings as keys as a dict, or refuse it."""
    try:
        settings: Any = dict(cast("Mapping[str, Any]", value)) if like_mapping(value) else None
    except (TypeError, ValueError):  # its keys are no list
        settings = None
    if settings is None:
        raise ConfigError(f"{what} must be a mapping, got {shown(value, typed=True)}.")
    if strays := [key for key in settings if not isinstance(key, str)]:
        raise ConfigError(f"{what} has the key {shown(strays[0])}, which is no string.")
    return cast("dict[str, Any]", settings)


def optional(value: object, what: str) -> dict[str, Any]:
    """Return a mapping as :func:`mapping` does, and an empty dict for ``None``."""
    return {} if value is None else mapping(value, what)


def compiled(pattern: object, what: str) -> re.Pattern[str]:
    """Return a regular expression, compiled, or refuse it."""
    if not isinstance(pattern, str):
        raise ConfigError(f"{what} must be a string, got {shown(pattern, typed=True)}.")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{what} {pattern!r} is no regular expression: {error}.") from None


def inside(slot: Slot, classes: tuple[type, ...]) -> bool:
    """Whether a parameter belongs directly to a module of one of these classes."""
    return slot.module is not None and issubclass(module_class(slot.module), classes)


def dotted(name: str) -> str:
    """The name as the frameworks join it from path and leaf: at the root with a dot.

    Examples:
        >>> dotted("cls_token"), dotted("fc.weight")
        ('.cls_token', 'fc.weight')
    """
    return name if "." in name else f".{name}"


def unreached_norms(model: ModelInfo, classes: tuple[type, ...], setting: str) -> list[Finding]:
    """Point out normalisation layers whose classes the framework does not know."""
    names = [
        param.name
        for param, places in zip(model.params, model.places, strict=True)
        if param.role == "norm" and not inside(places[0], classes)
    ]
    if not names:
        return []
    cause = f"{setting} does not reach norm layers of other classes than torch's own"
    fix = "To exempt them as well, multiply with nnlr.no_weight_decay()."
    return [warning("norm-not-reached", names, cause, fix)]
