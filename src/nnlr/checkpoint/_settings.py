"""The settings of groups after loading: what training moved continues, the rest is the code's.

Each group notes its settings as they were built (``_schedule/origin.py``). A saved value that is
still the noted one is given up for the code's; one that had moved continues. A rate is base times
multiplier, and the two are judged apart: the base continues in proportion to the code's.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from torch import Tensor

from nnlr._schedule.moved import MOVED
from nnlr._schedule.origin import MULTIPLIERS, ORIGIN, PLAIN, number, plain
from nnlr._schedule.progress import filled
from nnlr.checkpoint._rates import Rate
from nnlr.checkpoint._report import Difference, short
from nnlr.checkpoint._sides import APART, NOTES, OF_THE_CODE, Source, Target, same
from nnlr.errors import ConfigError

# What schedulers cycle beside the rate: a code that starts it elsewhere cycles from there.
_CYCLED: Final = {"momentum", "betas"}


class Settings:
    """Decides the settings of all groups, and collects the differences."""

    def __init__(self, targets: Sequence[Target], saved: Sequence[Source], policy: str) -> None:
        self.policy = policy
        self._rates = {  # of each algorithm; those of a single one are like any of several
            name: [
                Rate(
                    key,
                    [target for target in targets if target.algorithm == name],
                    [s for s in saved if s.algorithm in {name, None}] or saved,
                )
                for key in MULTIPLIERS
            ]
            for name in dict.fromkeys(target.algorithm for target in targets)
        }
        # The names and the facts of each difference.
        self._merged: dict[object, tuple[list[str], tuple[str, Any, Any, str]]] = {}

    def group(self, target: Target) -> dict[str, Any]:
        """Return the settings of one group."""
        settings = {k: v for k, v in target.group.items() if k not in {"params", "param_names"}}
        keys = [*target.group, *(key for source in target.sources for key in source.group)]
        for key in dict.fromkeys(keys):
            if key not in APART:
                self._setting(key, target, settings)
        for rate in self._rates[target.algorithm]:
            if self.policy == "checkpoint":
                self._saved_rate(rate, target, settings)
            elif number(target.group, rate.key) is not None:
                settings |= rate.coded(target, self._multiplier(rate, target))
                for source in rate.of_other_progress(target):
                    now = source.group[rate.key], settings[rate.key]
                    self._note(rate.key, source.names, *now, "code", differs=True)
            self._tell_rate(rate, target)
        if ORIGIN in target.group:
            settings[ORIGIN] = self._origin(target)
        notes = [s.group[MOVED] for s in target.sources if s.group.get(MOVED) is not None]
        if settings.pop(MOVED, None) is not None and notes:
            settings[MOVED] = dict(notes[0])
        return {key: _own(value) for key, value in settings.items()}

    def _setting(self, key: str, target: Target, settings: dict[str, Any]) -> None:
        """Decide whose value of a setting counts; ``settings`` holds that of the moment."""
        sources = target.having(key)
        code = target.origin.get(key, target.group.get(key, ...))
        sides = [
            target.group,
            *(side for source in sources for side in (source.group, source.origin)),
        ]
        values = [side.get(key, ...) for side in sides]
        alike = isinstance(code, PLAIN) and all(type(value) is type(code) for value in values)
        if alike and values.count(code) == len(values):
            return  # nobody wants another
        if key in OF_THE_CODE:
            if target.group.get(key) is not None:  # None leaves the choice to the optimizer
                self._tell(key, sources, target.group[key], "code")
            return
        if code is not ... and key in target.group and not same(target.group[key], code):
            settings[key] = code  # it goes back, if the checkpoint says nothing else
        sources = [source for source in sources if source.related is not False]
        if not sources:
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
        if key in target.group and code is not ... and target.wrote(key):
            changed = [
                source
                for source in sources
                if source.started_elsewhere(key, code) or (not counts and source.moved(key))
            ]
            self._tell(key, changed, code, "checkpoint" if counts else "code")

    def _multiplier(self, rate: "Rate", target: Target) -> float | None:
        """Return the multiplier of a group, if training had moved it.

        One that moves while training goes on in proportion to the code's.
        """
        sources = target.having(rate.mult)
        if not any(rate.mult in source.origin and source.moved(rate.mult) for source in sources):
            return None
        moved: float = self._agreed(rate.mult, target)
        start, code = number(sources[0].origin, rate.mult), rate.multiplier(target)
        if MOVED not in sources[0].group or start is None or code is None:
            return moved
        return moved if start == code else moved / start * code if start else code

    def _saved_rate(self, rate: "Rate", target: Target, settings: dict[str, Any]) -> None:
        """Take a rate and its multiplier from the checkpoint."""
        taken = {
            key: value
            for key in (rate.key, *NOTES[rate.key], rate.mult)
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

    def _tell_rate(self, rate: "Rate", target: Target) -> None:
        """Note where code and checkpoint have other bases or multipliers."""
        mult = rate.multiplier(target)
        start = number(target.origin, rate.key)
        sources = [*target.sources, *target.rerouted]
        for source in sources if start is not None else ():
            was, saved_start = number(source.origin, rate.mult), number(source.origin, rate.key)
            moved = was is not None and rate.mult in source.group and source.moved(rate.mult)
            moves = MOVED in source.group
            moved = moved and not (moves and MOVED in target.group)
            if was is None or mult is None:
                was_base, base = saved_start, start
            else:
                now = source.group[rate.mult] if moved else was
                self._note(
                    *(rate.mult, source.names, now, mult),
                    "checkpoint" if moved else self.policy,
                    differs=not same(now if moves else was, mult),
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
