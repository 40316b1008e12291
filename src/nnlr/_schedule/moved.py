"""The note that ``nnlr.attach`` keeps in each group that moves: how far the run has come.

It has always the same keys, since distributed checkpoints miss those that come and go; what
moves remember stands in one text.
"""

import json
from collections.abc import Mapping
from math import isnan
from typing import Any, Final

from torch import Tensor

from nnlr._text import shown
from nnlr.errors import NnlrError

MOVED: Final = "moved"

# Whole numbers: steps and epochs so far, and the steps of the whole run, 0 if nobody said.
COUNTS: Final = ("step", "epoch", "total_steps")

# What holds the tensors that moves have copied; only groups of such moves have it.
COPIES: Final = "copies"

Memory = dict[str, dict[str, float]]  # of each move, by name
Copies = dict[str, dict[str, Tensor]]  # likewise


def note(
    step: int = 0,
    epoch: int = 0,
    total_steps: int = 0,
    memory: str = "",
    copies: Copies | None = None,
) -> dict[str, Any]:
    """Return the note of a group.

    Examples:
        >>> note(3)
        {'step': 3, 'epoch': 0, 'total_steps': 0, 'memory': ''}
    """
    counts = {"step": step, "epoch": epoch, "total_steps": total_steps, "memory": memory}
    return {**counts, COPIES: copies} if copies else counts


def written(memory: Memory) -> str:
    """Return what moves remember as text; refuse what no text would give back."""
    for move, values in memory.items():
        for key, value in values.items():
            if not _is_number(value):
                raise NnlrError(
                    f"{move} remembers {key}={shown(value, typed=True)}: unit.memory holds plain "
                    "numbers by name, and no NaN, since it is saved with the optimizer."
                )
    return json.dumps(memory) if any(memory.values()) else ""


def read(text: str) -> Memory:
    """Return what moves remember.

    Examples:
        >>> read(written({"Mine": {"best": float("inf"), "count": 2}}))
        {'Mine': {'best': inf, 'count': 2}}
    """
    memory: Memory = json.loads(text) if text else {}
    return memory


def fault(value: object) -> str | None:
    """Return what a saved note ought to be, or ``None`` if it is a note."""
    if not isinstance(value, Mapping):
        return "what nnlr.attach notes there, a dictionary"
    for key in COUNTS:
        count = value.get(key, 0)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            return f"a dictionary whose {key!r} is a whole number >= 0"
    try:
        memory = read(value.get("memory", ""))
        sound = all(_is_number(number) for each in memory.values() for number in each.values())
    except (AttributeError, TypeError, ValueError):
        sound = False
    return None if sound else "a dictionary whose 'memory' is text of numbers by name"


def _is_number(value: object) -> bool:
    """Whether a value is a plain number other than NaN."""
    return isinstance(value, int | float) and not isnan(value)
