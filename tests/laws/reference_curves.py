"""Schedules in closed form, in plain Python: what they make of a base rate, step by step."""

import math
from dataclasses import dataclass, replace

FLOOR, HIGHER, PEAK, CYCLE = 0.02, 0.05, 0.3, 40


def _cosine(start, end, part):
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _one_cycle(t, start, top, end):
    summit = 0.3 * CYCLE - 1
    if t <= summit:
        return _cosine(start, top, t / summit)
    return _cosine(top, end, (t - summit) / (CYCLE - 1 - summit))


def _warm_up(base, t, floor):
    if t < 4:
        return base * (0.25 + 0.75 * t / 4)
    return _cosine(base, floor, (t - 4) / 8)


# The base rate after t steps of a schedule that began at another, perhaps down to a floor.
CURVES = {
    "steps": lambda base, t, _: base * 0.3 ** (t // 3),
    "exponential": lambda base, t, _: base * 0.9**t,
    "function": lambda base, t, _: base / (1 + t),
    "cosine": lambda base, t, floor: _cosine(base, floor, t / 12),
    "restarts": lambda base, t, floor: _cosine(base, floor, t % 5 / 5),
    "warm up": _warm_up,
    "one cycle": lambda _, t, __: _one_cycle(t, PEAK / 25, PEAK, PEAK / 25e4),
    "plateau": None,  # depends on what happens
}


@dataclass
class Curve:
    """One scheduled base rate."""

    kind: str
    start: float
    now: float  # the base rate that `start` has become
    code: float  # the base rate at which the code has built it
    floor: float = FLOOR
    steps: int = 0
    held: float = 0.0  # plateau only, like the next two
    best: float = math.inf
    bad: int = 0

    def __post_init__(self):
        self.held = self.held or self.start

    def step(self, metric):
        """One step of the scheduler."""
        self.steps += 1
        if self.kind != "plateau":
            return
        if metric < self.best * (1 - 1e-4):
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.bad > 1:
            # A rate below the floor stays.
            self.held, self.bad = min(self.held, max(self.held * 0.5, self.floor)), 0

    def resumed(self, old, new, code, floor):
        """This curve, saved at one base rate, in code that has another and built it so.

        The course of the code is run again up to here, so that floors and peaks are the code's;
        what followed a metric cannot be run again, and is where it was, relative to the base.
        """
        start = code if old != new or self.misses(floor) else self.start
        now = self.now * (new / old) if old else new
        held = self.held * (start / self.start)
        return replace(self, start=start, now=now, code=code, floor=floor, held=held)

    def misses(self, floor):
        """Whether another floor makes it another course."""
        return floor != self.floor and self.kind in {"cosine", "restarts", "warm up", "plateau"}

    def value(self):
        """The base rate at this moment."""
        curve = CURVES[self.kind]
        rate = curve(self.start, self.steps, self.floor) if curve else self.held
        return rate * (self.now / self.start)

    def momentum(self):
        """What a one-cycle schedule makes of momentum."""
        if self.kind != "one cycle":
            return None
        return _one_cycle(self.steps, 0.95, 0.85, 0.95)
