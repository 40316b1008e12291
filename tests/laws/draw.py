"""Random sequences of operations, each known by its number, and the shortest that fails."""

import random
import time
from collections import Counter
from dataclasses import replace

import pytest

from tests.laws import mishaps
from tests.laws import operations as ops
from tests.laws.reference_curves import CURVES, FLOOR, HIGHER
from tests.laws.reference_run import Layout, Recipe
from tests.laws.sequences import WRAPPERS, Run, Setup

# "head.*" reaches a tied embedding by its second name; a part of a product that named it
# by the first would be refused as a contradiction.
PATTERNS = (*("*", "blocks.*", "blocks.0.*", "blocks.1.up.*", "*.bias", "*norm*", "head.*"),)
MULTS = (1.0, 0.1, 1 / 3, 0.7, 2.0)


def sequence(number):
    """The sequence of a number: where it begins, and what happens."""
    draw = random.Random(number)  # noqa: S311 - no secrets here
    adaptive = draw.random() < 0.6
    # torch's fused SGD fails where only some parameters of a group have a momentum yet.
    step = draw.choice(["for-loop", "foreach", *["fused"] * adaptive])
    first = recipe(draw)
    curves = (draw.choice([*CURVES]),) if draw.random() < 0.75 else ()
    if curves and first.weight_decay and draw.random() < 0.5:
        curves += ("cosine",)
    setup = Setup(
        recipe=first,
        schedule=curves,
        layout=Layout(tied=draw.random() < 0.5),
        adaptive=adaptive,
        step=step,
        tensor_lr=step != "foreach" and draw.random() < 0.2,
    )
    return setup, [operation(draw) for _ in range(draw.randint(5, 20))]


def recipe(draw):
    """A product of a few parts, and base rates."""
    parts = [part(draw) for _ in range(draw.randint(0, 3))]
    if draw.random() < 0.25:
        parts.append(("own", draw.choice(PATTERNS), draw.choice([0.5, 0.8])))
    keep = draw.random() < 0.2
    if not keep:  # a plan that trains nothing is an operation of its own
        parts = [each for each in parts if each != ("freeze", "*")]
    return Recipe(
        tuple(parts),
        lr=draw.choice([0.1, 0.1, 0.03, 0.2]),
        weight_decay=draw.choice([0.05, 0.05, 0.2, 0.0]),
        decay=draw.choice(["coupled", "coupled", "independent", "sqrt"]),
        keep=keep,
    )


def part(draw):
    """One scheme of a product."""
    one, two, three = (draw.choice(MULTS) for _ in range(3))
    rules = (("head.*", one, two), ("blocks.1.*", two, three), ("*.bias", one, three))
    return draw.choice(
        [
            ("rule", draw.choice(PATTERNS), one, draw.choice([two, 0.0])),
            ("list", rules),
            ("freeze", draw.choice(PATTERNS)),
            ("layers", draw.choice([0.5, 0.9])),
            ("no decay",),
        ]
    )


# How often each happens, and how it is drawn.
OPERATIONS = (
    (6, lambda d: ops.Train(d.randint(1, 4))),
    (3, lambda d: ops.Step(d.choice(["", *PATTERNS[1:]]))),
    (3, lambda d: ops.Tick(d.choice([1.0, 0.5, 2.0]))),
    (3, lambda d: ops.Schedule(d.choice([*CURVES]), d.choice([None, "cosine"]))),
    (2, lambda _: ops.Flip()),
    (2, lambda d: ops.Tilt(d.choice(PATTERNS[1:]), d.choice([0.5, 1.5]))),
    (1, lambda d: ops.SetBase(d.choice([0.1, 0.05, 0.3]))),
    (4, lambda d: ops.Regroup(recipe(d))),
    (1, lambda _: ops.Regroup(Recipe((("freeze", "*"),), lr=0.7))),
    (3, lambda d: ops.Gradient(d.choice(PATTERNS[1:]), d.random() < 0.4)),
    (3, lambda d: ops.Change(d.choice(ops.CHANGES), recipe(d))),
    (1, lambda d: ops.Adapter(d.choice(MULTS))),
    (1, lambda d: ops.Wrap(d.choice([*WRAPPERS, ""]))),
    (2, lambda d: ops.Copied(d.choice(["deepcopy", "pickle"]))),
    (1, lambda d: ops.Swap(recipe(d))),
    (4, lambda _: mishaps.Save()),
    (6, lambda d: mishaps.Load(d.randint(0, 3), d.randint(0, 5), *load(d))),
    (1, lambda _: mishaps.Crash()),
    (1, lambda d: mishaps.Poison(d.randint(0, 9))),
    (1, lambda d: mishaps.BadPlan(d.choice(["option", "model", "stale"]))),
    (2, lambda d: mishaps.BadFile(d.choice(mishaps.BAD_FILES))),
)


def load(draw):
    """Into what a checkpoint is loaded, and how often."""
    fresh, twice = draw.random() < 0.7, draw.random() < 0.3
    other = recipe(draw) if draw.random() < 0.6 else None
    change, floor = draw.choice(["", "", "grow", "untie"]), draw.choice([FLOOR, FLOOR, HIGHER])
    return fresh, twice, other, change, floor


def operation(draw):
    """One operation."""
    weights, makers = zip(*OPERATIONS, strict=True)
    return draw.choices(makers, weights)[0](draw)


def play(setup, operations):
    """Play a sequence, and compare after every operation.

    Returns:
        How often each kind of operation was done, and the kinds of schedules that were stepped.
    """
    run, begun, done, stepped = Run(setup), 0, Counter(), set()
    try:
        run.check()
        for each in operations:
            begun += 1
            done[type(each)] += each.play(run) is not False
            run.check()
            stepped |= {curve.kind for curve in run.ref.curves.values() if curve.steps > 1}
    except (AssertionError, pytest.fail.Exception) as error:
        told = f"after {begun} of {len(operations)} operations: {error}"
        raise AssertionError(told) from error
    return done, stepped


def failure(setup, operations):
    """The error that a sequence ends with, or ``None``."""
    try:
        play(setup, operations)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
        return error
    return None


def shortest(setup, operations, error, seconds=60):
    """What is left of a failing sequence when all that can go is gone."""
    until, size = time.monotonic() + seconds, len(operations)

    def still(*candidate):
        other = failure(*candidate) if time.monotonic() < until else None
        return type(other) is type(error)

    while size:
        for at in range(len(operations) - size, -1, -size):
            fewer = operations[:at] + operations[at + size :]
            if still(setup, fewer):
                operations = fewer
        size //= 2
    for at, each in enumerate(operations):
        recipe = getattr(each, "recipe", None)
        for part in recipe.parts if recipe else ():
            parts = tuple(p for p in recipe.parts if p != part)
            plainer = replace(each, recipe=replace(recipe, parts=parts))
            fewer = [*operations[:at], plainer, *operations[at + 1 :]]
            if still(setup, fewer):
                operations, recipe, each = fewer, plainer.recipe, plainer  # noqa: PLW2901
    for part in setup.recipe.parts:
        parts = tuple(p for p in setup.recipe.parts if p != part)
        plainer = replace(setup, recipe=replace(setup.recipe, parts=parts))
        if still(plainer, operations):
            setup = plainer
    return setup, operations


def check(number):
    """Play the sequence of a number; if it fails, say how little it takes."""
    setup, operations = sequence(number)
    try:
        return play(setup, operations)
    except Exception as caught:  # noqa: BLE001 - whatever it is, it is shown
        error = caught
    setup, operations = shortest(setup, operations, error)
    lines = "".join(f"\n        {each!r}," for each in operations)
    error = failure(setup, operations) or error
    raise AssertionError(
        f"sequence {number}: {type(error).__name__}: {error}\n"
        f"    play(\n      {setup!r},\n      [{lines}\n      ],\n    )"
    ) from error
