"""What the importers of other frameworks' configurations share.

A framework passes over many mistakes in silence: a misspelt key, a pattern that matches
nothing. Here they are errors, or findings where the user asks for the original's leniency.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import chain
from typing import Any, cast

from nnlr._arguments import as_call, flag
from nnlr._declare.scheme import Scheme
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.names import Slot
from nnlr._model.scopes import module_class
from nnlr._text import listed, nearest_hint, plural, shown
from nnlr.errors import ConfigError, NnlrError, PatternError

# A trace names the scheme in every entry: a long configuration is left out there.
_LONGEST_CALL = 60

# How alike a key is to a known one that only looks like it. Optimizers have settings such as
# decoupled_weight_decay (0.71) and decay_rate (0.7); slips of the pen are 0.8 and more.
_ALIKE = 0.75

# Factors in one framework or another; no optimizer reads them from a group.
_MULTIPLIERS = frozenset({"lr_mult", "wd_mult", "decay_mult", "lr_scale"})


class Watch:
    """Refuses what the framework passes over in silence, or notes it.

    Args:
        framework: Its name, for messages.
        strict: Whether to refuse.
    """

    def __init__(self, framework: str, *, strict: bool) -> None:
        self.framework = framework
        self.strict = flag(strict, "strict")
        self.noted: list[Finding] = []

    def refuse(self, kind: str, name: str, cause: str, fix: str) -> None:
        """Raise, or note it if the user asked for leniency.

        Raises:
            ConfigError: If strict.
        """
        if self.strict:
            raise ConfigError(
                f"{cause}; {self.framework} itself passes over that.\n"
                f"  {fix} strict=False makes a finding of it.",
                key=name,
            )
        self.noted.append(warning(kind, (), cause, fix))

    def known(self, given: Iterable[object], known: Collection[str], what: str) -> None:
        """Refuse the keys that the framework does not read."""
        for key in given:
            if key not in known:
                hint = _known_hint(str(key), known)
                cause = f"{what} has the unknown key {shown(key)}"
                self.refuse("unknown-key", str(key), cause, hint)

    def misspelt(self, given: Iterable[str], known: Collection[str], what: str) -> set[str]:
        """Refuse keys that only look like known ones; all others may be settings.

        Multipliers under the name that another framework has for them count as misspelt.

        Returns:
            The misspelt keys, if that is no error.
        """
        found = set()
        for key in given:
            alike = key in _MULTIPLIERS or get_close_matches(key, known, cutoff=_ALIKE)
            if key not in known and alike:
                cause = f"{what} has the key {key!r}, which does nothing"
                self.refuse("misspelt-key", key, cause, _known_hint(key, known))
                found.add(key)
        return found

    def must_act(
        self,
        idle: Mapping[str, bool],
        model: ModelInfo,
        what: str,
        names: Iterable[str] | None = None,
    ) -> list[Finding]:
        """Refuse patterns that match nothing, or only what earlier ones claim.

        Args:
            idle: For each pattern without effect, whether it matches at all.
            model: The model.
            what: What to call such a pattern: ``"custom key"``.
            names: What patterns are compared with, if not the canonical names.

        Raises:
            PatternError: If strict and there is one.
        """
        found = []
        for pattern, matches in idle.items():
            count = plural(len(model.params), "parameter")
            cause = f"{what} {pattern!r} matches no parameter of {model.label} ({count})"
            fix = _hint(pattern, model, names)
            if matches:
                cause = f"{what} {pattern!r} has no effect on {model.label}"
                fix = "All it matches is claimed by others or tied to another name."
            if self.strict:
                raise PatternError(
                    f"{cause}.\n  {fix}\n"
                    "  Fix it or take it out; strict=False makes a finding of it.",
                    pattern=pattern,
                    nearest=[],
                )
            found.append(warning("no-effect", (), cause, fix))
        return found


def _known_hint(key: str, known: Collection[str]) -> str:
    return nearest_hint(key, known) or f"Known: {', '.join(known)}."


def _hint(pattern: str, model: ModelInfo, names: Iterable[str] | None) -> str:
    """What the pattern may have meant, or else what names look like."""
    names = list(dict.fromkeys(model.spellings[0] if names is None else names))
    if parts := [name for name in names if pattern in name]:
        return f"It must match a whole name, such as {parts[0]}."
    segments = (re.split("[./]", name) for name in names[:2000])
    pieces = dict.fromkeys(chain(*segments, names[:2000]))
    nearest = nearest_hint(pattern.strip(".*$^"), pieces)
    return nearest or f"Names there: {listed(names, 3)}."


class Imported(Scheme):
    """A scheme made from another framework's configuration.

    Args:
        watch: What was noted about the configuration itself.
        function: The public function that made it.
        args: Its positional arguments.
        kwargs: Its other arguments.
    """

    def __init__(
        self,
        watch: Watch,
        function: Callable[..., Scheme],
        *args: object,
        **kwargs: object,
    ) -> None:
        self.watch = watch
        call = as_call(function, *args, **kwargs, strict=watch.strict)
        short = len(call) <= _LONGEST_CALL and "\n" not in call
        self._call = call if short else f"{function.__name__}(...)"

    def __repr__(self) -> str:
        return self._call


def like_mapping(value: object) -> bool:
    """Whether ``dict`` would take it: ``ConfigDict`` of ml_collections is no ``Mapping``."""
    return hasattr(value, "keys") and not isinstance(value, type)


def mapping(value: object, what: str) -> dict[str, Any]:
    """Return a mapping with strings as keys as a dict, or refuse what is none.

    Raises:
        ConfigError: If it is something else.
    """
    if not like_mapping(value):
        raise ConfigError(f"{what} must be a mapping, got {shown(value, typed=True)}.")
    given: dict[str, Any] = dict(cast("Mapping[str, Any]", value))
    if strays := [key for key in given if not isinstance(key, str)]:
        raise ConfigError(f"{what} has the key {shown(strays[0])}, which is no string.")
    return given


def compiled(pattern: object, what: str) -> re.Pattern[str]:
    """Return a regular expression, or refuse what is none.

    Raises:
        ConfigError: If it is something else.
    """
    if not isinstance(pattern, str):
        raise ConfigError(f"{what} must be a string, got {shown(pattern, typed=True)}.")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{what} {pattern!r} is no regular expression: {error}.") from None


def with_modules(model: ModelInfo, framework: str) -> Iterator[Slot]:
    """The first place of each parameter, which decides where it is tied.

    Raises:
        NnlrError: If bare tensors were given, of which no module's class can be asked.
    """
    if model.module is None:
        raise NnlrError(
            f"{framework} looks at the classes of modules: resolve the model itself, not "
            "its bare tensors."
        )
    return (places[0] for places in model.places)


def inside(slot: Slot, classes: tuple[type, ...]) -> bool:
    """Whether a parameter hangs directly on a module of one of these classes."""
    return slot.module is not None and issubclass(module_class(slot.module), classes)


def dotted(name: str) -> str:
    """The name as the frameworks join it from path and leaf: at the root with a dot.

    Examples:
        >>> dotted("cls_token"), dotted("fc.weight")
        ('.cls_token', 'fc.weight')
    """
    return name if "." in name else f".{name}"


def unseen_norms(model: ModelInfo, classes: tuple[type, ...], setting: str) -> list[Finding]:
    """Point out normalisation layers whose classes the framework does not know."""
    names = [
        param.name
        for param, places in zip(model.params, model.places, strict=True)
        if param.role == "norm" and not inside(places[0], classes)
    ]
    if not names:
        return []
    cause = f"{setting} does not reach norm layers of other classes than torch's own"
    return [
        warning(
            "norm_not_reached",
            names,
            cause,
            "To exempt them as well, multiply with nnlr.no_weight_decay().",
        )
    ]


def cut_names(hits: Mapping[str, Mapping[str, bool]], what: str) -> list[Finding]:
    """Point out patterns that match whole segments of some names and parts in others.

    Args:
        hits: For each pattern the names that it claims, and whether the match is
            of whole segments.
        what: What to call a pattern.
    """
    found = []
    for pattern, names in hits.items():
        cut = [name for name, whole in names.items() if not whole]
        if cut and len(cut) < len(names):
            whole = next(name for name in names if names[name])
            cause = (
                f"{what} {pattern!r} matches whole segments of names such as {whole}, and "
                "parts of segments elsewhere"
            )
            fix = "If these are not meant, let the pattern end with a dot."
            point_out = warning if pattern[-1:].isdigit() else note
            found.append(point_out("segment_cut", cut, cause, fix))
    return found


def is_whole(name: str, matches: Iterable[re.Match[str]]) -> bool:
    """Whether one of the matches begins and ends where segments do.

    Examples:
        >>> name = "blocks.10.weight"
        >>> [is_whole(name, re.finditer(p, name)) for p in ("10", "weight", "blocks.1")]
        [True, True, False]
    """
    return any(_is_edge(name, match.start()) and _is_edge(name, match.end()) for match in matches)


def _is_edge(name: str, at: int) -> bool:
    return at in {0, len(name)} or "." in name[at - 1 : at + 1]
