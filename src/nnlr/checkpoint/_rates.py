"""The rates of groups after loading: base times multiplier, judged apart."""

from collections.abc import Iterable, Sequence
from math import isclose
from typing import Any

from torch import Tensor

from nnlr._schedule.origin import MULTIPLIERS, number
from nnlr._schedule.progress import filled
from nnlr.checkpoint._sides import NOISE, NOTES, Source, Target


class Rate:
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

    def of_other_progress(self, target: Target) -> list[Source]:
        """Return the saved groups of a target that had come another way than the first."""
        told = [(s, done) for s in target.sources if (done := self._progress(s)) is not None]
        return [s for s, done in told if not isclose(done, told[0][1], rel_tol=NOISE)]

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
        for note in NOTES[self.key]:
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
