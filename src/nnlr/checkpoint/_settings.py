"""The settings of groups after loading: what training moved continues, the rest is the code's.

Each group notes its settings as they were built (``_schedule/origin.py``). A saved value that is
still the noted one is given up for the code's; one that had moved continues. A rate is base times
multiplier, and the two are judged apart: the base continues in proportion to the code's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any, Final

from torch import Tensor

from nnlr._schedule.origin import MULTIPLIERS, ORIGIN, number, plain
from nnlr._schedule.progress import SCHEDULED, filled
from nnlr.checkpoint._report import Difference, short
from nnlr.errors import ConfigError

Group = Mapping[str, Any]

# The key under which the hook of `on_load` adds names and classes to groups of a state dict.
NOTE: Final = "nnlr"

# Numbers that differ by less are one number, computed in another order or as float32.
NOISE: Final = 1e-6

# Which class and kernels run: those of the checkpoint need not exist on this machine.
OF_THE_CODE: Final = {
    *("foreach", "fused", "capturable", "differentiable", "triton"),
    "decoupled_weight_decay",  # what makes an AdamW of an Adam
}

# What schedulers cycle beside the rate: a code that starts it elsewhere cycles from there.
_CYCLED: Final = {"momentum", "betas"}

# What a scheduler notes in proportion to each rate.
_NOTES: Final = {"lr": SCHEDULED[1:], "weight_decay": ("initial_weight_decay",)}

# Settings that say which parameters a group has, or are decided as rates.
APART: Final = {
    *("params", "param_names", "name", NOTE, ORIGIN),
    *("cycles_momentum", "cycles_betas"),  # notes of version 0.1
    *MULTIPLIERS,
    *MULTIPLIERS.values(),
    *(note for notes in _NOTES.values() for note in notes),
}


def same(one: object, other: object) -> bool:
    """Whether two settings are equal, be they floats or tensors, tuples or lists."""
    one, other = plain(one), plain(other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool((one == other).all())
    if type(one) is type(other) is float:
        return isclose(one, other, rel_tol=NOISE)
    return bool(one == other)


@dataclass(frozen=True, slots=True)
class Source:
    """A saved group of some parameters, and its settings as they were built."""

    group: Group
    origin: Group
    names: Sequence[str] = ()

    def moved(self, key: str) -> bool:
        """Whether training has moved a setting, or made it."""
        was, now = plain(self.origin.get(key, ...)), plain(self.group[key])
        if isinstance(was, list | tuple) and isinstance(now, list | tuple):
            was, now = tuple(was), tuple(now)
        return not (was is now or (type(was) is not Tensor and was == now))

    def started_elsewhere(self, key: str, code: object) -> bool:
        """Whether a setting was built with another value than in the code, as far as known."""
        was = self.origin.get(key, self.group[key])
        return was is not None and not same(was, code)


@dataclass(frozen=True, slots=True)
class Target:
    """A group of the code, its settings as built, and the saved groups of its parameters."""

    group: Group
    origin: Group
    label: str  # its name in messages
    sources: Sequence[Source]

    def having(self, key: str) -> list[Source]:
        """Return the saved groups that have a setting."""
        return [source for source in self.sources if key in source.group]


class Settings:
    """Decides the settings of all groups, and collects the differences."""

    def __init__(
        self, targets: Sequence[Target], saved: Sequence[Source], policy: str, *, other: bool
    ) -> None:
        self.policy, self._other = policy, other  # whether another class saved them
        self._rates = [_Rate(key, targets, saved) for key in MULTIPLIERS]
        # The names and the facts of each difference.
        self._merged: dict[object, tuple[list[str], tuple[str, Any, Any, str]]] = {}

    def group(self, target: Target) -> dict[str, Any]:
        """Return the settings of one group."""
        settings = {k: v for k, v in target.group.items() if k not in {"params", "param_names"}}
        keys = [*target.group, *(key for source in target.sources for key in source.group)]
        for key in dict.fromkeys(keys):
            if key not in APART:
                self._setting(key, target, settings)
        for rate in self._rates:
            if self.policy == "checkpoint":
                self._saved_rate(rate, target, settings)
            elif number(target.group, rate.key) is not None:
                settings |= rate.coded(target, self._multiplier(rate, target))
            self._tell_rate(rate, target)
        if ORIGIN in target.group:
            settings[ORIGIN] = self._origin(target)
        return {key: _own(value) for key, value in settings.items()}

    def _setting(self, key: str, target: Target, settings: dict[str, Any]) -> None:
        """Decide whose value of a setting counts; ``settings`` holds that of the moment."""
        sources = target.having(key)
        code = target.origin.get(key, target.group.get(key, ...))
        if key in OF_THE_CODE:
            if target.group.get(key) is not None:  # None leaves the choice to the optimizer
                self._tell(key, sources, target.group[key], "code")
            return
        if code is not ... and key in target.group and not same(target.group[key], code):
            settings[key] = code  # it goes back, if the checkpoint says nothing else
        if not sources or self._other:
            return
        agree = all(same(sources[0].group[key], source.group[key]) for source in sources[1:])
        if not _is_of_a_kind(sources[0].group[key], code):
            counts = False
        elif self.policy == "checkpoint":
            counts = agree
        else:
            counts = agree and all(_continues(key, source, target) for source in sources)
        if counts:
            value = sources[0].group[key]
            as_tuple = isinstance(code, tuple) and isinstance(value, list)
            settings[key] = tuple(value) if as_tuple else value
        if key in target.group and code is not ...:
            changed = [
                source
                for source in sources
                if source.started_elsewhere(key, code) or (not counts and source.moved(key))
            ]
            self._tell(key, changed, code, "checkpoint" if counts else "code")

    def _multiplier(self, rate: "_Rate", target: Target) -> float | None:
        """Return the multiplier of a group, if training had moved it."""
        sources = target.having(rate.mult)
        if not any(rate.mult in source.origin and source.moved(rate.mult) for source in sources):
            return None
        moved: float = self._agreed(rate.mult, target)
        return moved

    def _saved_rate(self, rate: "_Rate", target: Target, settings: dict[str, Any]) -> None:
        """Take a rate and its multiplier from the checkpoint."""
        taken = {
            key: value
            for key in (rate.key, *_NOTES[rate.key], rate.mult)
            if (value := self._agreed(key, target)) is not None
        }
        for key, value in taken.items():
            like = target.group.get(key, target.group.get(rate.key))
            tensor = isinstance(like, Tensor) and (key in target.group or isinstance(value, Tensor))
            settings[key] = filled(float(value), like if tensor else None)
        if rate.key in taken and rate.mult in target.group and rate.mult not in taken:
            start = number(target.sources[0].origin, rate.key)
            if start is not None and rate.base:
                settings[rate.mult] = start / rate.base

    def _agreed(self, key: str, target: Target) -> Any:  # noqa: ANN401 - a setting's value
        """Return the one value that the saved groups of a target have, or ``None``."""
        sources = target.having(key)
        if not sources:
            return None
        first, *others = sources
        for other in others:
            if not same(first.group[key], other.group[key]):
                way_out = (
                    ", or let the rates of the code count: policy='code' "
                    "(plan.optimizer(..., resume='code'))"
                    if self.policy == "checkpoint"
                    else ""
                )
                raise ConfigError(
                    f"{target.label} can have one {key}, and its parameters were saved with "
                    f"two: {first.names[0]!r} with {short(first.group[key])}, "
                    f"{other.names[0]!r} with {short(other.group[key])}. "
                    f"Give them groups of their own{way_out}.",
                    key=key,
                    names=[first.names[0], other.names[0]],
                )
        return first.group[key]

    def _origin(self, target: Target) -> dict[str, Any]:
        """Return the note of a group: the code's, or the checkpoint's if all of it counts."""
        origin = dict(target.group[ORIGIN])
        if self.policy == "checkpoint":
            for source in target.sources[:1]:
                origin |= {k: v for k, v in source.origin.items() if k in origin or k in APART}
        return origin

    def _tell_rate(self, rate: "_Rate", target: Target) -> None:
        """Note where code and checkpoint have other bases or multipliers."""
        mult = rate.multiplier(target)
        start = number(target.origin, rate.key)
        for source in target.sources if start is not None else ():
            was, saved_start = number(source.origin, rate.mult), number(source.origin, rate.key)
            moved = was is not None and rate.mult in source.group and source.moved(rate.mult)
            if was is None or mult is None:
                was_base, base = saved_start, start
            else:
                self._note(
                    *(rate.mult, source.names, source.group[rate.mult] if moved else was, mult),
                    "checkpoint" if moved else self.policy,
                    differs=not same(was, mult),
                )
                was_base = saved_start / was if was and saved_start is not None else None
                base = start / mult if mult else None  # type: ignore[operator] # it is no None
            if was_base is not None and base is not None:
                differs = not same(was_base, base)
                self._note(rate.key, source.names, was_base, base, self.policy, differs=differs)

    def _tell(self, key: str, sources: Iterable[Source], code: object, winner: str) -> None:
        """Note that saved groups have another value of a setting than the code."""
        for source in sources:
            was = source.origin.get(key, source.group[key])
            old = source.group[key] if winner == "checkpoint" or same(was, code) else was
            self._note(key, source.names, old, code, winner, differs=not same(old, code))

    def _note(
        self,
        setting: str,
        names: Sequence[str],
        old: object,
        new: object,
        winner: str,
        *,
        differs: bool,
    ) -> None:
        """Note a difference, with others of the same two values."""
        if differs:
            old, new = plain(old), plain(new)
            kind = (setting, short(old), short(new), winner)
            self._merged.setdefault(kind, ([], (setting, old, new, winner)))[0].extend(names)

    def differences(self) -> tuple[Difference, ...]:
        """Return one entry for each setting and pair of values."""
        return tuple(
            Difference(setting, tuple(names), old, new, winner)
            for names, (setting, old, new, winner) in self._merged.values()
        )


class _Rate:
    """One rate of all groups, ``lr`` or ``weight_decay``, in the code and in a checkpoint."""

    def __init__(self, key: str, targets: Sequence[Target], saved: Sequence[Source]) -> None:
        self.key, self.mult = key, MULTIPLIERS[key]
        origins = [target.origin for target in targets]
        self._largest = max((number(origin, key) or 0.0 for origin in origins), default=0.0)
        # A schedule will write multipliers where the code has none yet.
        self._will_have = any(self.mult in source.group for source in saved) and not any(
            self.mult in group for target in targets for group in (target.group, target.origin)
        )
        pairs = [(self.multiplier(target), number(target.origin, key)) for target in targets]
        self.base = _base(pairs)
        measures = [source for source in saved if self._progress(source) is not None]
        # The saved group that tells how far the rates have come, where no other does.
        self._reference = max(measures, key=self._measure, default=None)
        self._saved_base = _base(
            [(number(s.origin, self.mult), number(s.origin, key)) for s in measures]
        )

    def multiplier(self, target: Target) -> float | None:
        """Return the code's multiplier of a group."""
        mult = number(target.origin, self.mult)
        mult = number(target.group, self.mult) if mult is None else mult
        if mult is None and self._will_have:
            start = number(target.origin, self.key)
            return None if start is None else start / self._largest if self._largest else 0.0
        return mult

    def _measure(self, source: Source) -> tuple[bool, float]:
        """Order saved groups by how well they tell the progress."""
        mult = number(source.origin, self.mult)
        return mult in {1, None}, mult or 0.0

    def _moved(self, source: Source) -> bool:
        """Whether the multiplier of a saved group had moved."""
        has_both = self.mult in source.group and self.mult in source.origin
        return has_both and source.moved(self.mult)

    def _progress(self, source: Source) -> float | None:
        """Return how far the base of a group had come, relative to its start."""
        now, start = number(source.group, self.key), number(source.origin, self.key)
        if now is None or not start:
            return None
        if self._moved(source):
            was, mult = number(source.origin, self.mult), number(source.group, self.mult)
            return now / mult * was / start if was and mult else None
        return now / start

    def coded(self, target: Target, moved: float | None) -> dict[str, Any]:
        """Return the code's rate at the progress of the checkpoint's, and what goes with it.

        ``moved`` is the multiplier, if training had moved it.
        """
        like, mult = target.group[self.key], self.multiplier(target)
        start = number(target.origin, self.key)
        start = float(like) if start is None else start
        source = next((s for s in target.sources if number(s.group, self.key) is not None), None)
        result: dict[str, Any] = {}
        if mult is not None:
            result[self.mult] = mult if moved is None else moved
        factor = None if source is None else self._factor(source, start, mult, moved=moved)
        if source is None or factor is None:  # new parameters, or those whose rate was 0
            relative = None if self._reference is None else self._progress(self._reference)
            result[self.key] = filled(start * (1.0 if relative is None else relative), like)
        elif moved is None and not source.moved(self.key):
            result[self.key] = filled(start, like)
        else:
            now = float(source.group[self.key])
            result[self.key] = filled(now * factor, like)
        for note in _NOTES[self.key]:
            if note not in target.group:
                result |= self._noted(note, source, start, factor, like)
        if moved is not None and (base := start / mult if mult else self.base) is not None:
            for note in {f"initial_{self.key}"} & (target.group.keys() | result.keys()):
                result[note] = filled(base * moved, result.get(note, target.group.get(note)))
        return result

    def _factor(
        self, source: Source, start: float, mult: float | None, *, moved: float | None
    ) -> float | None:
        """Return the code's start of a rate divided by that of a saved group; exactly 1 if equal.

        ``None`` if that started at 0 and stayed there.
        """
        was = number(source.origin, self.key)
        if moved is not None:
            was_mult = number(source.origin, self.mult)
            was = was / was_mult if was and was_mult else self._saved_base
            base = start / mult if mult else self.base
            start = was or 0.0 if base is None else base
        if not was:
            return 1.0 if moved is not None or float(source.group[self.key]) else None
        return 1.0 if isclose(was, start, rel_tol=NOISE) else start / was

    def _noted(
        self, note: str, source: Source | None, start: float, factor: float | None, like: object
    ) -> dict[str, Any]:
        """Return what a scheduler noted beside a rate, in proportion to the code's start."""
        if source is None or factor is None or note not in source.group:
            source = self._reference
            high = None if source is None else number(source.origin, self.key)
            factor = start / high if high else None
        value = None if source is None else source.group.get(note)
        if value is None or factor is None:
            return {}
        return {note: filled(float(value) * factor, like if isinstance(value, Tensor) else None)}


def _base(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Return the base rate of groups, from their multipliers and starts.

    That of a multiplier of 1 if there is one, else of the largest.
    """
    bases = [(mult == 1, mult, start / mult) for mult, start in pairs if mult and start is not None]
    return max(bases)[2] if bases else None


def _continues(key: str, source: Source, target: Target) -> bool:
    """Whether training had moved a setting, and the code does not cycle it from elsewhere."""
    if not source.moved(key):
        return False
    ours, theirs = target.origin.get(key), source.origin.get(key)
    return key not in _CYCLED or theirs is None or same(ours, theirs)


def _is_of_a_kind(saved: object, code: object) -> bool:
    """Whether a value can stand for another: a number for a number, a pair for a pair."""
    saved, code = plain(saved), plain(code)
    if code is ... or code is None or saved is None:
        return True
    if isinstance(code, tuple | list) or isinstance(saved, tuple | list):
        both = isinstance(code, tuple | list) and isinstance(saved, tuple | list)
        return both and len(saved) == len(code)  # type: ignore[arg-type] # both are
    return isinstance(saved, int | float) == isinstance(code, int | float)


def _own(value: Any) -> Any:  # noqa: ANN401 - a setting's value
    """Copy a tensor, as ``load_state_dict`` would keep one tensor in several groups."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple):
        return tuple(map(_own, value))
    return value


def values_in(group: Group) -> Iterator[tuple[str, Any]]:
    """Yield the single values of a group's settings, those in tuples and lists one by one."""
    for key, value in group.items():
        if key in {"params", "param_names"}:
            continue
        several = isinstance(value, list | tuple)
        yield from ((key, plain(part)) for part in (value if several else [value]))
