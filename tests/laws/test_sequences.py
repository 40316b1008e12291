"""A run stays what it should be, whatever happens to it and in whatever order."""

from collections import Counter

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

import nnlr
from nnlr import baserate, live, scheduling, tensors
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
        try:
            operation.play(run)
            run.check()
        except AssertionError as error:
            raise AssertionError(
                f"after {position + 1} of {len(sequence)} operations: {error}"
            ) from error


@given(setups(), SEQUENCES)
def test_nothing_is_lost_and_no_ratio_is_wrong(setup, sequence):
    """Every rate, weight, state and flag is that of a plain run of the same operations."""
    play(setup, sequence)


@pytest.mark.full
@pytest.mark.parametrize("number", range(4))
def test_thousands_of_sequences(number):
    """The same for other random numbers, and many more of them."""
    many = settings(max_examples=500, derandomize=False, database=None, deadline=None)
    seed(number)(many(given(setups(), SEQUENCES)(play)))()


# --- can the test fail? -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample():
    """Sequences as the first test plays them, always the same."""
    found = []

    @settings(max_examples=60, phases=[Phase.generate], derandomize=True, database=None)
    @given(setups(), SEQUENCES)
    def collect(setup, sequence):
        found.append((setup, sequence))

    collect()
    return found


def test_a_sequence_can_be_replayed_from_what_is_printed(sample):
    """Its text is Python for the same sequence."""
    words = {**vars(ops), "Setup": Setup, "Layout": Layout}
    assert sample == eval(repr(sample), words)  # noqa: S307 - our own text


def test_the_sample_reaches_everything(sample):
    """Every operation happens many times, and every schedule is stepped."""
    done, stepped = Counter(), set()
    for setup, sequence in sample:
        run = Run(setup)
        for operation in sequence:
            done[type(operation)] += operation.play(run) is not False
            stepped |= {c.kind for c in run.ref.curves.values() if c.steps > 1}
    assert set(ops.Operation.__subclasses__()) == set(done)
    assert min(done.values()) >= 5, done
    assert set(CURVES) == stepped


def swapped_state(patch):
    """Parameters of one shape get each other's state."""
    original = live._state_by_name

    def mutant(optimizer, fresh):
        kept = original(optimizer, fresh)
        by_shape = {}
        for tensor in kept:
            by_shape.setdefault(tensor.shape, []).append(tensor)
        return {
            tensor: kept[other]
            for alike in by_shape.values()
            for tensor, other in zip(alike, alike[1:] + alike[:1], strict=True)
        }

    patch.setattr(live, "_state_by_name", mutant)


def lost_state(patch):
    """A new plan is a new start."""
    patch.setattr(live, "_state_by_name", lambda *_: {})


def leaked_state(patch):
    """State of what is no longer trained stays."""
    original = live._replace

    def mutant(optimizer, fresh, kept):
        before = dict(optimizer.state)
        original(optimizer, fresh, {**before, **kept})

    patch.setattr(live, "_replace", mutant)


def lost_settings(patch):
    """Settings that the plan does not speak of fall back to defaults."""
    patch.setattr(live, "_agreed_settings", lambda _: {})


def lost_bases(patch):
    """A regrouped optimizer keeps its old base rates."""
    patch.setattr(live, "set_bases", lambda *_: None)


def lost_progress(patch):
    """Regrouping starts the schedule again."""
    original = baserate.rebase

    def mutant(optimizer, before):
        for rate in baserate.scheduled(optimizer).values():
            rate.group["lr"] = rate.base
        original(optimizer, before)

    patch.setattr(baserate, "rebase", mutant)


def lost_ratio(patch):
    """Every group gets the base rate."""

    def mutant(rate, groups):
        for group in groups:
            group[rate.key] = rate.value()

    patch.setattr(baserate.BaseRate, "write", mutant)


def squared_multiplier(patch):
    """On resume, rates that have their multiplier get it again."""
    original = scheduling._Ratios.load_state_dict

    def mutant(scheduler, state):
        original(scheduler, state)
        for group in scheduler.optimizer.param_groups:
            group["lr"] = group["lr"] * group["lr_mult"]

    patch.setattr(scheduling._Ratios, "load_state_dict", mutant)


def restarted_schedule(patch):
    """On resume, the schedule is at its beginning."""
    patch.setattr(scheduling._Curve, "load_state_dict", lambda *_: None)


def forgotten_locks(patch):
    """What the plan locks goes on having gradients."""
    patch.setattr(tensors.Locks, "apply", lambda _: [])


def early_locks(patch):
    """Gradients are switched before it is clear that the plan fits."""
    original = live.regroup

    def mutant(optimizer, fit):
        fit.locks.apply()
        original(optimizer, fit)

    patch.setattr(live, "regroup", mutant)


def torn_load(patch):
    """A broken file is read as far as it goes."""

    def mutant(scheduler, state):
        try:
            scheduler._load(state)
        except (KeyError, TypeError) as error:
            text = "This is not the state of such a schedule"
            raise nnlr.ConfigError(text) from error

    patch.setattr(scheduling._Ratios, "load_state_dict", mutant)


MUTANTS = [
    *(swapped_state, lost_state, leaked_state, lost_settings, lost_bases),
    *(lost_progress, lost_ratio, squared_multiplier, restarted_schedule),
    *(forgotten_locks, early_locks, torn_load),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mistake_is_found_by_the_sample(mutant, sample, monkeypatch):
    """Each of these once was, or might be, a mistake in the package."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match="operations: "):
        for setup, sequence in sample:
            play(setup, sequence)
