"""A run stays what it should be, whatever happens to it and in whatever order.

Random operations are played on a run with nnlr and on a plain reference of the same run,
which shares no code with it, and everything is compared after each. A sequence that fails is
printed with the few operations that it takes: paste them and play them.
"""

import warnings
from collections import Counter

import pytest

import nnlr
from nnlr import _regroup as regrouping
from nnlr._apply.lock import Locks
from nnlr._schedule import base_rate, schedule
from nnlr._schedule.base_rate import BaseRate
from nnlr.checkpoint import _fit as fit
from nnlr.checkpoint import _on_load as on_load
from nnlr.checkpoint._names import Match
from tests.laws import mishaps
from tests.laws import operations as ops
from tests.laws.draw import check, play, sequence
from tests.laws.reference_curves import CURVES
from tests.laws.reference_run import Layout, Recipe
from tests.laws.sequences import Run, Setup

pytestmark = pytest.mark.no_cover

SAMPLE = range(60)
ALL = 3000


@pytest.mark.parametrize("tens", range(len(SAMPLE) // 10))
def test_nothing_is_lost_and_no_ratio_is_wrong(tens):
    """Every rate, weight, state and flag is that of a plain run of the same operations."""
    for number in SAMPLE[10 * tens : 10 * tens + 10]:
        check(number)


@pytest.mark.full
@pytest.mark.parametrize("hundreds", range(ALL // 100))
def test_thousands_of_sequences(hundreds):
    """The same, many more times."""
    for number in range(100 * hundreds, 100 * hundreds + 100):
        check(number)


# --- can the test fail? -----------------------------------------------------------------------


def test_a_sequence_can_be_replayed_from_what_is_printed():
    """Its text is Python for the same sequence."""
    words = {
        **vars(ops),
        **vars(mishaps),
        "Setup": Setup,
        "Layout": Layout,
        "Recipe": Recipe,
    }
    for number in SAMPLE:
        assert sequence(number) == eval(repr(sequence(number)), words)  # noqa: S307 - ours


def test_a_failure_is_told_by_the_operations_that_it_takes(monkeypatch):
    """The other operations and parts are taken out before it is printed."""
    lost_ratio(monkeypatch)
    text = r"sequence \d+: AssertionError: after"
    with pytest.raises(AssertionError, match=text) as told:
        all(map(check, SAMPLE))
    assert str(told.value).count("\n") < 8


def test_the_sample_reaches_everything():
    """Every operation happens many times, and every schedule is stepped."""
    done, stepped = Counter(), set()
    for number in SAMPLE:
        setup, operations = sequence(number)
        run = Run(setup)
        for operation in operations:
            done[type(operation)] += operation.play(run) is not False
            stepped |= {c.kind for c in run.ref.curves.values() if c.steps > 1}
    assert set(ops.Operation.__subclasses__()) == set(done)
    assert min(done.values()) >= 5, done
    assert set(CURVES) == stepped


def swapped_state(patch):
    """Parameters of one shape get each other's state."""
    original = regrouping._state_by_name

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

    patch.setattr(regrouping, "_state_by_name", mutant)


def lost_state(patch):
    """A new plan is a new start."""
    patch.setattr(regrouping, "_state_by_name", lambda *_: {})


def leaked_state(patch):
    """State of what is no longer trained stays."""
    original = regrouping._replace

    def mutant(optimizer, fresh, kept):
        before = dict(optimizer.state)
        original(optimizer, fresh, {**before, **kept})

    patch.setattr(regrouping, "_replace", mutant)


def lost_settings(patch):
    """Settings that the plan does not speak of fall back to defaults."""
    patch.setattr(regrouping, "_agreed_settings", lambda _: {})


def lost_bases(patch):
    """A regrouped optimizer keeps its old base rates."""
    patch.setattr(regrouping, "set_bases", lambda *_: None)


def lost_progress(patch):
    """Regrouping starts the schedule again."""
    original = base_rate.rebase

    def mutant(optimizer, before):
        for rate in base_rate.scheduled(optimizer).values():
            rate.group["lr"] = rate.base
        original(optimizer, before)

    patch.setattr(base_rate, "rebase", mutant)


def lost_ratio(patch):
    """Every group gets the base rate."""

    def mutant(rate, groups):
        for group in groups:
            group[rate.key] = rate.value()

    patch.setattr(BaseRate, "write", mutant)


def squared_multiplier(patch):
    """On resume, rates that have their multiplier get it again."""
    original = schedule._Ratios.load_state_dict

    def mutant(scheduler, state):
        original(scheduler, state)
        for group in scheduler.optimizer.param_groups:
            group["lr"] = group["lr"] * group["lr_mult"]

    patch.setattr(schedule._Ratios, "load_state_dict", mutant)


def restarted_schedule(patch):
    """On resume, the schedule is at its beginning."""
    patch.setattr(schedule._Curve, "load_state_dict", lambda *_: None)


def forgotten_locks(patch):
    """What the plan locks goes on having gradients."""
    patch.setattr(Locks, "apply", lambda *_: [])


def early_locks(patch):
    """Gradients are switched before it is clear that the plan fits."""
    original = nnlr.Plan.fit

    def mutant(*args, **kwargs):
        fitted = original(*args, **kwargs)
        with warnings.catch_warnings(action="ignore"):  # of whom it is locked for
            fitted.locks.apply()
        return fitted

    patch.setattr(nnlr.Plan, "fit", mutant)


def torn_load(patch):
    """A broken file is read as far as it goes."""

    def mutant(scheduler, state):
        try:
            scheduler._load(state)
        except (KeyError, TypeError) as error:
            text = "This is not the state of such a schedule"
            raise nnlr.ConfigError(text) from error

    patch.setattr(schedule._Ratios, "load_state_dict", mutant)


def state_by_position(patch):
    """A checkpoint is taken in the order in which it is."""

    def mutant(saved, names, groups):
        ids = [id(tensor) for group in groups for tensor in group["params"]]
        pairs = zip(ids, range(len(saved)), strict=False)
        return Match(source=dict(pairs), unused={})

    patch.setattr(fit, "match", mutant)


def saved_rates(patch):
    """Rates and multipliers are those of the checkpoint."""

    class Mutant(fit.Fitting):
        def __init__(self, targets, saved, present, policy):
            super().__init__(targets, saved, present, "checkpoint")

    patch.setattr(fit, "Fitting", Mutant)


def saved_bases(patch):
    """A schedule goes on at the base rates with which it was saved."""
    patch.setattr(BaseRate, "move", lambda *_: None)


def silent_load(patch):
    """Nothing is said of differences between checkpoint and code."""
    patch.setattr(on_load, "warn_about", lambda *_, **__: None)


MUTANTS = [
    *(swapped_state, lost_state, leaked_state, lost_settings, lost_bases),
    *(lost_progress, lost_ratio, squared_multiplier, restarted_schedule),
    *(forgotten_locks, early_locks, torn_load),
    *(state_by_position, saved_rates, saved_bases, silent_load),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mistake_is_found_by_the_sample(mutant, monkeypatch):
    """Each of these once was, or might be, a mistake in the package."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match="operations: "):
        all(play(*sequence(number)) for number in SAMPLE)
