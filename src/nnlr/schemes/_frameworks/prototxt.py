"""The text format of protocol buffers, as far as Caffe's prototxt files use it.

A message is a dict from each field to the list of its values, in order: any field may be repeated.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from nnlr._text import shown
from nnlr.errors import ConfigError

Message = dict[str, list[Any]]

T = TypeVar("T")

_KINDS: Final[dict[type, str]] = {str: "text", float: "number", dict: "message"}

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<word>[\w.+-]+)
    |(?P<sign>[{}<>\[\]:,;])""",
    re.VERBOSE,
)

_BRACKETS: Final = {"{": "}", "<": ">"}


@dataclass(frozen=True)
class _Token:
    """A word, a sign or a quoted text, and where it stands."""

    kind: str
    value: str
    line: int


def parse(text: str) -> Message:
    """Read a message.

    Raises:
        ConfigError: If the text is no such message; it names the line.

    Examples:
        >>> parse('layer { name: "fc" param { lr_mult: 2 } param { lr_mult: 0 } }')
        {'layer': [{'name': ['fc'], 'param': [{'lr_mult': [2.0]}, {'lr_mult': [0.0]}]}]}
    """
    tokens = list(_tokens(text.removeprefix("\ufeff")))[::-1]  # the next one is the last
    try:
        return _message(tokens, until=None)
    except RecursionError:
        raise ConfigError("The prototxt nests messages too deeply. Check its brackets.") from None


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens without spaces and comments."""
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _wrong(_Token("", text[at], line), "a field")
        if match.lastgroup != "space":
            yield _Token(str(match.lastgroup), match.group(), line)
        line += match.group().count("\n")
        at = match.end()


def values(message: Message, field: str, kind: type[T], what: str) -> list[T]:
    """The values of a field, all of which must be of a kind."""
    of_field = message.get(field, [])
    for value in of_field:
        if not isinstance(value, kind):
            raise ConfigError(
                f"{field} of {what} must be a {_KINDS[kind]}, got {shown(value)}.", key=field
            )
    return of_field


def first(message: Message, field: str, kind: type[T], what: str) -> T | None:
    """The first value of a field, if it has one."""
    return next(iter(values(message, field, kind, what)), None)


def _message(tokens: list[_Token], until: str | None) -> Message:
    """The fields up to a closing bracket, or up to the end."""
    message: Message = {}
    while tokens and tokens[-1].value != until:
        field = _take(tokens, "word", "a field")
        colon = bool(tokens) and tokens[-1].value == ":"
        if colon:
            tokens.pop()
        values = message.setdefault(field.value, [])
        if tokens and tokens[-1].value == "[":
            tokens.pop()
            while tokens and tokens[-1].value != "]":
                values.append(_value(tokens, field))
                _skip(tokens, ",")
            _take(tokens, "sign", f"the end of the list of {field.value!r}")
        elif colon or (tokens and tokens[-1].value in _BRACKETS):
            values.append(_value(tokens, field))
        else:
            raise _wrong(tokens[-1] if tokens else field, f"a colon after {field.value!r}")
        _skip(tokens, ",")
        _skip(tokens, ";")
    if until is not None:
        _take(tokens, "sign", f"the closing {until!r}")
    return message


def _value(tokens: list[_Token], field: _Token) -> Any:  # noqa: ANN401 - a value of any field
    """A message, a text, a number or a word."""
    if tokens and tokens[-1].value in _BRACKETS:
        return _message(tokens, until=_BRACKETS[tokens.pop().value])
    if tokens and tokens[-1].kind == "text":
        parts = []
        while tokens and tokens[-1].kind == "text":  # texts side by side are one
            parts.append(re.sub(r"\\(.)", r"\1", tokens.pop().value[1:-1]))
        return "".join(parts)
    word = _take(tokens, "word", f"a value of {field.value!r}").value
    try:
        return float(word.rstrip("fF") or word)
    except ValueError:
        return word


def _skip(tokens: list[_Token], sign: str) -> None:
    """Pass over a sign that may stand there."""
    if tokens and tokens[-1].value == sign:
        tokens.pop()


def _take(tokens: list[_Token], kind: str, wanted: str) -> _Token:
    """The next token, which must be of a kind."""
    if not tokens:
        raise ConfigError(f"The prototxt ends where {wanted} is due. Check its brackets.")
    if tokens[-1].kind != kind:
        raise _wrong(tokens[-1], wanted)
    return tokens.pop()


def _wrong(token: _Token, wanted: str) -> ConfigError:
    """The error of a token that does not belong where it stands."""
    return ConfigError(
        f"Line {token.line} of the prototxt has {shown(token.value)} where {wanted} is due.",
        line=token.line,
    )
