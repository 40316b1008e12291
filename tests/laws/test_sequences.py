"""A run stays what it should be, whatever happens to it and in whatever order.

Random operations are played on a run with nnlr and on a plain reference of the same run,
which shares no code with it, and everything is compared after each. A sequence that fails is
printed with the few operations that it takes: paste them and play them.
"""

import functools
import warnings
from collections import Counter

import pytest

import nnlr
from nnlr import _regroup as regrouping
from nnlr._apply.lock import Locks
from nnlr._schedule import base_rate, ratio_scheduler, start
from nnlr._schedule.base_rate import BaseRate
from nnlr._schedule.course import Course
from nnlr.checkpoint import _fit as fit
from nnlr.checkpoint import _on_load as on_load
from nnlr.checkpoint import _settings as settings
from nnlr.checkpoint._names import Match
from tests.helpers import thinned
from tests.laws import mishaps
from tests.laws import operations as ops
from tests.laws.draw import check, play, sequence
from tests.laws.reference_curves import CURVES
from tests.laws.reference_run import Layout, Recipe
from tests.laws.sequences import Setup

pytestmark = pytest.mark.no_cover

SAMPLE = range(60)
ALL = 3000

checked = functools.cache(check)  # for two tests


@pytest.mark.parametrize("tens", range(len(SAMPLE) // 10))
def test_nothing_is_lost_and_no_ratio_is_wrong(tens):
    """Every rate, weight, state and flag is that of a plain run of the same operations."""
    for number in SAMPLE[10 * tens : 10 * tens + 10]:
        checked(number)


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
        list(map(check, SAMPLE))
    assert str(told.value).count("\n") < 8


def test_the_sample_reaches_everything():
    """Every operation happens many times, and every schedule is stepped."""
    done, stepped = Counter(), set()
    for number in SAMPLE:
        played, with_steps = checked(number)
        done.update(played)
        stepped |= with_steps
    assert set(ops.Operation.__subclasses__()) == set(done)
    assert min(done.values()) >= 5, done
    assert set(CURVES) == stepped


def swapped_state(patch):
    """Parameters of one shape get each other's state."""
    original = regrouping._state_by_name

    def mutant(*args):
        kept, misfits = original(*args)
        by_shape = {}
        for tensor in kept:
            by_shape.setdefault(tensor.shape, []).append(tensor)
        swapped = {
            tensor: kept[other]
            for alike in by_shape.values()
            for tensor, other in zip(alike, alike[1:] + alike[:1], strict=True)
        }
        return swapped, misfits

    patch.setattr(regrouping, "_state_by_name", mutant)


def lost_state(patch):
    """A new plan is a new start."""
    patch.setattr(regrouping, "_state_by_name", lambda *_: ({}, []))


def leaked_state(patch):
    """State of what is no longer trained stays."""
    original = regrouping._replace

    def mutant(optimizer, fresh, kept):
        before = dict(optimizer.state)
        original(optimizer, fresh, {**before, **kept})

    patch.setattr(regrouping, "_replace", mutant)


def lost_settings(patch):
    """What a hand has written falls back to defaults."""
    patch.setattr(regrouping, "_continued", lambda *_: {})


def lost_bases(patch):
    """A regrouped optimizer keeps its old base rates."""
    patch.setattr(regrouping, "set_bases", lambda *_: None)


def lost_progress(patch):
    """Regrouping starts the schedule again."""
    original = base_rate.rebase

    def mutant(optimizer):
        for rate in base_rate.scheduled(optimizer).values():
            for course in (course for share in rate.current for course in share.each):
                course.group["lr"] = course.start
        original(optimizer)

    patch.setattr(base_rate, "rebase", mutant)


def lost_ratio(patch):
    """Every group gets the base rate."""

    def mutant(rate, groups):
        return [(group, rate.value()) for group in groups]

    patch.setattr(BaseRate, "rates", mutant)


def squared_multiplier(patch):
    """On resume, rates that have their multiplier get it again."""
    original = ratio_scheduler._Ratios.load_state_dict

    def mutant(scheduler, state):
        original(scheduler, state)
        for group in scheduler.optimizer.param_groups:
            group["lr"] = group["lr"] * group["lr_mult"]

    patch.setattr(ratio_scheduler._Ratios, "load_state_dict", mutant)


def restarted_schedule(patch):
    """On resume, the schedule is at its beginning."""
    patch.setattr(Course, "load", lambda *_, **__: {})


def scaled_floors(patch):
    """At other base rates the whole course is scaled, with its floors and peaks."""
    original = Course.load

    def mutant(course, state, *, by_code, base_differs):
        return original(course, state, by_code=by_code, base_differs=False)

    patch.setattr(Course, "load", mutant)


def saved_floors(patch):
    """A floor that has changed in the code is that of the state, in silence."""
    patch.setattr(Course, "_changes", lambda *_: {})


def kept_momentum(patch):
    """A new schedule starts with what an earlier one has made of momentum."""
    patch.setattr(start, "_give_back", lambda *_: [])


def kept_schedule(patch):
    """An earlier schedule goes on beside a new one."""
    patch.setattr(ratio_scheduler._Ratios, "_over", lambda _: None)


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
    original = ratio_scheduler._Ratios.load_state_dict

    def mutant(scheduler, state):
        try:
            original(scheduler, state)
        except nnlr.ConfigError:
            if inner := state.get("lr", {}).get("scheduler"):
                scheduler.scheduler.load_state_dict(inner)
            raise

    patch.setattr(ratio_scheduler._Ratios, "load_state_dict", mutant)


def state_by_position(patch):
    """A checkpoint is taken in the order in which it is."""

    def mutant(saved, names, groups):
        ids = [id(tensor) for group in groups for tensor in group["params"]]
        pairs = zip(ids, range(len(saved)), strict=False)
        return Match(source=dict(pairs), unused={})

    patch.setattr(fit, "match", mutant)


def saved_rates(patch):
    """Rates and multipliers are those of the checkpoint."""

    class Mutant(fit.Settings):
        def __init__(self, targets, saved, policy):
            super().__init__(targets, saved, "checkpoint")

        def _agreed(self, key, target):
            return next((source.group[key] for source in target.having(key)), None)

    patch.setattr(fit, "Settings", Mutant)


def lost_moves(patch):
    """What a hand has written is lost on resume."""
    patch.setattr(settings, "_continues", lambda *_: False)


def lost_multipliers(patch):
    """What a hand has made of a multiplier is lost on resume."""
    patch.setattr(settings.Settings, "_multiplier", lambda *_: None)


def saved_bases(patch):
    """A schedule goes on at the base rates with which it was saved."""
    original = ratio_scheduler._Ratios.load_state_dict

    def mutant(scheduler, state):
        original(scheduler, state)
        for key, rate in scheduler._rates.items():
            rate.bases = {None: state[key]["base"]}
        scheduler._write()

    patch.setattr(ratio_scheduler._Ratios, "load_state_dict", mutant)


def silent_load(patch):
    """Nothing is said of differences between checkpoint and code."""
    patch.setattr(on_load, "warn_about", lambda *_, **__: None)


MUTANTS = [
    *(swapped_state, lost_state, leaked_state, lost_settings, lost_bases),
    *(lost_progress, lost_ratio, squared_multiplier, restarted_schedule),
    *(scaled_floors, saved_floors, kept_momentum, kept_schedule),
    *(forgotten_locks, early_locks, torn_load),
    *(state_by_position, saved_rates, lost_moves, lost_multipliers, saved_bases, silent_load),
]


@pytest.mark.parametrize("mutant", thinned(MUTANTS, 2), ids=lambda mutant: mutant.__name__)
def test_a_mistake_is_found_by_the_sample(mutant, monkeypatch):
    """Each of these once was, or might be, a mistake in the package."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match="operations: "):
        all(play(*sequence(number)) for number in SAMPLE)
