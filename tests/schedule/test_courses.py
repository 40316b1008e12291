"""A schedule is a course of its own: one after another, side by side, by groups."""

import copy
import itertools
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

import nnlr
from nnlr._schedule.schedule import schedule
from tests.schedule.cases import (
    BASE,
    CASES,
    STEPS,
    advance,
    grouped,
    parameters,
    saved,
    transformers_cases,
)

OPTIMIZERS = {"SGD": (torch.optim.SGD, {"momentum": 0.9}), "AdamW": (torch.optim.AdamW, {})}


def network():
    """Two layers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


def plan_of(net, lr_mult=0.1, lr=BASE):
    """The first layer at another rate; a bias that never learns."""
    rules = nnlr.rule("0.*", lr_mult=lr_mult) * nnlr.rule("1.bias", lr_mult=0)
    return nnlr.resolve(net, rules, lr=lr, weight_decay=0.05)


def built(cls, lr_mult=0.1, lr=BASE, **settings):
    """An optimizer of a plan of that network."""
    net = network()
    return plan_of(net, lr_mult, lr).optimizer(cls, model=net, **settings)


def go(scheduler, steps, start=0):
    """Step without gradients, and return what the groups had at each step."""
    seen = []
    for step in range(start, start + steps):
        seen.append(
            [
                {key: group.get(key) for key in ("lr", "betas", "momentum", "weight_decay")}
                for group in scheduler.optimizer.param_groups
            ]
        )
        scheduler.optimizer.step()
        advance(scheduler, step)
    return seen


def phase_two(kind, first, second):
    """Rates and cycled settings of a second phase, and of a fresh optimizer."""
    cls, settings = OPTIMIZERS[kind]
    net = network()
    optimizer = plan_of(net).optimizer(cls, **settings)
    go(first(optimizer), STEPS)
    nnlr.regroup(optimizer, plan_of(net, 0.5, lr=2 * BASE))
    fresh = built(cls, 0.5, 2 * BASE, **settings)
    return go(second(optimizer), STEPS), go(second(fresh), STEPS)


def makers():
    """Every scheduler of torch and of transformers, as a function of an optimizer."""
    for case in CASES:
        factory, kwargs = case.values
        yield case.id, partial(schedule, factory=factory, **kwargs)
    transformers = pytest.importorskip("transformers")
    for kind, special in transformers_cases():

        def factory(opt, kind=kind, special=special):
            return transformers.get_scheduler(
                kind, opt, 5, STEPS, scheduler_specific_kwargs=special
            )

        yield str(kind), partial(schedule, factory=factory)


MAKERS = dict(makers())


class TestPhases:
    def test_the_second_phase_starts_afresh(self):
        """A cosine that ended at 0 leaves nothing to the next."""
        second, fresh = phase_two("AdamW", *[MAKERS["CosineAnnealingLR-0"]] * 2)
        assert fresh == second

    @pytest.mark.parametrize("kind", OPTIMIZERS)
    @pytest.mark.no_cover
    def test_a_sample_of_pairs(self, kind):
        """Some that cycle, follow a metric or end at a floor."""
        names = ["OneCycleLR-0", "CyclicLR-0", "ReduceLROnPlateau-1", "ChainedScheduler-0"]
        for one, other in itertools.product(names, repeat=2):
            second, fresh = phase_two(kind, MAKERS[one], MAKERS[other])
            assert fresh == second, (one, other)

    @pytest.mark.full
    @pytest.mark.parametrize("kind", OPTIMIZERS)
    @pytest.mark.parametrize("one", MAKERS)
    def test_every_pair(self, one, kind):
        """Rates and cycled settings equal those of a fresh optimizer, step by step."""
        for other, make in MAKERS.items():
            second, fresh = phase_two(kind, MAKERS[one], make)
            assert fresh == second, other

    def test_the_earlier_one_refuses_to_step(self):
        """The message names both, and three ways to have both."""
        optimizer = grouped(torch.optim.SGD, parameters())
        first = schedule(optimizer, lrs.StepLR, step_size=3)
        schedule(optimizer, lrs.ExponentialLR, gamma=0.5)
        optimizer.step()
        with pytest.raises(nnlr.ConfigError, match=r"StepLR, was replaced .*, ExponentialLR") as e:
            first.step()
        assert all(way in str(e.value) for way in ("beside=", "after=", "SequentialLR"))
        for use in (
            lambda: schedule(optimizer, lrs.StepLR, step_size=3, beside=first),
            lambda: first.set_base_lr(1.0),
            lambda: first.load_state_dict(first.state_dict()),
        ):
            with pytest.raises(nnlr.ConfigError, match="was replaced"):
                use()

    def test_a_schedule_of_the_decay_ends_too(self):
        """The next one without it finds the decay as the code built it."""
        optimizer = built(torch.optim.AdamW)
        first = schedule(
            optimizer, lrs.ConstantLR, weight_decay=lambda opt: lrs.ExponentialLR(opt, 0.5)
        )
        go(first, 3)
        schedule(optimizer, lrs.ConstantLR)
        assert {0.05} == {group["weight_decay"] for group in optimizer.param_groups}
        assert "initial_weight_decay" not in optimizer.param_groups[0]

    def test_a_resumed_run_whose_groups_were_all_at_0_starts_at_the_base(self):
        """A plan that unlocks them leaves the note of where they start."""
        net = network()
        locked = nnlr.resolve(net, nnlr.freeze("*"), lr=BASE, weight_decay=0.05)
        open_ = nnlr.resolve(net, lr=BASE, weight_decay=0.05)
        optimizer = locked.optimizer(torch.optim.SGD, locked="keep")
        first = schedule(optimizer, lrs.ExponentialLR, gamma=0.5)
        nnlr.regroup(optimizer, open_)
        go(first, 2)
        again = open_.optimizer(torch.optim.SGD)
        again.load_state_dict(optimizer.state_dict())
        second = schedule(again, lrs.ExponentialLR, gamma=0.5)
        second.load_state_dict(first.state_dict())
        assert second.get_last_lr() == first.get_last_lr() == [BASE / 4]

    def test_weight_decay_of_a_group_added_since_goes_back_too(self):
        """Also where the earlier schedule has never come by it."""
        optimizer = built(torch.optim.AdamW)
        decay = schedule(
            optimizer, lrs.ConstantLR, weight_decay=partial(lrs.ExponentialLR, gamma=0.5)
        )
        go(decay, 2)
        added = {"params": [("new", nn.Parameter(torch.ones(1)))], "lr_mult": 1.0, "wd_mult": 2.0}
        optimizer.add_param_group({**added, "lr": BASE, "weight_decay": 0.025})
        schedule(optimizer, lrs.ConstantLR)
        assert optimizer.param_groups[-1]["weight_decay"] == 0.05 * 2

    def test_a_failed_schedule_leaves_the_earlier_one_in_force(self):
        """Nothing of the optimizer is changed before all is well."""
        optimizer = grouped(torch.optim.SGD, parameters(), momentum=0.9)
        first = schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=20)
        go(first, 3)
        before = copy.deepcopy([{**g, "params": 0} for g in optimizer.param_groups])
        with pytest.raises(ValueError, match="T_0"):
            schedule(optimizer, lrs.CosineAnnealingWarmRestarts, T_0=0)
        with pytest.raises(nnlr.ConfigError, match=r"made the lr -0\.001 as it was built"):
            schedule(optimizer, lrs.LambdaLR, lr_lambda=lambda _: -1)
        assert before == [{**g, "params": 0} for g in optimizer.param_groups]
        go(first, 1)

    def test_momentum_that_a_hand_moved_stays(self):
        """What differs from the cycle is no leftover of it."""
        optimizer = grouped(torch.optim.SGD, parameters(), momentum=0.9)
        go(schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=20), 3)
        optimizer.param_groups[0]["momentum"] = 0.3
        schedule(optimizer, lrs.StepLR, step_size=3)
        assert [0.3, 0.9, 0.9, 0.9] == [g["momentum"] for g in optimizer.param_groups]

    def test_a_new_process_that_finds_a_cycle_starts_anew_and_says_so(self):
        """From the checkpoint of phase one to another scheduler."""
        first = built(torch.optim.AdamW)
        go(schedule(first, lrs.OneCycleLR, max_lr=1e-2, total_steps=20), 3)
        second = copy.deepcopy(first)
        scheduler = schedule(second, lrs.StepLR, step_size=3)
        assert {(0.9, 0.999)} == {group["betas"] for group in second.param_groups}
        second.step()
        with pytest.warns(
            nnlr.NnlrWarning, match=r"betas of 2 groups was 0\.\d+ and is 0\.9 again"
        ):
            scheduler.step()
        scheduler.step()

    @pytest.mark.parametrize("loaded", [False, True], ids=["built on it", "loaded once more"])
    def test_a_momentum_that_a_hand_moved_everywhere_is_resumed(self, loaded):
        """A schedule that is built on a resumed optimizer is no second phase."""
        first = built(torch.optim.SGD, momentum=0.9)
        scheduler = schedule(first, lrs.StepLR, step_size=3)
        for group in first.param_groups:
            group["momentum"] = 0.5
        go(scheduler, 2)
        second = copy.deepcopy(first)
        resumed = schedule(second, lrs.StepLR, step_size=3)
        if loaded:
            second.load_state_dict(saved(first))
        resumed.load_state_dict(saved(scheduler))
        assert go(scheduler, 3) == go(resumed, 3)

    def test_a_multiplier_that_was_changed_in_training_is_no_obstacle(self):
        """Neither to a second schedule nor to one in a new process."""
        first = built(torch.optim.AdamW)
        scheduler = schedule(first, lrs.CosineAnnealingLR, T_max=10)
        go(scheduler, 2)
        first.param_groups[1]["lr_mult"] = 0.3
        go(scheduler, 1)
        for optimizer in (first, copy.deepcopy(first)):
            again = schedule(optimizer, lrs.CosineAnnealingLR, T_max=10)
            assert [BASE, BASE * 0.3] == pytest.approx(again.get_last_lr())

    def test_the_notes_have_to_agree_where_the_multipliers_were_changed(self):
        """On the optimizer's default, or on another base of all groups."""
        own = grouped(torch.optim.SGD, parameters())
        own.defaults["lr"] = 1.0
        go(schedule(own, lrs.ExponentialLR, gamma=0.5), 1)
        own.param_groups[1]["lr_mult"] = 0.2
        own.param_groups[1]["lr"] = 0.1 * BASE  # as the schedule would write it
        again = schedule(copy.deepcopy(own), lrs.ConstantLR, factor=1.0)
        assert BASE == pytest.approx(again.base_lr)
        own.param_groups[2]["origin"]["lr"] *= 2
        with pytest.raises(nnlr.ConfigError, match="do not start at one base rate"):
            schedule(copy.deepcopy(own), lrs.ConstantLR)

    def test_what_version_0_1_noted_of_cycles_is_read(self):
        """A checkpoint of then in the middle of a cycle, loaded as torch does."""
        optimizer = grouped(torch.optim.SGD, parameters(), momentum=0.9)
        for group, cycles in zip(optimizer.param_groups, (True, True, False, True), strict=True):
            group.update(momentum=0.87 if cycles else 0.5, cycles_momentum=cycles)
        scheduler = schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=20)
        assert [0.95, 0.95, 0.5, 0.95] == [g["momentum"] for g in optimizer.param_groups]
        assert all("cycles_momentum" not in group for group in optimizer.param_groups)
        go(scheduler, 1)

    def test_a_decay_that_was_scheduled_in_another_process_ends_too(self):
        """The checkpoint says where it began."""
        first = built(torch.optim.AdamW)
        decay = lambda opt: lrs.ExponentialLR(opt, 0.5)  # noqa: E731 - a name for an argument
        go(schedule(first, lrs.ConstantLR, weight_decay=decay), 3)
        second = copy.deepcopy(first)
        schedule(second, lrs.ConstantLR)
        assert {0.05} == {group["weight_decay"] for group in second.param_groups}

    def test_a_peak_of_none_is_no_peak(self):
        """Optimizers of optimi keep a `max_lr` of their own in the groups, which is None."""
        net = network()
        optimizer = plan_of(net).optimizer(torch.optim.AdamW)
        for group in optimizer.param_groups:
            group["max_lr"] = None
        scheduler = schedule(optimizer, lrs.ExponentialLR, gamma=0.5)
        go(scheduler, 2)
        nnlr.regroup(optimizer, plan_of(net, 0.5))
        assert [BASE / 4, BASE / 8] == scheduler.get_last_lr()
        again = plan_of(net, 0.5).optimizer(torch.optim.AdamW)
        resumed = schedule(again, lrs.ExponentialLR, gamma=0.5)
        resumed.load_state_dict(saved(scheduler))
        again.load_state_dict(saved(optimizer))
        assert go(scheduler, 2) == go(resumed, 2)


class TestBeside:
    @pytest.mark.parametrize("plateau_first", [True, False])
    def test_courses_multiply_in_any_order(self, plateau_first):
        """A warm-up after each batch, a plateau after each epoch."""
        optimizer = built(torch.optim.SGD)
        kinds = [
            (lrs.LinearLR, {"start_factor": 0.1, "total_iters": 8}),
            (lrs.ReduceLROnPlateau, {"factor": 0.5, "patience": 0}),
        ]
        if plateau_first:
            kinds.reverse()
        first = schedule(optimizer, kinds[0][0], **kinds[0][1])
        second = schedule(optimizer, kinds[1][0], beside=first, **kinds[1][1])
        plateau, warm_up = (first, second) if plateau_first else (second, first)
        assert isinstance(plateau, lrs.ReduceLROnPlateau)
        assert not isinstance(warm_up, lrs.ReduceLROnPlateau)
        for epoch in range(3):
            for _ in range(4):
                optimizer.step()
                warm_up.step()
            plateau.step(1.0)
            due = BASE * min(0.1 + 0.9 * 4 * (epoch + 1) / 8, 1.0) * 0.5**epoch
            assert [due, due * 0.1] == pytest.approx(plateau.get_last_lr())

    def test_the_base_rate_and_a_new_plan_move_both(self):
        """`set_base_lr` of either, and regroup."""
        net = network()
        optimizer = plan_of(net).optimizer(torch.optim.SGD)
        first = schedule(optimizer, lrs.ConstantLR, factor=0.5)
        second = schedule(optimizer, lrs.ConstantLR, factor=0.5, beside=first)
        second.set_base_lr(4 * BASE)
        assert BASE == pytest.approx(first.base_lr)
        nnlr.regroup(optimizer, plan_of(net, 0.5, lr=2 * BASE))
        assert [2 * BASE, BASE] == pytest.approx(first.get_last_lr())

    def test_a_third_one_and_a_decay(self):
        """Any number of them; what only one of them schedules goes on."""
        optimizer = built(torch.optim.AdamW)
        first = schedule(optimizer, lrs.ExponentialLR, gamma=0.5)
        second = schedule(
            optimizer,
            lrs.ExponentialLR,
            gamma=0.5,
            beside=first,
            weight_decay=lambda opt: lrs.ExponentialLR(opt, 0.1),
        )
        third = schedule(optimizer, lrs.ExponentialLR, gamma=0.5, beside=second)
        optimizer.step()
        for each in (first, second, third):
            each.step()
        assert BASE / 8 == pytest.approx(third.base_lr)
        assert 0.005 == pytest.approx(optimizer.param_groups[0]["weight_decay"])

    def test_what_is_no_schedule_of_this_optimizer_is_refused(self):
        """A plain scheduler, another optimizer's, both at once."""
        optimizer, other = (grouped(torch.optim.SGD, parameters()) for _ in range(2))
        with pytest.raises(nnlr.NnlrError, match=r"beside must be what nnlr\.schedule returned"):
            schedule(optimizer, lrs.StepLR, step_size=1, beside=lrs.StepLR(other, 1))
        theirs = schedule(other, lrs.StepLR, step_size=1)
        with pytest.raises(nnlr.NnlrError, match="after is a schedule of another optimizer"):
            schedule(optimizer, lrs.StepLR, step_size=1, after=theirs)
        with pytest.raises(nnlr.NnlrError, match="beside= or after=, not both"):
            schedule(other, lrs.StepLR, step_size=1, after=theirs, beside=theirs)


def swa(optimizer, strategy="cos"):
    """Torch's recipe: both are built at the start."""
    cosine = schedule(optimizer, lrs.CosineAnnealingLR, T_max=12)
    kwargs = {"swa_lr": 5e-4, "anneal_epochs": 4, "anneal_strategy": strategy}
    return cosine, schedule(optimizer, SWALR, after=cosine, **kwargs)


class TestAfter:
    @pytest.mark.parametrize("strategy", ["cos", "linear"])
    @pytest.mark.parametrize("begins", [0, 5, 12])
    def test_the_recipe_of_torch_epoch_by_epoch(self, begins, strategy):
        """Equal to plain torch at multiplier 1, to the last bit, and in ratio elsewhere."""
        optimizer = built(torch.optim.SGD)
        ours = swa(optimizer, strategy)
        plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=BASE)
        theirs = (
            lrs.CosineAnnealingLR(plain, 12),
            SWALR(plain, swa_lr=5e-4, anneal_epochs=4, anneal_strategy=strategy),
        )
        for epoch in range(20):
            due = plain.param_groups[0]["lr"]
            assert [due, due * 0.1] == [group["lr"] for group in optimizer.param_groups]
            optimizer.step()
            plain.step()
            for pair in (ours, theirs):
                pair[epoch >= begins].step()

    def test_the_first_one_is_over_when_the_second_has_begun(self):
        """And says so."""
        optimizer = built(torch.optim.SGD)
        cosine, averaging = swa(optimizer)
        optimizer.step()
        cosine.step()
        averaging.step()
        with pytest.raises(nnlr.ConfigError, match="followed by the schedule after it, SWALR"):
            cosine.step()

    def test_it_may_take_over_at_0_and_move_the_decay_too(self):
        """A cosine that has come to its end; a decay that was constant until then."""
        optimizer = built(torch.optim.AdamW)
        cosine = schedule(optimizer, lrs.CosineAnnealingLR, T_max=4)
        averaging = schedule(
            optimizer,
            SWALR,
            swa_lr=5e-4,
            anneal_epochs=2,
            after=cosine,
            weight_decay=lambda opt: lrs.ExponentialLR(opt, 0.5),
        )
        go(cosine, 4)
        assert 0.05 == optimizer.param_groups[0]["weight_decay"]
        go(averaging, 2)
        assert [5e-4, 5e-5] == pytest.approx(averaging.get_last_lr())
        assert 0.0125 == pytest.approx(optimizer.param_groups[0]["weight_decay"])

    def test_groups_with_courses_of_their_own_are_refused(self):
        """Which rate would one continue?"""
        optimizer = built(torch.optim.SGD)
        first = schedule(optimizer, lrs.StepLR, step_size=1)
        with pytest.raises(nnlr.ConfigError, match="after= needs one course for all groups"):
            schedule(optimizer, {"*": partial(SWALR, swa_lr=0.1)}, after=first)

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_momentum_that_was_cycled_before_stands_in_any_order_of_loading(self, order):
        """It is in the state of the earlier schedule, which has no say any more."""
        runs = []
        for steps in (3, 0):
            optimizer = built(torch.optim.SGD, momentum=0.9)
            one = schedule(optimizer, lrs.OneCycleLR, max_lr=0.1, total_steps=10)
            averaging = schedule(optimizer, SWALR, swa_lr=0.05, after=one)
            go(one, steps)
            go(averaging, steps and 2)
            runs.append((optimizer, one, averaging))
        states = [copy.deepcopy(part.state_dict()) for part in runs[0]]
        for at in order:
            runs[1][at].load_state_dict(states[at])
        assert go(runs[0][2], 2) == go(runs[1][2], 2)

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_going_back_to_before_it_began(self, order):
        """Momentum that it cycled has its origin again, and what others move their values."""
        optimizer = built(torch.optim.SGD, momentum=0.9)
        decay = partial(lrs.ExponentialLR, gamma=0.9)
        first = schedule(optimizer, lrs.StepLR, step_size=2, weight_decay=decay)
        cyclic = schedule(optimizer, lrs.CyclicLR, base_lr=1e-3, max_lr=0.1, after=first)
        parts = (optimizer, first, cyclic)
        go(first, 3)
        states = [copy.deepcopy(part.state_dict()) for part in parts]
        expected = go(first, 2)
        go(cyclic, 3)
        for at in order:
            parts[at].load_state_dict(states[at])
        assert expected == go(first, 2)

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_what_an_earlier_schedule_moves_still_is_loaded(self, order):
        """A later one has taken over the rate, not the decay of weights."""
        runs = []
        for steps in (3, 0):
            optimizer = built(torch.optim.SGD, momentum=0.9)
            decay = partial(lrs.ExponentialLR, gamma=0.9)
            first = schedule(optimizer, lrs.StepLR, step_size=2, weight_decay=decay)
            then = schedule(optimizer, lrs.ExponentialLR, gamma=0.5, after=first)
            go(first, steps)
            go(then, steps)
            runs.append((optimizer, first, then))
        states = [copy.deepcopy(part.state_dict()) for part in runs[0]]
        for at in order:
            runs[1][at].load_state_dict(states[at])
        assert go(runs[0][2], 2) == go(runs[1][2], 2)


def named(**groups):
    """An optimizer with groups of these names and multipliers."""
    return torch.optim.SGD(
        [
            {
                "params": [nn.Parameter(torch.ones(1))],
                "lr": BASE * mult,
                "lr_mult": mult,
                "name": name,
            }
            for name, mult in groups.items()
        ],
        lr=BASE,
    )


FALLING = partial(lrs.LambdaLR, lr_lambda=lambda step: max(10.0 - step, 1.0))
RISING = partial(lrs.LinearLR, start_factor=0.1, total_iters=9)


class TestByGroups:
    def test_biases_fall_while_the_rest_rises(self):
        """The warm-up of detectors: first match, each relative to the base rate."""
        optimizer = named(bias_head=2.0, bias=1.0, weight=0.1)
        scheduler = schedule(optimizer, {"bias*": FALLING, "*": RISING})
        assert [20 * BASE, 10 * BASE, 0.01 * BASE] == pytest.approx(scheduler.get_last_lr())
        go(scheduler, 9)
        assert [2 * BASE, BASE, 0.1 * BASE] == pytest.approx(scheduler.get_last_lr())
        assert "schedule(LambdaLR, LinearLR, base_lr=0.001)" == repr(scheduler)

    def test_the_others_are_constant(self):
        """Means of Gaussians decay alone; `None` says so in words."""
        for extra in ({}, {"opac*": None}, {"*": None}):
            optimizer = named(means=0.1, opacities=1.0, scales=0.5)
            scheduler = schedule(
                optimizer, {"means": partial(lrs.ExponentialLR, gamma=0.5), **extra}
            )
            go(scheduler, 3)
            due = [0.1 * BASE / 8, BASE, 0.5 * BASE]
            assert due == pytest.approx(scheduler.get_last_lr())

    def test_names_of_algorithms_are_keys(self):
        """Of an optimizer that has several."""
        optimizer = named(a=1.0, b=1.0)
        optimizer.param_groups[1]["algorithm"] = "muon"
        scheduler = schedule(optimizer, {"muon": partial(lrs.ExponentialLR, gamma=0.5)})
        go(scheduler, 1)
        assert [BASE, BASE / 2] == scheduler.get_last_lr()

    def test_a_plateau_among_them_is_given_the_metric(self):
        """The others are stepped without."""
        optimizer = named(a=1.0, b=1.0)
        scheduler = schedule(
            optimizer,
            {"a": partial(lrs.ReduceLROnPlateau, patience=0, factor=0.5), "b": RISING},
        )
        assert isinstance(scheduler, lrs.ReduceLROnPlateau)
        for _ in range(2):
            optimizer.step()
            scheduler.step(1.0)
        assert [BASE / 2, BASE * 0.3] == pytest.approx(scheduler.get_last_lr())

    def test_the_decay_takes_a_mapping_too_and_all_go_beside_another(self):
        """The same rule for both rates."""
        optimizer = built(torch.optim.AdamW)
        first, second = (group["name"] for group in optimizer.param_groups)
        warm_up = schedule(optimizer, lrs.ConstantLR, factor=0.5)
        scheduler = schedule(
            optimizer,
            {first: partial(lrs.ExponentialLR, gamma=0.1)},
            weight_decay={second: partial(lrs.ExponentialLR, gamma=0.1)},
            beside=warm_up,
        )
        go(scheduler, 1)
        assert [BASE * 0.05, BASE * 0.05] == pytest.approx(scheduler.get_last_lr())
        assert [0.05, 0.005] == pytest.approx([g["weight_decay"] for g in optimizer.param_groups])

    def test_groups_without_names_are_told_how_to_get_them(self):
        """Only `*` matches those."""
        optimizer = torch.optim.SGD(parameters(), lr=BASE)
        with pytest.raises(
            nnlr.ConfigError, match=r"no group .* None has a name: set group\['name'\]"
        ):
            schedule(optimizer, {"bias*": RISING, "*": FALLING})

    @pytest.mark.parametrize(
        ("courses", "kwargs", "error"),
        [
            ({"baises": RISING}, {}, r"'baises' matches no group .* Nearest: 'biases'"),
            ({"baises*": RISING}, {}, r"'baises\*' matches no group .* Nearest: 'biases'"),
            ({"x": RISING}, {}, r"'x' .* no group .* Groups: 'biases', 'weights'\. A rule with gr"),
            ({"*": RISING, "bias*": FALLING}, {}, "'bias.' chooses no group"),
            ({"*": None}, {}, "has no course for any group"),
            ({}, {}, "has no course for any group"),
            ({3: RISING}, {}, "patterns of group names, got 3"),
            ({"*": "cosine"}, {}, r"a function of an optimizer for '\*', got 'cosine'"),
            ({"*": lrs.StepLR}, {"step_size": 3}, "'step_size' would be for several"),
        ],
    )
    def test_what_chooses_nothing_is_refused(self, courses, kwargs, error):
        """Nothing is changed by that."""
        optimizer = named(biases=1.0, weights=0.1)
        with pytest.raises(nnlr.NnlrError, match=error):
            schedule(optimizer, courses, **kwargs)
        assert "initial_lr" not in optimizer.param_groups[0]

    def test_a_regroup_under_other_names_is_refused(self):
        """The rate of a course's parameters would be constant; the ways out keep it moving."""
        net = network()
        optimizer = plan_of(net).optimizer(torch.optim.SGD)
        name = optimizer.param_groups[1]["name"]
        schedule(optimizer, {name: partial(lrs.ExponentialLR, gamma=0.5)})
        before = optimizer.state_dict()
        with pytest.raises(nnlr.ConfigError, match=f"has a course for '{name}'.*would lose theirs"):
            nnlr.regroup(optimizer, plan_of(net, lr_mult=0.3))
        assert before == optimizer.state_dict()
        schedule(optimizer, lrs.LambdaLR, lr_lambda=lambda step: 1.0)
        nnlr.regroup(optimizer, plan_of(net, lr_mult=0.3))
        scheduler = schedule(optimizer, {"lr0.3*": partial(lrs.ExponentialLR, gamma=0.5)})
        nnlr.regroup(optimizer, plan_of(net, lr_mult=0.3, lr=2 * BASE))
        optimizer.step()
        scheduler.step()
        assert pytest.approx([2 * BASE, BASE * 0.3]) == scheduler.get_last_lr()

    def test_a_course_whose_parameters_are_locked_is_in_nobodys_way(self):
        """Nothing loses its course."""
        net = network()
        optimizer = plan_of(net).optimizer(torch.optim.SGD)
        schedule(optimizer, {optimizer.param_groups[1]["name"]: FALLING})
        nnlr.regroup(optimizer, plan_of(net, lr_mult=0))
        assert 1 == len(optimizer.param_groups)


def beside_each_other(optimizer):
    """A warm-up and a curve."""
    first = schedule(optimizer, lrs.LinearLR, start_factor=0.1, total_iters=8)
    return first, schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=40, beside=first)


def by_groups(optimizer):
    """Two groups, two courses."""
    name = optimizer.param_groups[1]["name"]
    return (schedule(optimizer, {name: FALLING, "*": RISING}),)


class TestResume:
    @pytest.mark.parametrize("built_after", [True, False])
    @pytest.mark.parametrize("make", [beside_each_other, swa, by_groups])
    @pytest.mark.parametrize("at", [3, 9])
    def test_it_goes_on_as_if_uninterrupted(self, make, at, built_after):
        """Both schedules are saved, and the courses go on from where each was."""

        def train(schedules, steps):
            seen = []
            for step in steps:
                schedules[0].optimizer.step()
                both = make is beside_each_other
                for each in schedules if both else schedules[step >= 6 :][:1] or schedules[:1]:
                    each.step()
                seen.append(
                    [(g["lr"], g.get("betas")) for g in schedules[0].optimizer.param_groups]
                )
            return seen

        net = network()
        optimizer = plan_of(net).optimizer(torch.optim.AdamW)
        schedules = make(optimizer)
        train(schedules, range(at))
        states = saved(optimizer), [saved(each) for each in schedules]
        uninterrupted = train(schedules, range(at, 16))
        again = plan_of(net).optimizer(torch.optim.AdamW)
        if built_after:
            again.load_state_dict(states[0])
            resumed = make(again)
        else:
            resumed = make(again)
            again.load_state_dict(states[0])
        for each, state in zip(resumed, states[1], strict=True):
            each.load_state_dict(state)
        assert uninterrupted == train(resumed, range(at, 16))

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
    def test_copies_go_on_together(self, copied):
        """Schedules beside and after each other, with their optimizer."""
        optimizer = built(torch.optim.AdamW)
        first, second = swa(optimizer)
        go(first, 3)
        one, other = copied((first, second))
        go(one, 2)
        go(other, 2)
        with pytest.raises(nnlr.ConfigError, match="followed by"):
            one.step()
        go(first, 2)
        go(second, 2)
        assert first.get_last_lr() == one.get_last_lr()

    def test_a_copy_of_a_replaced_one_stays_replaced(self):
        """The one that replaced it goes on in the copy."""
        optimizer = built(torch.optim.AdamW)
        first = schedule(optimizer, lrs.StepLR, step_size=1)
        second = schedule(optimizer, lrs.ExponentialLR, gamma=0.5)
        two, one = copy.deepcopy((second, first))
        go(two, 1)
        with pytest.raises(nnlr.ConfigError, match="was replaced"):
            one.step()

    def test_rolling_back_undoes_the_takeover(self):
        """In the same process, to a state from before."""
        optimizer = built(torch.optim.AdamW)
        cosine, averaging = swa(optimizer)
        go(cosine, 3)
        states = saved(cosine), saved(averaging)
        before = cosine.get_last_lr()
        go(averaging, 3)
        for each, state in zip((cosine, averaging), states, strict=True):
            each.load_state_dict(state)
        assert before == cosine.get_last_lr()
        go(cosine, 1)


class TestRefusedRates:
    @pytest.mark.parametrize(
        ("factory", "kwargs"),
        [
            (lrs.CosineAnnealingLR, {"T_max": 5, "eta_min": math.nan}),
            (lrs.LambdaLR, {"lr_lambda": lambda step: -step}),
            (lrs.MultiplicativeLR, {"lr_lambda": lambda step: math.inf}),
            (lrs.ExponentialLR, {"gamma": math.nan}),
            (lrs.StepLR, {"step_size": 1, "gamma": -1.0}),
        ],
    )
    def test_at_the_step_that_makes_them(self, factory, kwargs):
        """Groups and schedule stay as they were, and the step can be tried again."""
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, factory, **kwargs)
        before = scheduler.get_last_lr(), copy.deepcopy(scheduler.state_dict())
        optimizer.step()
        for _ in range(2):
            with pytest.raises(nnlr.ConfigError, match=r"made the lr .* at its step 1"):
                scheduler.step()
            assert repr(before) == repr((scheduler.get_last_lr(), scheduler.state_dict()))

    def test_a_multiplier_that_is_no_number(self):
        """The message names the group."""
        optimizer = built(torch.optim.SGD)
        scheduler = schedule(optimizer, lrs.StepLR, step_size=1)
        optimizer.param_groups[1]["lr_mult"] = math.nan
        optimizer.step()
        with pytest.raises(nnlr.ConfigError, match=r"The lr of group '.*' would be nan"):
            scheduler.step()
        assert 0 == scheduler.last_epoch

    def test_a_step_beyond_the_end_changes_nothing(self):
        """Torch counts it, and fails."""
        optimizer = grouped(torch.optim.SGD, parameters(), momentum=0.9)
        scheduler = schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=3)
        go(scheduler, 3)
        with pytest.raises(ValueError, match="Tried to step 4 times"):
            scheduler.step()
        assert 3 == scheduler.last_epoch

    @pytest.mark.parametrize("name", MAKERS)
    def test_round_off_is_no_such_rate(self, name):
        """Twice as far as the scheduler was meant for, if it goes so far."""
        optimizer = built(torch.optim.SGD, momentum=0.9)
        scheduler = MAKERS[name](optimizer)
        seen = go(scheduler, STEPS if hasattr(scheduler, "total_steps") else 4 * STEPS)
        assert all(group["lr"] >= 0 for groups in seen for group in groups)


class TestAdoption:
    def test_groups_that_are_added_follow(self):
        """By the ratio that their rate has at that moment."""
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, lrs.ExponentialLR, gamma=0.5, adopt=True)
        go(scheduler, 2)
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": BASE / 8})
        go(scheduler, 2)
        assert 0.5 == optimizer.param_groups[-1]["lr_mult"]
        assert BASE / 32 == scheduler.get_last_lr()[-1]

    def test_a_rate_written_into_such_a_group_is_its_new_multiplier(self):
        """As callbacks do after every epoch; in a group of the code it is not."""
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, lrs.ConstantLR, factor=1.0, adopt=True)
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": BASE / 8})
        go(scheduler, 1)
        for group in optimizer.param_groups:
            group["lr"] = BASE / 2
        go(scheduler, 1)
        assert [BASE, BASE / 2] == [scheduler.get_last_lr()[at] for at in (0, -1)]

    def test_the_decay_is_adopted_where_it_is_scheduled(self):
        """Relative to the present base decay."""
        optimizer = built(torch.optim.AdamW)
        for group in optimizer.param_groups:
            group.pop("param_names")
        scheduler = schedule(
            optimizer,
            lrs.ConstantLR,
            factor=1.0,
            adopt=True,
            weight_decay=lambda opt: lrs.ExponentialLR(opt, 0.5),
        )
        parameter = nn.Parameter(torch.ones(1))
        optimizer.add_param_group({"params": [parameter], "lr": BASE, "weight_decay": 0.1})
        go(scheduler, 1)
        assert 0.05 == optimizer.param_groups[-1]["weight_decay"]

    def test_while_the_base_rate_is_0_it_cannot_be_told(self):
        """At the start of a warm-up from 0."""
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, lrs.LambdaLR, lr_lambda=lambda step: step, adopt=True)
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": BASE})
        optimizer.step()
        with pytest.raises(nnlr.ConfigError, match="a group was added while the base rate is 0"):
            scheduler.step()
        with pytest.raises(nnlr.NnlrError, match="adopt must be True or False"):
            schedule(optimizer, lrs.ConstantLR, adopt="no")


class TestLastEpoch:
    @pytest.mark.parametrize("name", MAKERS)
    def test_it_stands_where_so_many_steps_lead(self, name):
        """To the last bit; schedulers that follow a metric say why not."""
        kwargs = {"momentum": 0.9}
        stepped, started = (built(torch.optim.SGD, **kwargs) for _ in range(2))
        scheduler = MAKERS[name](stepped)
        if hasattr(scheduler.scheduler, "best"):
            with pytest.raises(nnlr.ConfigError, match="follows a metric: last_epoch"):
                MAKERS[name](started, last_epoch=4)
            return
        go(scheduler, 5)
        again = MAKERS[name](started, last_epoch=4)
        for key in ("lr", "momentum"):
            assert [g[key] for g in stepped.param_groups] == [g[key] for g in started.param_groups]
        assert go(scheduler, 5) == go(again, 5)

    @pytest.mark.parametrize("last_epoch", [0, 4])
    def test_it_is_torchs(self, last_epoch):
        """A plain scheduler at multiplier 1, with its rate as it stands."""
        due = BASE * 0.9 ** (last_epoch + 1)
        plain = torch.optim.SGD([{"params": parameters(), "lr": due, "initial_lr": BASE}], lr=BASE)
        theirs = lrs.LambdaLR(plain, lambda step: 0.9**step, last_epoch=last_epoch)
        ours = schedule(
            torch.optim.SGD(parameters(), lr=BASE),
            lrs.LambdaLR,
            lr_lambda=lambda step: 0.9**step,
            last_epoch=last_epoch,
        )
        assert theirs.get_last_lr() == ours.get_last_lr()
        assert theirs.last_epoch == ours.last_epoch

    def test_each_group_may_have_its_own(self):
        """In a partial function, or one for all."""
        courses = {"a": partial(lrs.ExponentialLR, gamma=0.5, last_epoch=1), "b": RISING}
        scheduler = schedule(named(a=1.0, b=1.0), courses)
        assert [BASE / 4, BASE / 10] == pytest.approx(scheduler.get_last_lr())
        courses = dict.fromkeys("ab", partial(lrs.ExponentialLR, gamma=0.5))
        scheduler = schedule(named(a=1.0, b=1.0), courses, last_epoch=0)
        assert [BASE / 2, BASE / 2] == scheduler.get_last_lr()

    def test_what_cannot_be_is_refused(self):
        """Beyond the end, inside a function, or no number."""
        optimizer = grouped(torch.optim.SGD, parameters(), momentum=0.9)
        with pytest.raises(nnlr.ConfigError, match="OneCycleLR cannot be at step 10: Tried"):
            schedule(optimizer, lrs.OneCycleLR, max_lr=1, total_steps=5, last_epoch=9)
        with pytest.raises(nnlr.ConfigError, match="Pass that to schedule"):
            schedule(optimizer, lambda opt: lrs.StepLR(opt, 3, last_epoch=4))
        with pytest.raises(KeyError, match="sunday"):
            schedule(optimizer, lambda opt: {}["sunday"])
        for bad in (-2, True, 1.0, "4"):
            with pytest.raises(nnlr.NnlrError, match="last_epoch must be a whole number >= -1"):
                schedule(optimizer, lrs.StepLR, step_size=3, last_epoch=bad)
