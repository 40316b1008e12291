"""A selector that a user writes must match something; if not, say what it may have meant."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import filter as matching
from itertools import islice, product
from math import factorial
from typing import Final, TypeAlias

from nnlr._model.describe import ModelInfo
from nnlr._model.names import PREFIXES
from nnlr._select.selectors import Glob, Indices, Regex, Role, Selector
from nnlr._text import beginnings, listed, plural
from nnlr.errors import PatternError

Guess: TypeAlias = Glob | Regex

_NUMBER: Final = re.compile(r"(?<![^.])\d+(?![^.])")

# Names that a pattern is compared with, at most; the message is for a person who waits.
_LIMIT: Final = 2000

# As plan.table() prints them: {0..5}, {0,2..4}.
_BRACES: Final = re.compile(r"\{([^{}]+)\}")

_RUN: Final = re.compile(r"([0-9]{1,6})\.\.([0-9]{1,6})")

# What is in no glob over names.
_NO_GLOB: Final = re.compile(r"^\.|[\\()|+^$]")

# A regular expression that nobody meant as one may run for years: steps it may take, at most.
_STEPS: Final = 10**8

_OPTIONAL: Final = 12

_REPEAT: Final = re.compile(r"(?<!\\d)[*+{]")

_REPEATED_GROUP: Final = re.compile(r"\)[*+{]")


def must_match(
    selector: Selector, model: ModelInfo, what: str, *, may_be_optional: bool = True
) -> Indices:
    """Positions that a user's selector matches, which must be some.

    Args:
        selector: What the user wrote.
        model: The model.
        what: How to call it in the message, for example ``"rule 2 'encoder.layr.*'"``.
        may_be_optional: Whether the call that takes it has an ``optional=``.

    Raises:
        PatternError: If it matches nothing.
    """
    if found := selector.matches(model):
        return found
    nearest = near_misses(selector, model)
    lines = [f"{what} matches no parameter of {model.label} ({_count(model.params)})."]
    if len(parts := selector.parts()) > 1:
        counts = [f"{part!r} {len(part.matches(model))}" for part in parts]
        lines.append(f"  By themselves its parts match: {listed(counts)}.")
    if nearest:
        texts = [f"{_written(g)} ({_count(hits)})" for g, hits in nearest.items()]
        lines.append(f"  Nearest: {'; '.join(texts)}.")
    elif isinstance(selector, Glob | Regex):
        names = [param.name for param in model.params]
        lines.append(f"  Names begin with: {beginnings(names)}.")
    if isinstance(selector, Role):
        present = sorted({param.role for param in model.params})
        lines.append(f"  Roles it has: {', '.join(present) or 'none'}.")
    fix = ", or pass optional=True if it may match nothing" if may_be_optional else ""
    lines.append(f"  Fix the {_kind(selector)}{fix}.")
    raise PatternError(
        "\n".join(lines),
        pattern=getattr(selector, "pattern", repr(selector)),
        nearest=[guess.pattern for guess in nearest],
    )


def _count(things: Collection[object]) -> str:
    return plural(len(things), "parameter")


def _written(guess: Guess) -> str:
    return f"nnlr.{guess!r}" if isinstance(guess, Regex) else repr(guess)


def _kind(selector: Selector) -> str:
    return "pattern" if isinstance(selector, Glob | Regex) else "selector"


def near_misses(selector: Selector, model: ModelInfo) -> dict[Guess, Indices]:
    """At most two patterns close to one that matches nothing, and what they match."""
    names, _ = model.spellings
    if isinstance(selector, Regex):
        return _hits(_around(selector.pattern, names), model)
    if not isinstance(selector, Glob):
        return {}
    ways = [_wider, _unfolded, _respelled, _as_regex, _alike]
    if _NO_GLOB.search(selector.pattern):
        ways = [_wider, _unfolded, _as_regex, _respelled, _alike]
    for guesses in ways:
        if found := _hits(guesses(selector.pattern, names), model):
            return found
    return {}


def _hits(guesses: Iterable[Guess], model: ModelInfo) -> dict[Guess, Indices]:
    found: dict[Guess, Indices] = {}
    for guess in guesses:
        hits = guess.matches(model)
        if hits and hits not in found.values():
            found[guess] = hits
        if len(found) == 2:
            break
    return found


def _around(pattern: str, names: list[str]) -> list[Guess]:
    """A regular expression that may match anywhere, or else the names that have a match."""
    if not _is_quick(pattern, names):
        return []
    wider = f".*(?:{pattern}).*"
    try:
        re.compile(wider)
    except re.error:  # flags such as (?i) stand at the very front or nowhere
        search = re.compile(pattern).search
        return [Glob(name) for name in names if search(name)]
    return [Regex(wider)]


def _wider(pattern: str, _: list[str]) -> list[Guess]:
    """The pattern without a wrapper's prefix, and with stars that it may lack."""
    unwrapped = [pattern.removeprefix(p) for p in PREFIXES if pattern.startswith(p)]
    stars = ["{}.*", "*.{}", "*.{}.*"]
    if "*" not in pattern:
        stars.append("*{}*")
    return [Glob(each) for each in (*unwrapped, *(s.format(pattern) for s in stars))]


def _unfolded(pattern: str, names: list[str]) -> list[Guess]:
    """The regular expression for a pattern with braces, which globs do not know."""
    plain, *rest = _BRACES.split(pattern)
    if not rest:
        return []
    text = _globbed(plain)
    for inner, plain in zip(rest[::2], rest[1::2], strict=True):
        text += f"({'|'.join(map(_choice, inner.split(',')))}){_globbed(plain)}"
    return _as_regex(text, names)


def _globbed(plain: str) -> str:
    return re.escape(plain).replace(r"\*", ".*").replace(r"\?", ".")


def _choice(item: str) -> str:
    run = _RUN.fullmatch(item.strip())
    if run is None:
        return re.escape(item.strip())
    first, last = map(int, run.groups())
    if last < 10:
        return f"[{first}-{last}]"
    return "|".join(map(str, range(first, min(last, first + _LIMIT) + 1)))


def _as_regex(pattern: str, names: list[str]) -> list[Guess]:
    """The pattern as a regular expression, if it is one that can be tried in a moment."""
    if not _is_quick(pattern, names):
        return []
    try:
        re.compile(pattern)
    except (re.error, OverflowError):
        return []
    return [Regex(pattern)]


def _is_quick(pattern: str, names: list[str]) -> bool:
    """Whether a regular expression can be tried on all names in a moment."""
    repeats = len(_REPEAT.findall(pattern))
    steps = sum(len(name) ** repeats for name in names) // factorial(repeats)
    return (
        steps <= _STEPS and pattern.count("?") <= _OPTIONAL and not _REPEATED_GROUP.search(pattern)
    )


def _respelled(pattern: str, names: list[str]) -> list[Guess]:
    """The pattern with segments that occur in no name replaced by similar ones."""
    known = {segment for name in names for segment in name.split(".")}
    words = sorted(segment for segment in known if not segment.isdigit())[:_LIMIT]
    choices = []
    for segment in pattern.split("."):
        if segment in known or ("*" in segment and matching(known, segment)):
            choices.append([segment])
        elif segment.isdigit():
            choices.append(["*"])
        else:
            choices.append(get_close_matches(segment, words, n=2, cutoff=0.6))
    guesses = (each for each in product(*choices) if set(each) != {"*"})
    return [Glob(".".join(each)) for each in islice(guesses, 8)]


def _alike(pattern: str, names: list[str]) -> list[Guess]:
    """Whole names that look like the pattern; numbers in names do not count."""
    stems: dict[str, str] = {}
    for name in names:
        stems.setdefault(_NUMBER.sub("0", name), name)
    near = list(islice(stems, _LIMIT))
    close = get_close_matches(_NUMBER.sub("0", pattern), near, n=2, cutoff=0.6)
    return [Glob(stems[stem]) for stem in close]
