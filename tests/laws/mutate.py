"""Change a nested value in one place: what a file may hold after an edit or a slip."""

import random
from collections.abc import Callable, Mapping

from tests.laws.hostile_values import LABELS, hostile


def mutated(value: object, rng: random.Random) -> tuple[str, object]:
    """A copy that differs in one place, and what was done there."""
    copy = _copied(value)
    holder, key, path = _place(copy, rng)
    if holder is None:
        return _hostile(rng)
    action = rng.choice(["replace", "replace", "replace", "drop", "repeat", "add", "tweak"])
    if action == "drop":
        del holder[key]
        return f"{path} dropped", copy
    if action == "repeat":
        if isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), _copied(holder[key]))
        else:
            holder[f"{key}2"] = _copied(holder[key])
        return f"{path} repeated", copy
    if action == "add" and isinstance(holder, dict):
        label, added = _hostile(rng)
        holder[rng.choice(["x", 3, None, "lr", ""])] = added
        return f"{path} got {label} beside it", copy
    label, holder[key] = _tweaked(holder[key], rng) if action == "tweak" else _hostile(rng)
    return f"{path} = {label}", copy


def _hostile(rng: random.Random) -> tuple[str, object]:
    label = rng.choice(LABELS)
    return label, hostile(label)


def _tweaked(value: object, rng: random.Random) -> tuple[str, object]:
    """A value of the same type, or nearly."""
    if isinstance(value, bool):
        value = rng.choice([not value, int(value), str(value)])
    elif isinstance(value, int | float):
        ways: list[Callable[[float], object]] = [
            lambda x: -x - 1,
            lambda x: x + 1,
            lambda x: x * 10**400 if isinstance(x, int) else x * 1e308 * 10,
            str,
            lambda x: [x],
            bool,
            lambda x: x + 0.5,
        ]
        value = rng.choice(ways)(value)
    elif isinstance(value, str):
        value = rng.choice([value + "x", value[:-1], value.upper(), [value], "", value + "\n"])
    elif value is None:
        value = rng.choice([0, "", False, [], 1.0])
    elif isinstance(value, list):
        value = rng.choice([value[::-1], value[:-1], tuple(value), dict(enumerate(value))])
    return repr(value)[:80] if not isinstance(value, int) or abs(value) < 1e9 else "huge", value


def _copied(value: object, depth: int = 0) -> object:
    """A copy of the dicts and lists, of those that hold themselves not to the end."""
    if depth > 20:
        return value
    if isinstance(value, Mapping):
        return {key: _copied(item, depth + 1) for key, item in value.items()}
    return [_copied(item, depth + 1) for item in value] if isinstance(value, list) else value


def _place(value: object, rng: random.Random) -> tuple[dict | list | None, object, str]:
    """A place in a nested value, near the top or deep down: its holder, key and path."""
    holder, key, path = None, None, ""
    while isinstance(value, dict | list) and value:
        holder = value
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        path += f"[{key!r}]"
        value = value[key]
        if rng.random() < 0.25:
            break
    return holder, key, path
