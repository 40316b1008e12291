"""A plan and the difference of two as Markdown, for a pull request or a notebook.

Names are a model's, and nobody has checked them: they stand in code spans, in which neither HTML
nor Markdown means anything.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from nnlr._text import printable


def code(text: str) -> str:
    r"""A text as a code span that may stand in a table.

    Examples:
        >>> code("head.weight"), code("a|b"), code("a`b")
        ('`head.weight`', '`a\\|b`', '`` a`b ``')
    """
    shown = printable(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    room = " " if "`" in shown else ""
    return f"{fence}{room}{shown}{room}{fence}".replace("|", r"\|") if shown else ""


def markdown_grid(columns: Mapping[str, Sequence[str]], left: Iterable[str] = ()) -> list[str]:
    """A table of cells that are Markdown; columns are flush right but those in ``left``."""
    rule = [":---" if title in set(left) else "---:" for title in columns]
    rows = [list(columns), rule, *zip(*columns.values(), strict=True)]
    return [f"| {' | '.join(row)} |" for row in rows]


def details(summary: str, lines: Iterable[str]) -> list[str]:
    """Lines that are folded away under a summary, which must be plain words."""
    return [f"<details><summary>{summary}</summary>", "", *lines, "", "</details>"]


def block(lines: Iterable[str]) -> list[str]:
    """Lines of plain text as they are; nothing of none."""
    text = [printable(line) for line in lines]
    longest = max((len(run) for line in text for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *text, fence] if text else []
