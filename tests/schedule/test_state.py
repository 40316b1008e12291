"""The state of a schedule: whose it is, whether it is whole, and whose settings count."""

import copy
import functools
import gzip
import itertools
import math
import pickle
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr._schedule import identity
from nnlr._schedule.course_state import inventory
from nnlr._schedule.schedule import schedule
from tests.schedule.cases import BASE, grouped, parameters, run, saved
from tests.schedule.test_courses import MAKERS, built, go, network, plan_of, swa

OLD = Path(__file__).parents[1] / "reference" / "saved_by_0_1_0.pkl.gz"


def made(name, steps=0, **kwargs):
    """A schedule of a plan's optimizer that has taken some steps."""
    optimizer = built(torch.optim.SGD, momentum=0.9)
    scheduler = MAKERS[name](optimizer, **kwargs)
    go(scheduler, steps)
    return scheduler


@functools.cache
def state_of(name):
    """The state of such a schedule after three steps."""
    return saved(made(name, 3))


def as_it_is(scheduler):
    """Everything that a refused state must leave alone."""
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in scheduler.optimizer.param_groups
    ]
    return repr((scheduler.state_dict(), groups))


def without(state, path):
    """A copy of a state in which one key is missing."""
    state = copy.deepcopy(state)
    keys = path.split(".")
    inner = state
    while keys:
        key = keys.pop(0)
        key = key if not isinstance(inner, list) and key in inner else int(key)
        if keys:
            inner = inner[key]
    del inner[key]
    return state


# One of each kind; transformers has torch's ReduceLROnPlateau.
KINDS = [name for name in MAKERS if not name.endswith(("-1", "REDUCE_ON_PLATEAU"))]


class TestWhoseItIs:
    @pytest.mark.parametrize("name", KINDS)
    def test_no_other_schedulers_state_is_taken(self, name):
        """Every ordered pair of torch and of transformers."""
        scheduler = made(name, 2)
        before = as_it_is(scheduler)
        for other in KINDS:
            if other != name:
                with pytest.raises(nnlr.ConfigError, match=r"it is of '.*The schedule is as it"):
                    scheduler.load_state_dict(state_of(other))
        assert before == as_it_is(scheduler)

    @pytest.mark.parametrize("name", MAKERS)
    @pytest.mark.no_cover
    def test_no_torn_state_is_taken(self, name):
        """Every single key, at every level."""
        state = saved(made(name, 3))
        scheduler = made(name, 1)
        before = as_it_is(scheduler)
        paths = [path for path in inventory(state) if "." not in path[3:] or path[3:]]
        assert len(paths) > 20
        for path in paths:
            with pytest.raises(nnlr.ConfigError, match=r"is as it was|needs"):
                scheduler.load_state_dict(without(state, path))
        assert before == as_it_is(scheduler)

    def test_the_kinds_of_courses_have_to_agree(self):
        """One course, courses by groups, constant ones."""
        optimizer = built(torch.optim.SGD)
        name = optimizer.param_groups[1]["name"]
        one = {name: partial(lrs.ExponentialLR, gamma=0.5), "*": None}
        two = {name: partial(lrs.ExponentialLR, gamma=0.5), "*": lrs.ConstantLR}
        uniform = schedule(optimizer, lrs.ConstantLR).state_dict()
        states = [schedule(optimizer, courses).state_dict() for courses in (one, two)]
        scheduler = schedule(optimizer, one)
        scheduler.load_state_dict(states[0])
        with pytest.raises(nnlr.ConfigError, match=r"one of both has no scheduler at '\*'"):
            scheduler.load_state_dict(states[1])
        with pytest.raises(nnlr.ConfigError, match="its courses are for"):
            scheduler.load_state_dict(uniform)
        for wrong in ({"lr": None}, {"lr": {name: 3, "*": None}}):
            with pytest.raises(nnlr.ConfigError, match=r"its courses are for|it is 3"):
                scheduler.load_state_dict(wrong)

    @pytest.mark.parametrize("key", ["base", "scale"])
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, "1"])
    def test_rates_that_no_training_makes_are_refused(self, key, bad):
        """As in the optimizer's state."""
        state, scheduler = made("StepLR-0", 3).state_dict(), made("StepLR-0", 1)
        before = as_it_is(scheduler)
        state["lr"][key] = bad
        with pytest.raises(nnlr.ConfigError, match=f"{key} must be a finite number"):
            scheduler.load_state_dict(state)
        state = made("StepLR-0", 3).state_dict()
        state["lr"]["group"]["lr"] = math.nan
        with pytest.raises(nnlr.ConfigError, match="'lr' of the group is nan"):
            scheduler.load_state_dict(state)
        assert before == as_it_is(scheduler)

    def test_a_cycled_setting_of_another_kind_changes_nothing(self):
        """Rates are written before momentum: it is looked at first."""
        runs = []
        for steps in (3, 0):
            optimizer = built(torch.optim.SGD, momentum=0.9)
            runs.append(schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=30))
            go(runs[-1], steps)
        state, before = runs[0].state_dict(), as_it_is(runs[1])
        state["lr"]["group"]["momentum"] = []
        with pytest.raises(nnlr.ConfigError, match=r"group\.momentum is \[\]"):
            runs[1].load_state_dict(state)
        assert before == as_it_is(runs[1])

    @pytest.mark.parametrize(
        ("path", "bad"),
        [
            ("scheduler.last_epoch", None),
            ("scheduler.last_epoch", -5),
            ("scheduler._step_count", 2.5),
            ("scheduler.gamma", "0.1"),
            ("scheduler.gamma", math.nan),
            ("scheduler.base_lrs", 0.1),
            ("scheduler.base_lrs.0", None),
            ("scheduler", 3),
            ("steps", -1),
            ("steps", "3"),
            ("begun", "yes"),
            ("start", math.nan),
            ("unit", -1.0),
            ("group.initial_lr", math.inf),
            ("base", torch.ones(2)),
            ("scale", []),
            ("group", 3),
            ("settings.gamma", {}),
        ],
    )
    def test_values_of_another_kind_are_refused(self, path, bad):
        """Texts for numbers, numbers for lists, no whole number of steps."""
        state, scheduler = made("StepLR-0", 3).state_dict(), made("StepLR-0", 1)
        before = as_it_is(scheduler)
        inner = state["lr"]
        *outer, last = path.split(".")
        for key in outer:
            inner = inner[key]
        inner[int(last) if isinstance(inner, list) else last] = bad
        if not isinstance(bad, str | float | torch.Tensor):  # another shape has other keys
            rest = {key: value for key, value in state["lr"].items() if key != "keys"}
            state["lr"]["keys"] = inventory(rest)
        if path.startswith("settings"):  # of which nothing is taken
            with pytest.warns(nnlr.NnlrWarning, match="gamma"):
                scheduler.load_state_dict(state)
            return
        with pytest.raises(nnlr.ConfigError, match="is as it was"):
            scheduler.load_state_dict(state)
        assert before == as_it_is(scheduler)

    @pytest.mark.parametrize("keys", [None, 3, [1, 2], {}])
    def test_an_inventory_that_is_none_is_torn(self, keys):
        """It is a list of names."""
        state = made("StepLR-0").state_dict()
        state["lr"]["keys"] = keys
        with pytest.raises(nnlr.ConfigError, match="'keys'"):
            made("StepLR-0").load_state_dict(state)

    def test_the_mode_of_a_plateau_is_a_text(self):
        """It is read again on loading."""
        state, scheduler = made("ReduceLROnPlateau-0").state_dict(), made("ReduceLROnPlateau-0")
        state["lr"]["scheduler"]["mode"] = 3
        with pytest.raises(nnlr.ConfigError, match=r"scheduler\.mode is 3, which no training"):
            scheduler.load_state_dict(state)

    def test_a_class_that_was_renamed_can_be_resumed(self):
        """The message says what to write."""
        state, scheduler = made("StepLR-0", 3).state_dict(), made("StepLR-0")
        state["lr"]["name"] = "train.MyStepLR"
        with pytest.raises(nnlr.ConfigError, match="write it into the state: 'name': 'lr_sched"):
            scheduler.load_state_dict(state)
        state["lr"]["name"] = "lr_scheduler.StepLR"
        scheduler.load_state_dict(state)
        assert 3 == scheduler.last_epoch

    def test_states_of_version_0_1_load(self):
        """They have no name: what can be seen of another scheduler is refused."""
        old = pickle.loads(
            pickle.loads(gzip.decompress(OLD.read_bytes()))["schedule_state"]["pickle"]
        )
        assert "name" not in old["lr"]
        optimizer = built(torch.optim.SGD)
        scheduler = schedule(optimizer, lrs.CosineAnnealingLR, T_max=10)
        scheduler.load_state_dict(old)
        assert old["lr"]["group"]["lr"] == scheduler.base_lr
        assert old["lr"]["scheduler"]["last_epoch"] == scheduler.last_epoch
        scheduler.set_base_lr(5.0)
        assert scheduler.state_dict()["lr"]["steps"] is None
        with pytest.raises(nnlr.ConfigError, match="of another scheduler, or torn"):
            made("StepLR-0").load_state_dict(old)


class TestWhoseSettingsCount:
    @pytest.mark.parametrize("steps", [3, 12])
    def test_those_of_the_code_at_the_position_of_the_state(self, steps):
        """A cosine of 10 that is resumed as one of 100 stands where the one of 100 would."""
        first, second, straight = (built(torch.optim.SGD) for _ in range(3))
        short = schedule(first, lrs.CosineAnnealingLR, T_max=10)
        go(short, steps)
        long = schedule(second, lrs.CosineAnnealingLR, T_max=100)
        with pytest.warns(nnlr.NnlrWarning, match=r"of the code count.*: T_max 10 -> 100\.$"):
            long.load_state_dict(saved(short))
        whole = schedule(straight, lrs.CosineAnnealingLR, T_max=100)
        go(whole, steps)
        assert go(whole, 10) == go(long, 10)

    def test_those_of_the_state_where_the_optimizer_loads_as_torch_does(self):
        """Or by the checkpoint's policy; the warning says so."""
        for optimizers in (
            [grouped(torch.optim.SGD, parameters()) for _ in range(2)],
            [built(torch.optim.SGD, resume="checkpoint") for _ in range(2)],
        ):
            first = schedule(optimizers[0], lrs.StepLR, step_size=2)
            second = schedule(optimizers[1], lrs.StepLR, step_size=5)
            go(first, 3)
            with pytest.warns(nnlr.NnlrWarning, match=r"those of the state count.*size 2 -> 5"):
                second.load_state_dict(saved(first))
            assert go(first, 4) == go(second, 4)

    def test_of_a_metric_only_the_settings_are_replaced(self):
        """Its rate and its counters came from losses that nobody has any more."""
        plateau = partial(schedule, factory=lrs.ReduceLROnPlateau, factor=0.5)
        first, second = (built(torch.optim.SGD) for _ in range(2))
        first = plateau(first, patience=3)
        for loss in (1.0, 2.0, 2.0):
            first.optimizer.step()
            first.step(loss)
        second = plateau(second, patience=1)
        with pytest.warns(nnlr.NnlrWarning, match="patience 3 -> 1"):
            second.load_state_dict(saved(first))
        assert (1.0, 2, 1) == (second.best, second.num_bad_epochs, second.patience)
        second.step(2.0)
        assert BASE / 2 == second.base_lr

    @pytest.mark.parametrize("floor", [1e-4, 2e-4])
    def test_the_floor_of_a_plateau_is_the_codes(self, floor):
        """Absolute, whatever the base was: a resumed run stops where the code says."""
        plateau = partial(schedule, factory=lrs.ReduceLROnPlateau, factor=0.5, patience=0)
        first = plateau(built(torch.optim.SGD), min_lr=1e-4)
        second = plateau(built(torch.optim.SGD, lr=2 * BASE), min_lr=floor)
        for _ in range(2):
            first.optimizer.step()
            first.step(1.0)
        second.load_state_dict(saved(first))
        assert BASE == second.base_lr  # half of its own base, as there
        for _ in range(9):
            second.step(1.0)
        assert floor == second.base_lr

    def test_peaks_and_cycles_are_settings_too(self):
        """OneCycleLR keeps them in the group, not in itself."""
        runs = []
        for peak in (1e-2, 2e-2, 2e-2):
            optimizer = built(torch.optim.SGD, momentum=0.9)
            runs.append(schedule(optimizer, lrs.OneCycleLR, max_lr=peak, total_steps=30))
        go(runs[0], 8)
        with pytest.warns(nnlr.NnlrWarning, match=r"group: max_lr 0\.01 -> 0\.02"):
            runs[1].load_state_dict(saved(runs[0]))
        go(runs[2], 8)
        assert go(runs[2], 8) == go(runs[1], 8)

    def test_another_base_rate_runs_the_course_of_the_code(self):
        """A floor stays where the code says; no word, as the optimizer says it."""
        first, second, straight = (
            schedule(
                built(torch.optim.SGD, lr=lr),
                lrs.CosineAnnealingLR,
                T_max=10,
                eta_min=1e-4,
            )
            for lr in (BASE, 2 * BASE, 2 * BASE)
        )
        go(first, 4)
        go(straight, 4)
        second.load_state_dict(saved(first))
        assert go(straight, 6) == go(second, 6)
        first.set_base_lr(3 * BASE)
        second.load_state_dict(saved(first))  # what a hand moved goes on
        assert 3 * straight.scheduler.base_lrs[0] == pytest.approx(second.base_lrs[0])

    def test_a_state_of_another_base_rate_may_be_saved_and_loaded_again(self):
        """The base of the state is not the one at which the settings were written."""
        first, second, third = (
            schedule(
                built(torch.optim.SGD, lr=lr, resume="checkpoint"),
                lrs.CosineAnnealingLR,
                T_max=10,
            )
            for lr in (2 * BASE, BASE, BASE)
        )
        go(first, 3)
        second.load_state_dict(saved(first))
        go(second, 1)
        third.load_state_dict(saved(second))
        assert go(second, 3) == go(third, 3)

    def test_settings_of_the_optimizer_are_none_of_the_schedulers(self):
        """Another decay or momentum in the code is the optimizer's to tell."""
        first, second = (
            schedule(built(torch.optim.SGD, momentum=m), lrs.StepLR, step_size=2)
            for m in (0.9, 0.5)
        )
        go(first, 3)
        second.load_state_dict(saved(first))
        assert first.get_last_lr() == second.get_last_lr()

    def test_a_regrouped_run_resumes_to_the_bit(self):
        """The base rate was another when the course was built, and nothing has changed."""
        net = network()
        optimizer = plan_of(net).optimizer(torch.optim.SGD)
        first = schedule(optimizer, lrs.CosineAnnealingLR, T_max=10, eta_min=1e-4)
        go(first, 3)
        nnlr.regroup(optimizer, plan_of(net, lr=2 * BASE))
        go(first, 2)
        again = plan_of(net, lr=2 * BASE).optimizer(torch.optim.SGD)
        second = schedule(again, lrs.CosineAnnealingLR, T_max=10, eta_min=1e-4)
        second.load_state_dict(saved(first))
        assert go(first, 5) == go(second, 5)

    def test_a_course_that_is_too_short_is_refused(self):
        """The code says 5 steps, and 8 have been taken."""
        first = made("OneCycleLR-0", 8)
        optimizer = built(torch.optim.SGD, momentum=0.9)
        second = schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=5)
        before = as_it_is(second)
        with pytest.raises(nnlr.ConfigError, match="OneCycleLR cannot be at step 8"):
            second.load_state_dict(saved(first))
        assert before == as_it_is(second)

    def test_after_another_one_the_start_is_the_states(self):
        """Only the settings of the second are the code's."""
        first = built(torch.optim.SGD)
        cosine, averaging = swa(first)
        go(cosine, 3)
        go(averaging, 2)
        start = averaging.state_dict()["lr"]["start"]
        cosine, other = swa(built(torch.optim.SGD), strategy="linear")
        with pytest.warns(nnlr.NnlrWarning, match="of the code count"):
            other.load_state_dict(saved(averaging))
        assert start + (5e-4 - start) * 2 / 4 == pytest.approx(other.base_lr)
        with pytest.raises(nnlr.ConfigError, match="followed by"):
            cosine.step()

    def test_positions_of_the_callers_own_are_no_steps(self):
        """`step(epoch)` is not run again: the state is taken, and the settings of the code."""
        first, second = (
            schedule(built(torch.optim.SGD), lrs.StepLR, step_size=size) for size in (2, 3)
        )
        first.optimizer.step()
        with warnings.catch_warnings(action="ignore"):
            first.step(7)
            second.load_state_dict(saved(first))
        assert (7, 3) == (second.last_epoch, second.step_size)


class Decay:
    """A callable object, whose attributes torch saves."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate**step

    def method(self, step):
        return self.rate**step


def powers(base):
    """A closure."""
    return lambda step: base**step


def plain(step, gamma=0.5):
    """A function with a default."""
    return gamma**step


def of_function(function):
    """A schedule by a function, and its state after two steps."""
    optimizer = built(torch.optim.SGD)
    scheduler = schedule(optimizer, lrs.LambdaLR, lr_lambda=function)
    go(scheduler, 2)
    return scheduler


class TestFunctions:
    @pytest.mark.parametrize(
        ("one", "other", "difference"),
        [
            (powers(0.5), powers(0.25), "base 0.5 -> 0.25"),
            (partial(plain, gamma=0.5), partial(plain, gamma=0.25), "gamma 0.5 -> 0.25"),
            (lambda step: 0.5**step, lambda step: 0.25**step, "the code of lr_lambdas"),
            (Decay(0.5), Decay(0.25), "rate 0.5 -> 0.25"),
        ],
    )
    def test_what_they_compute_with_is_a_setting_of_the_code(self, one, other, difference):
        """Closures, arguments, code and attributes."""
        first, second = of_function(one), of_function(other)
        with pytest.warns(nnlr.NnlrWarning, match=f"of the code count.*{difference}"):
            second.load_state_dict(saved(first))
        assert BASE / 16 == pytest.approx(second.base_lr)

    @pytest.mark.parametrize(
        "function", [plain, powers(0.5), partial(plain, gamma=0.5), Decay(0.5), Decay(0.5).method]
    )
    def test_the_same_function_is_no_difference(self, function):
        """Loaded without a word."""
        first, second = of_function(function), of_function(function)
        second.load_state_dict(saved(first))
        assert first.get_last_lr() == second.get_last_lr()

    def test_functions_of_other_names_are_other_schedulers(self):
        """Also where the class is the same, and partial ones with other arguments."""
        functions = [plain, lambda step: 0.5**step, Decay(0.5), partial(plain, gamma=0.5)]
        for one, other in itertools.permutations(functions, 2):
            with pytest.raises(nnlr.ConfigError, match="it is of"):
                of_function(other).load_state_dict(saved(of_function(one)))

    def test_a_function_that_calls_another_is_told_by_both(self):
        """As decorators and factories make them."""

        def twice(function):
            return lambda step: function(2 * step)

        first, second = of_function(twice(lambda s: 0.5**s)), of_function(twice(lambda s: 0.4**s))
        with pytest.warns(nnlr.NnlrWarning, match="lr_lambdas.*: function"):
            second.load_state_dict(saved(first))

    def test_another_version_of_python_is_no_difference(self):
        """Its code is spelt otherwise."""
        first, second = of_function(plain), of_function(plain)
        state = saved(first)
        key = next(key for key in state["lr"]["settings"] if key.startswith("the code"))
        state["lr"]["settings"][key] = "3.9:0123456789ab"
        second.load_state_dict(state)
        assert not identity.other_python("3.11:0123456789ab", "3.11:ba9876543210")
        assert not identity.other_python("cos", "linear")

    def test_numbers_of_any_kind_are_compared(self):
        """And what is no plain value is left out."""
        import numpy

        assert 0.5 == identity.plain(torch.tensor(0.5)) == identity.plain(numpy.float32(0.5))
        assert [1, {"a": None}] == identity.plain((1, {"a": None}))
        for other in (torch.zeros(2), object(), [object()], {"a": object()}):
            assert identity.plain(other) is ...
        same = partial(identity.same, units=(1.0, 2.0))
        assert same(math.nan, math.nan)
        assert same({"a": [1.0]}, {"a": [2.0]})  # relative to the base rates
        assert not same({"a": 1}, {"b": 1})
        assert not same([1], [1, 2])
        assert not same(1.0, 3.0)

    def test_wrapped_functions_have_a_name(self):
        """`functools.wraps` gives the name of what is inside."""

        @functools.wraps(plain)
        def wrapped(step):
            return plain(step)

        scheduler = of_function(wrapped)
        assert "lr_scheduler.LambdaLR(plain)" == scheduler.state_dict()["lr"]["name"]


def test_a_schedule_that_was_pickled_by_0_1_steps_and_saves():
    """Its course has no settings to compare, and no steps to take again."""
    old = pickle.loads(gzip.decompress(OLD.read_bytes()))
    _, scheduler = pickle.loads(old["schedule"]["pickle"])
    scheduler.optimizer.step()
    scheduler.step()
    state = saved(scheduler)
    fresh = schedule(built(torch.optim.SGD), lrs.CosineAnnealingLR, T_max=100)
    fresh.load_state_dict(state)
    assert 10 == fresh.T_max
    run(schedule(grouped(torch.optim.SGD, parameters()), lrs.StepLR, step_size=1), 1)
