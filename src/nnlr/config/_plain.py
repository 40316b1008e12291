"""Whether data are plain: what a YAML or JSON file can hold, and not more than anyone writes."""

from collections.abc import Mapping
from typing import Any, Final

from nnlr._text import shown
from nnlr.config._at import At

# Far more than there is in any configuration, and still handled in a moment. Aliases in YAML
# make a few lines into billions of values.
_MOST = 100_000
_DEEPEST: Final = 50


def plain(data: object, at: At) -> Any:  # noqa: ANN401 - of any shape
    """A copy of plain data, or an error with the path of what is none."""
    return _Copy(at).of(data, at, _DEEPEST)


class _Copy:
    """One copy of some data, which counts what it has copied."""

    def __init__(self, top: At) -> None:
        self.top, self.count = top, 0

    def of(self, data: object, at: At, levels: int) -> Any:  # noqa: ANN401 - of any shape
        """A copy of a value that is at most some levels deep."""
        self.count += 1
        if self.count > _MOST:
            self.top.refuse(f"more than {_MOST:,} values, aliases counted where they are used.")
        if not levels:
            self.top.refuse(f"nested deeper than {_DEEPEST} levels.")
        if isinstance(data, Mapping):
            return {
                self._key(key, at): self.of(value, at / key, levels - 1)
                for key, value in data.items()
            }
        if isinstance(data, list | tuple):
            return [self.of(value, at[i], levels - 1) for i, value in enumerate(data)]
        if isinstance(data, float) and data != data:  # noqa: PLR0124 - not a number
            at.refuse("not a number (NaN).")
        if data is not None and not isinstance(data, bool | int | float | str):
            at.refuse(f"must be plain data, as YAML or JSON has it, got {shown(data, typed=True)}.")
        return data

    def _key(self, key: object, at: At) -> str | int:
        if isinstance(key, bool):
            at.refuse(
                f"the key {key} is a bool, as which YAML 1.1 reads yes, no, on and off: put it "
                "in quotes."
            )
        if not isinstance(key, str | int):
            at.refuse(f"the key {shown(key)} must be text.")
        return key
