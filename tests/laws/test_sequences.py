"""A run stays what it should be, whatever happens to it and in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from tests.laws import operations as ops
from tests.laws.reference_run import CURVES, Layout, Recipe
from tests.laws.sequences import WRAPPERS, Run, Setup

# "head.*" reaches a tied embedding by its second name; a part of a product that named it
# by the first would be refused as a contradiction.
PATTERNS = st.sampled_from(
    ["*", "blocks.*", "blocks.0.*", "blocks.1.up.*", "*.bias", "*norm*", "head.*"]
)
MULTS = st.sampled_from([1.0, 0.1, 1 / 3, 0.7, 2.0])
RULES = st.tuples(PATTERNS, MULTS, MULTS | st.just(0.0))


@st.composite
def recipes(draw):
    """A product of a few parts."""
    parts = draw(
        st.lists(
            RULES.map(lambda rule: ("rule", *rule))
            | st.sampled_from([("layers", 0.5), ("layers", 0.9), ("no decay",)])
            | PATTERNS.map(lambda pattern: ("freeze", pattern))
            | st.tuples(MULTS, MULTS, MULTS).map(
                lambda m: (
                    "list",
                    (("head.*", *m[:2]), ("blocks.1.*", *m[1:]), ("*.bias", *m[::2])),
                )
            ),
            max_size=3,
        )
    )
    if draw(st.integers(0, 3)) == 0:
        parts.append(("own", draw(PATTERNS), draw(st.sampled_from([0.5, 0.8]))))
    return Recipe(
        tuple(parts),
        lr=draw(st.sampled_from([0.1, 0.03, 0.2])),
        weight_decay=draw(st.sampled_from([0.05, 0.2, 0.0])),
        decay=draw(st.sampled_from(["coupled", "coupled", "independent", "sqrt"])),
        keep=draw(st.integers(0, 4)) == 0,
    )


OPERATIONS = {
    "train": st.builds(ops.Train, st.integers(1, 4)),
    "step": st.builds(ops.Step, st.just("") | PATTERNS),
    "tick": st.builds(ops.Tick, st.sampled_from([1.0, 0.5, 2.0])),
    "schedule": st.builds(
        ops.Schedule, st.sampled_from([*CURVES]), st.none() | st.just("cosine")
    ),
    "set base": st.builds(ops.SetBase, st.sampled_from([0.1, 0.05, 0.3])),
    "regroup": st.builds(ops.Regroup, recipes()),
    "gradient": st.builds(ops.Gradient, PATTERNS, st.booleans()),
    "change": st.builds(
        ops.Change, st.sampled_from(["grow", "shrink", "untie", "resize"]), recipes()
    ),
    "adapter": st.builds(ops.Adapter, MULTS),
    "wrap": st.builds(ops.Wrap, st.sampled_from([*WRAPPERS, ""])),
    "copied": st.builds(ops.Copied, st.sampled_from(["deepcopy", "pickle"])),
    "swap": st.builds(ops.Swap, recipes()),
    "save": st.builds(ops.Save),
    "load": st.builds(
        ops.Load, st.integers(0, 3), st.integers(0, 5), st.booleans(), st.booleans()
    ),
    "crash": st.builds(ops.Crash),
    "poison": st.builds(ops.Poison, st.integers(0, 9)),
    "bad plan": st.builds(ops.BadPlan, st.sampled_from(["option", "model", "stale"])),
    "bad file": st.builds(
        ops.BadFile, st.sampled_from(["optimizer", "another", "torn", "partial"])
    ),
}
# What happens more often than the rest.
OFTEN = ["train", "train", "step", "regroup", "regroup", "save", "load", "load"]
SEQUENCES = st.lists(
    st.sampled_from([*OPERATIONS, *OFTEN]).flatmap(OPERATIONS.get),
    min_size=6,
    max_size=30,
)


@st.composite
def setups(draw):
    """An optimizer in one of its forms, on a plan that trains something."""
    adaptive = draw(st.booleans())
    # torch's fused SGD fails where only some parameters of a group have a momentum yet.
    ways = ["for-loop", "foreach", *["fused"] * adaptive]
    step = draw(st.sampled_from(ways))
    recipe = draw(recipes().filter(trains))
    curves = [draw(st.sampled_from([*CURVES]))] * (draw(st.integers(0, 3)) > 0)
    if curves and recipe.weight_decay and draw(st.booleans()):
        curves.append("cosine")
    return Setup(
        recipe=recipe,
        schedule=tuple(curves),
        layout=Layout(tied=draw(st.booleans())),
        adaptive=adaptive,
        step=step,
        tensor_lr=step != "foreach" and draw(st.integers(0, 3)) == 0,
    )


def trains(recipe):
    return recipe.keep or ("freeze", "*") not in recipe.parts


def play(setup, sequence):
    """Play a sequence, and compare after every operation."""
    run = Run(setup)
    run.check()
    for position, operation in enumerate(sequence):
        operation.play(run)
        try:
            run.check()
        except AssertionError as error:
            raise AssertionError(
                f"after {position + 1} of {len(sequence)} operations: {error}"
            ) from error


@given(setups(), SEQUENCES)
def test_nothing_is_lost_and_no_ratio_is_wrong(setup, sequence):
    """Every rate, weight, state and flag is that of a plain run of the same operations."""
    play(setup, sequence)
