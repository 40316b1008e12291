"""Labels: one text for several names, and how a long one is broken.

A label is like a name, but that a segment may have alternatives in braces: numbers
(``blocks.{0..11}.norm.weight``) or words (``self_attn.{q,k,v}_proj.weight``). It stands for exactly
the names that it comes to when the braces are written out. A ``*`` stands for whatever is there,
as in a selector.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from nnlr._text import printable

STAR: Final = ("*",)

# For each segment of some names, what it may be.
Segments = tuple[tuple[str, ...], ...]

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_TOKEN: Final = re.compile(r"[0-9]+|[_-]+|[^0-9_-]+")
_SPECIAL: Final = re.compile(r"[{},*\\]")
_PIECE: Final = re.compile(r"(?:\{[^{}]*\}|[^.])+\.?|\.")
_WORD: Final = re.compile(r"[^,_-]*[,_-]*", re.DOTALL)


def is_number(segment: str) -> bool:
    """Whether a segment is a number as ``str`` writes it."""
    return _NUMBER.fullmatch(segment) is not None


def label_of(segments: Segments) -> str:
    """The label of names with these segments.

    Examples:
        >>> label_of((("blocks",), ("0", "1", "2"), ("q_proj", "k_proj"), STAR))
        'blocks.{0..2}.{q,k}_proj.*'
    """
    if all(len(choices) == 1 and choices is not STAR for choices in segments):
        return printable(".".join(choices[0] for choices in segments))
    return ".".join("*" if c is STAR else _braced([_escaped(text) for text in c]) for c in segments)


def _escaped(segment: str) -> str:
    """A segment with a backslash before what would mean something in a label."""
    return _SPECIAL.sub(r"\\\g<0>", printable(segment))


def _braced(choices: Sequence[str]) -> str:
    """The alternatives of one segment; words that all begin or end with stand outside."""
    if len(choices) == 1:
        return choices[0]
    if all(map(is_number, choices)):
        return f"{{{runs(map(int, choices))}}}"
    words = [_TOKEN.findall(choice) for choice in choices]
    first = _alike(words)
    last = _alike([parts[: first - 1 if first else None : -1] for parts in words])
    middles = ["".join(parts[first : len(parts) - last]) for parts in words]
    begin, end = "".join(words[0][:first]), "".join(words[0][len(words[0]) - last :])
    if not all(middles):
        begin, middles, end = "", list(choices), ""
    numbers = all(map(is_number, middles))
    return f"{begin}{{{runs(map(int, middles)) if numbers else ','.join(middles)}}}{end}"


def _alike(lists: Sequence[Sequence[str]]) -> int:
    """With how many equal items all lists begin."""
    together = enumerate(zip(*lists, strict=False))
    shortest = min(map(len, lists))
    return next((at for at, items in together if len(set(items)) > 1), shortest)


def runs(values: Iterable[int]) -> str:
    """Numbers in order, those that follow each other as a range.

    Examples:
        >>> runs([0, 1, 2, 3, 7, 9, 10])
        '0..3,7,9,10'
    """
    ranges: list[list[int]] = []
    for value in sorted(values):
        if ranges and value == ranges[-1][-1] + 1:
            ranges[-1].append(value)
        else:
            ranges.append([value])
    texts = (f"{run[0]}..{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in ranges)
    return ",".join(texts)


def broken(label: str, room: int, width: Callable[[str], int]) -> list[str]:
    """A label in lines of at most ``room`` columns, those after the first indented.

    It is broken after dots; where that is not enough after commas, hyphens and underscores, and a
    word that has no room on a line of its own wherever the line ends.

    Examples:
        >>> broken("encoder.layers.{0..11}.attention", 23, len)
        ['encoder.layers.{0..11}.', '  attention']
    """
    if width(label) <= room:
        return [label]
    pieces: list[str] = []
    for piece in _PIECE.findall(label):
        pieces += [piece] if width(piece) <= room - 2 else _narrow(piece, room - 2, width)
    lines = [""]
    for piece in pieces:
        if lines[-1].strip() and width(lines[-1]) + width(piece) > room:
            lines.append("  ")
        lines[-1] += piece
    return lines


def _narrow(piece: str, room: int, width: Callable[[str], int]) -> list[str]:
    """A piece of a label in parts of at most ``room`` columns."""
    parts: list[str] = []
    for word in filter(None, _WORD.findall(piece)):
        if width(word) <= room:
            parts.append(word)
            continue
        parts.append("")
        for letter in word:
            if width(parts[-1]) + width(letter) > room:
                parts.append("")
            parts[-1] += letter
    return parts
