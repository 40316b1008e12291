"""Custom keys: which claims a parameter, and which are for other architectures or misspelt.

A schedule that several models share lists names of all of them. A key that matches nothing is
taken for one of another model if it is made of words that name parameters in the models of
mmpretrain, mmsegmentation and mmdetection (``words.txt``), and for a mistake if it is not.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from nnlr._declare.factor import Factor
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._text import listed, nearest_hint
from nnlr.schemes._frameworks.claims import Claims, Watch, dotted


def claim(custom: Mapping[str, Factor], model: ModelInfo, spelled: Callable[[str], str]) -> Claims:
    """What each custom key claims: names, spelled as the framework does, with the key inside."""
    # A default argument: else each test would see the last key.
    tests = [(key, lambda name, key=key: key in spelled(name)) for key in custom]
    names = [param.name for param in model.params]
    return Claims.of("custom key", tests, names, model.spellings[0])


def claimed(claims: Claims) -> list[str | None]:
    """The custom key that claims each parameter."""
    return [None if at is None else claims.patterns[at] for at in claims.first]


def check(
    claims: Claims, custom: Mapping[str, Factor], watch: Watch, model: ModelInfo
) -> list[Finding]:
    """Note keys of other architectures and keys that others make needless; refuse other ones."""
    foreign, needless = [], []
    near = {}
    for at, matched in claims.unused().items():
        key = claims.patterns[at]
        if not matched and at not in claims.matching_aliases:
            if is_of_other_model(key, model.spellings[0]):
                foreign.append(key)
                if meant := similar_here(key, model.spellings[0]):
                    near[key] = meant
        elif matched and all(
            _same(custom[claims.patterns[first]], custom[key])
            for first, matches in zip(claims.first, claims.matching, strict=True)
            if first is not None and at in matches
        ):
            needless.append(key)
    findings = claims.check(watch, model, excused={*foreign, *needless}, hint=elsewhere)
    for key, meant in near.items():
        cause = f"custom key {key!r} names nothing in {model.label}, where there is {meant!r}"
        fix = "Write that if it is meant; MMEngine passes over the key in silence."
        findings.append(warning("near-miss", (), cause, fix))
    foreign = [key for key in foreign if key not in near]
    if foreign:
        cause = (
            f"custom keys that name nothing in {model.label}, but parameters of other "
            f"architectures: {listed(map(repr, foreign))}"
        )
        findings.append(note("other-architecture", (), cause, "Nothing to do if meant."))
    if needless:
        cause = f"custom keys that longer ones with the same settings cover: {listed(needless)}"
        findings.append(note("covered-key", (), cause, "Nothing to do."))
    return findings


def _same(one: Factor, other: Factor) -> bool:
    """Whether two custom keys set the same."""
    facts = ("lr_mult", "wd_mult", "lr", "weight_decay", "options")
    return all(getattr(one, fact) == getattr(other, fact) for fact in facts)


def is_of_other_model(key: str, names: Iterable[str]) -> bool:
    """Whether a key that no name contains is made of known words, and of no other number.

    A key that would match with another number (``layers.12.`` of twelve layers), with other signs
    between its words (``stem.conv`` for ``stem_conv``) or without signs that no name has
    (``head.*``) is a mistake.

    Examples:
        >>> [is_of_other_model(key, ["head.weight"]) for key in (".absolute_pos_embed", "haed")]
        [True, False]
        >>> is_of_other_model("layers.12.", ["layers.11.weight"])
        False
        >>> [is_of_other_model(key, ["stem_conv.weight"]) for key in ("stem.conv", "head.*")]
        [False, False]
    """
    alike = _alike(key)
    if not re.fullmatch(r"[\w.-]+", key) or any(alike.search(dotted(name)) for name in names):
        return False
    segments = [words(segment) for segment in key.split(".")]
    return any(segments) and all(f"_{segment}_" in known_words() for segment in segments if segment)


def similar_here(key: str, names: Iterable[str]) -> str | None:
    """What a key of other models may be meant for in this one.

    Only names of the root begin with a dot, as MMEngine spells them.

    Examples:
        >>> similar_here("img_encoder", ["image_encoder.weight"])
        'image_encoder'
        >>> similar_here(".backbone.fc", ["backbone.fc.weight"])
        'backbone.fc'
    """
    names = list(names)
    if key.startswith(".") and any(name.startswith(key[1:]) for name in names):
        return key[1:]
    segments = {segment: words(segment) for name in names for segment in name.split(".")}
    for segment in filter(words, key.split(".")):
        others = [one for one, spelled in segments.items() if spelled != words(segment)]
        if segment not in segments and (close := get_close_matches(segment, others, 1, 0.8)):
            return close[0]
    return None


def elsewhere(key: str) -> str:
    """A sentence with the names of other models that look like a key, or nothing.

    Examples:
        >>> elsewhere(".relative_postion_bias_table")
        "Nearest in other models: 'relative_position_bias_table'."
        >>> elsewhere("xyzzy")
        ''
    """
    names = [line.strip("_") for line in known_words().split()]
    unknown = [word for word in map(words, key.split(".")) if f"_{word}_" not in known_words()]
    hints = (nearest_hint(word, names, limit=1) for word in unknown)
    return next(filter(None, hints), "").replace("Nearest:", "Nearest in other models:")


def _alike(key: str) -> re.Pattern[str]:
    """The key with any numbers, and any signs between its words.

    Examples:
        >>> bool(_alike(".stem.conv2").search("backbone.stem_conv3.weight"))
        True
    """
    inner = key.strip("._-")
    before, _, after = key.partition(inner) if inner else (key, "", "")
    parts = (re.sub(r"\d+", r"\\d+", re.escape(word)) for word in re.split(r"[._-]+", inner))
    return re.compile(re.escape(before) + "[._-]+".join(parts) + re.escape(after))


def words(segment: str) -> str:
    """The words of a segment of a name, without numbers.

    Examples:
        >>> words("rel_pos_h"), words("norm1"), words("0")
        ('rel_pos_h', 'norm', '')
    """
    return "_".join(re.findall(r"[^\W\d_]+", segment))


@cache
def known_words() -> str:
    """The words of each segment of names of published models, a line each, in underscores."""
    return files("nnlr.schemes._frameworks.mmengine").joinpath("words.txt").read_text("utf-8")
