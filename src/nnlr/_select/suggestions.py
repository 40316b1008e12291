"""A selector that a user writes must match something; if not, the error names similar patterns."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import filter as matching
from itertools import islice, product
from typing import Final

from nnlr._findings import Finding, warning
from nnlr._model.describe import ModelInfo
from nnlr._model.names import PREFIXES
from nnlr._select.selector import ByName, Glob, Indices, Selector
from nnlr._select.selectors import Regex, Role, _ModuleType
from nnlr._text import beginnings, listed, plural
from nnlr.errors import PatternError

# Segments of names that a pattern is compared with, at most: a person waits for the message.
_LIMIT: Final = 2000

# What is in a regular expression and in no glob over names.
_REGEX_SIGN: Final = re.compile(r"^\.|[\\()|+^$]|\.\*\w")

# A regular expression that nobody meant as one may run for years: it is tried only if it has
# few repeats, and no repeated groups.
_REPEAT: Final = re.compile(r"(?<![(\\])(?<!\\d)[*+?{]")
_REPEATED_GROUP: Final = re.compile(r"\)[*+{]")
_REPEATS: Final = 2


def must_match(
    selector: Selector, model: ModelInfo, what: str, *, may_be_optional: bool = True
) -> Indices:
    """Positions that a user's selector matches, which must be some.

    Args:
        selector: What the user wrote.
        model: The model.
        what: How to call it in the message, for example ``"rule 2 'encoder.layr.*'"``.
        may_be_optional: Whether the call that takes it has an ``optional=``.
    """
    if positions := selector.matches(model):
        return positions
    by_name = isinstance(selector, Glob | Regex)
    nearest = near_misses(selector, model)
    lines = [f"{what} matches no parameter of {model.label} ({_count(model.params)})."]
    if len(parts := selector.parts()) > 1:
        counts = [f"{part!r} {len(part.matches(model))}" for part in parts]
        lines.append(f"  By themselves its parts match: {listed(counts)}.")
    if nearest:
        texts = [
            f"{'nnlr.' if isinstance(guess, Regex) else ''}{guess!r} ({_count(matched)})"
            for guess, matched in nearest.items()
        ]
        lines.append(f"  Nearest: {'; '.join(texts)}.")
    elif by_name:
        lines.append(f"  Names begin with: {beginnings(param.name for param in model.params)}.")
    if isinstance(selector, Role):
        present = sorted({param.role for param in model.params})
        lines.append(f"  Roles it has: {', '.join(present) or 'none'}.")
    if isinstance(selector, _ModuleType):
        lines.append(f"  Classes it has: {listed(_classes(model)) or 'none'}.")
    fix = ", or pass optional=True if it may match nothing" if may_be_optional else ""
    lines.append(f"  Fix the {'pattern' if by_name else 'selector'}{fix}.")
    raise PatternError(
        "\n".join(lines),
        pattern=getattr(selector, "pattern", repr(selector)),
        nearest=[guess.pattern for guess in nearest],
    )


def unmatched_parts(selector: Selector, model: ModelInfo, what: str) -> list[Finding]:
    """A finding for each pattern in a combined selector that matches nothing.

    In ``a | b`` the other side goes on without it, and ``~a`` chooses everything.
    """
    findings = []
    for part in selector.parts():
        if part is selector or not isinstance(part, ByName) or part.matches(model):
            continue
        nearest = listed([repr(guess) for guess in near_misses(part, model)])
        fix = f"Write {nearest} if that is meant" if nearest else "Correct it, or drop it"
        findings.append(
            warning(
                "unmatched-part",
                (),
                f"{part!r} in {what} matches no parameter of {model.label}",
                f"{fix}; if it is there for other models, pass optional=True.",
            )
        )
    return findings


def _classes(model: ModelInfo) -> list[str]:
    """The names of the classes that own parameters."""
    return sorted({param.owner_type.__name__ for param in model.params if param.owner_type})


def _count(params: Collection[object]) -> str:
    return plural(len(params), "parameter")


def near_misses(selector: Selector, model: ModelInfo) -> dict[Glob | Regex, Indices]:
    """At most two patterns close to one that matches nothing, and what they match."""
    if isinstance(selector, Regex):  # it may have been meant to match anywhere in a name
        return _matching(_as_regex(f".*(?:{selector.pattern}).*", 2), model)
    if not isinstance(selector, Glob):
        return {}
    pattern, (names, _) = selector.pattern, model.spellings
    nearest = _matching(_with_stars(pattern), model)
    if not nearest and _REGEX_SIGN.search(pattern):
        nearest = _matching(_as_regex(pattern), model)
    return nearest or _matching(_respelled(pattern, names), model)


def _matching(guesses: Iterable[Glob | Regex], model: ModelInfo) -> dict[Glob | Regex, Indices]:
    """The first two guesses that match something, each something else."""
    nearest: dict[Glob | Regex, Indices] = {}
    for guess in guesses:
        matched = guess.matches(model)
        if matched and matched not in nearest.values():
            nearest[guess] = matched
        if len(nearest) == 2:
            break
    return nearest


def _as_regex(pattern: str, more_repeats: int = 0) -> list[Regex]:
    """The pattern as a regular expression, if it is one that can be tried in a moment."""
    repeats = len(_REPEAT.findall(pattern))
    if repeats > _REPEATS + more_repeats or _REPEATED_GROUP.search(pattern):
        return []
    try:
        re.compile(pattern)
    except (re.error, OverflowError):
        return []
    return [Regex(pattern)]


def _with_stars(pattern: str) -> list[Glob]:
    """The pattern without a wrapper's prefix, and with stars that it may lack."""
    unwrapped = [pattern.removeprefix(p) for p in PREFIXES if pattern.startswith(p)]
    starred = [f"{pattern}.*", f"*.{pattern}", f"*.{pattern}.*"]
    if "*" not in pattern:
        starred.append(f"*{pattern}*")
    return [Glob(guess) for guess in (*unwrapped, *starred)]


def _respelled(pattern: str, names: list[str]) -> list[Glob]:
    """The pattern with segments that occur in no name replaced by similar ones."""
    segments = {segment for name in names for segment in name.split(".")}
    words = sorted(segment for segment in segments if not segment.isdigit())[:_LIMIT]
    choices = []
    for segment in pattern.split("."):
        if segment in segments or ("*" in segment and matching(segments, segment)):
            choices.append([segment])
        elif segment.isdigit():
            choices.append(["*"])
        else:
            choices.append(get_close_matches(segment, words, n=2, cutoff=0.6))
    guesses = (guess for guess in product(*choices) if set(guess) != {"*"})
    return [Glob(".".join(guess)) for guess in islice(guesses, 8)]
