"""The settings of a group as the code built them, noted in the group under ``origin``.

Training moves some settings: a schedule the rate and perhaps betas or momentum, an optimizer
its counters, a hand anything. What differs from the note has been moved since. A new schedule
starts from the note, and a resumed run continues what had moved and takes the rest from the code.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final

from torch import Tensor

ORIGIN: Final = "origin"

# They say which parameters a group holds, not how these are trained.
_OF_THE_GROUP: Final = {"params", "param_names", "name", ORIGIN}

_PLAIN: Final = (bool, int, float, str, type(None))


def as_built(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain settings of a group as copies: numbers for tensors, never the tensors."""
    settings = {key: plain(value) for key, value in group.items() if key not in _OF_THE_GROUP}
    return {
        key: value
        for key, value in settings.items()
        if isinstance(value, _PLAIN)
        or (isinstance(value, tuple | list) and all(isinstance(part, _PLAIN) for part in value))
    }


def note_origin(groups: Iterable[MutableMapping[str, Any]]) -> None:
    """Note the settings of groups that have no note yet."""
    for group in groups:
        if ORIGIN not in group:
            group[ORIGIN] = as_built(group)


def plain(value: object) -> Any:  # noqa: ANN401 - a setting's value
    """Return a small tensor, or the tensors in a tuple, as numbers; another value as it is."""
    if isinstance(value, tuple | list):
        return type(value)(plain(part) for part in value)
    return value.tolist() if isinstance(value, Tensor) and value.numel() == 1 else value
