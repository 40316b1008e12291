"""The selector of finetuning-scheduler: a whole name, or an expression that a name begins with."""

import re
from dataclasses import dataclass

from nnlr._arguments import Written
from nnlr._model.describe import ModelInfo
from nnlr._select.selector import Glob, Indices, Selector
from nnlr._select.selectors import Regex
from nnlr._select.suggestions import must_match
from nnlr.errors import NnlrError


def name_or_start(*entries: str) -> Selector:
    r"""Choose by the name of a parameter, or if there is none by what names begin with.

    Other names of a tied parameter choose nothing.

    Args:
        *entries: Names or regular expressions.

    Raises:
        NnlrError: If an entry is no regular expression.

    Examples:
        >>> name_or_start("head.weight", r"blocks\.1\.")
        name_or_start('head.weight', 'blocks\\.1\\.')
    """
    for entry in entries:
        try:
            re.compile(entry)
        except re.error as error:
            raise NnlrError(f"{entry!r} is no regular expression: {error}.", value=entry) from None
    return NameOrStart(entries)


@dataclass(frozen=True, repr=False, eq=False)
class NameOrStart(Selector):
    """Names or expressions; made by :func:`name_or_start`."""

    entries: tuple[str, ...]

    def matches(self, model: ModelInfo) -> Indices:
        """Positions of what the entries choose, each of which must be some."""
        position = {param.name: index for index, param in enumerate(model.params)}
        aliases = {alias for param in model.params for alias in param.aliases}
        chosen: set[int] = set()
        for entry in self.entries:
            if entry in position:
                chosen.add(position[entry])
                continue
            begins = re.compile(entry).match
            matched = {index for name, index in position.items() if begins(name)}
            if not matched and entry not in aliases:
                plain = re.fullmatch(r"[\w.]+", entry)
                must_match(Glob(entry) if plain else Regex(entry), model, repr(entry))
            chosen |= matched
        return frozenset(chosen)

    def written_as(self) -> Written:
        """The call of :func:`name_or_start`."""
        return Written("name_or_start", self.entries)
