"""nnlr.schedule: any scheduler, ratios kept, against a loop written by hand."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr._schedule.schedule import schedule
from tests.schedule.cases import (
    BASE,
    CASES,
    MULTS,
    STEPS,
    TORCH,
    advance,
    gradients,
    grouped,
    grow,
    parameters,
    run,
    saved,
    transformers_cases,
)


def by_hand(cls, make, settings):
    """The loop a careful user writes: one scheduler on one rate, multiplied by hand."""
    tensors = parameters()
    real = cls([{"params": [tensor]} for tensor in tensors], lr=BASE, **settings)
    one = cls([nn.Parameter(torch.zeros(1))], lr=BASE, **settings)
    scheduler = make(one)
    rates = []
    for step in range(STEPS):
        for group, mult in zip(real.param_groups, MULTS, strict=True):
            group["lr"] = one.param_groups[0]["lr"] * mult
            for key in ("momentum", "betas"):
                if key in group:
                    group[key] = one.param_groups[0][key]
        rates.append([group["lr"] for group in real.param_groups])
        gradients(tensors, step)
        real.step()
        one.step()
        advance(scheduler, step)
    return tensors, rates


def scheduled(cls, make, settings):
    """The same run with nnlr.schedule."""
    tensors = parameters()
    optimizer = grouped(cls, tensors, **settings)
    scheduler = make(optimizer)
    rates = []
    for step in range(STEPS):
        rates.append([group["lr"] for group in optimizer.param_groups])
        gradients(tensors, step)
        optimizer.step()
        advance(scheduler, step)
    return tensors, rates


def same_run(cls, factory, settings, **kwargs):
    """Compare both loops bit for bit."""
    expected, rates = by_hand(cls, lambda opt: factory(opt, **kwargs), settings)
    found, found_rates = scheduled(cls, lambda opt: schedule(opt, factory, **kwargs), settings)
    assert rates == found_rates
    assert all(map(torch.equal, expected, found))


OPTIMIZERS = [
    pytest.param(torch.optim.SGD, {"momentum": 0.9}, id="SGD"),
    pytest.param(torch.optim.AdamW, {}, id="AdamW"),
]


class TestNumbers:
    def test_every_scheduler_of_torch_has_a_case(self):
        """A new scheduler in torch fails here until it has one."""
        assert set(lrs.__all__) == set(TORCH)

    @pytest.mark.parametrize(("cls", "settings"), OPTIMIZERS)
    @pytest.mark.parametrize(("factory", "kwargs"), CASES)
    @pytest.mark.no_cover
    def test_it_equals_the_loop_by_hand(self, cls, settings, factory, kwargs):
        """Rates and weights after 40 steps, bit for bit, for multipliers 1, .1, .01 and 0."""
        same_run(cls, factory, settings, **kwargs)

    @pytest.mark.no_cover
    def test_it_equals_the_loop_by_hand_for_every_scheduler_of_transformers(self):
        """Rates that transformers takes from `defaults` included."""
        transformers = pytest.importorskip("transformers")
        for kind, special in transformers_cases():

            def factory(opt, kind=kind, special=special):
                return transformers.get_scheduler(
                    kind, opt, 5, STEPS, scheduler_specific_kwargs=special
                )

            same_run(torch.optim.AdamW, factory, {})


def ratios(optimizer):
    """Rates as shares of the first."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return [rate / rates[0] for rate in rates]


COSINE = (lrs.CosineAnnealingLR, {"T_max": 30, "eta_min": 1e-4})


class TestBeingAScheduler:
    def test_it_is_of_the_kind_that_trainers_ask_for(self):
        """Plateau schedulers are given the metric by trainers, others are not."""
        plain = schedule(grouped(torch.optim.SGD, parameters()), lrs.StepLR, step_size=3)
        assert isinstance(plain, lrs.LRScheduler)
        assert not isinstance(plain, lrs.ReduceLROnPlateau)
        plateau = schedule(grouped(torch.optim.SGD, parameters()), lrs.ReduceLROnPlateau)
        assert isinstance(plateau, lrs.ReduceLROnPlateau)

    def test_trainers_read_through_it(self):
        """`total_steps`, `_step_count` and `last_epoch` are the inner one's, both ways."""
        optimizer = grouped(torch.optim.AdamW, parameters())
        scheduler = schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=9)
        assert (9, 1, 0) == (
            scheduler.total_steps,
            scheduler._step_count,
            scheduler.last_epoch,
        )
        scheduler._step_count += 1
        assert 2 == scheduler.scheduler._step_count
        assert optimizer is scheduler.optimizer
        assert not hasattr(schedule(optimizer, lrs.StepLR, step_size=3), "total_steps")

    def test_last_and_base_rates_are_those_of_the_groups(self):
        """What is logged is what is used."""
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, COSINE[0], **COSINE[1])
        run(scheduler, 7)
        assert [g["lr"] for g in optimizer.param_groups] == scheduler.get_last_lr()
        assert scheduler.get_last_lr() == scheduler._last_lr == scheduler.get_lr()
        assert [BASE * mult for mult in MULTS] == scheduler.base_lrs
        assert scheduler.base_lr == optimizer.param_groups[0]["lr"]

    def test_copies_and_pickles_go_on(self):
        """A deepcopy drives its own copy of the optimizer."""
        scheduler = schedule(grouped(torch.optim.SGD, parameters()), COSINE[0], **COSINE[1])
        run(scheduler, 3)
        for copied in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
            assert copied.get_last_lr() == scheduler.get_last_lr()
            run(copied, 4, start=3)
            assert copied.optimizer is not scheduler.optimizer
            assert copied.get_last_lr()[0] < scheduler.get_last_lr()[0]
            assert 0.1 == pytest.approx(ratios(copied.optimizer)[1])

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
    def test_a_copy_before_the_first_step_knows_the_order(self, copied):
        """Hooks do not travel: a copy watches its own optimizer, without false alarm."""
        first, second = (
            copied(schedule(grouped(torch.optim.SGD, parameters()), COSINE[0], **COSINE[1]))
            for _ in range(2)
        )
        run(first, 2)
        with pytest.warns(nnlr.NnlrWarning, match="stepped before the optimizer"):
            second.step()

    def test_it_prints_what_it_is(self):
        """The inner scheduler and the base rate now."""
        scheduler = schedule(grouped(torch.optim.SGD, parameters()), lrs.StepLR, step_size=3)
        assert "schedule(StepLR, base_lr=0.001)" == repr(scheduler)

    def test_the_wrong_order_is_said_once(self):
        """As in torch: a scheduler that is stepped first skips the first rate."""
        scheduler = schedule(grouped(torch.optim.SGD, parameters()), lrs.StepLR, step_size=3)
        with pytest.warns(nnlr.NnlrWarning, match="stepped before the optimizer"):
            scheduler.step()
        scheduler.step()

    def test_it_gets_along_with_hooks_of_others(self):
        """Its own waits for the first step and is gone after that, not in the midst."""
        optimizer = grouped(torch.optim.SGD, parameters())
        seen = []
        optimizer.register_step_post_hook(lambda *_: seen.append("before"))
        scheduler = schedule(optimizer, lrs.StepLR, step_size=3)
        optimizer.register_step_post_hook(lambda *_: seen.append("after"))
        run(scheduler, 2)
        assert ["before", "after"] * 2 == seen
        assert 2 == len(optimizer._optimizer_step_post_hooks)

    def test_an_optimizer_without_hooks_is_taken_at_its_word(self):
        """Wrappers that skip Optimizer.__init__ have no hooks to be told by."""

        class Wrapper(torch.optim.Optimizer):
            def __init__(self, inner):
                self.param_groups, self.defaults = inner.param_groups, inner.defaults
                self.state = inner.state

        scheduler = schedule(
            Wrapper(grouped(torch.optim.SGD, parameters())), lrs.StepLR, step_size=3
        )
        scheduler.step()
        assert 1 == scheduler.last_epoch


class TestGroups:
    def test_groups_without_multipliers_get_them(self):
        """Anyone's groups will do: the largest rate is the base."""
        tensors = parameters()[:2]
        groups = [{"params": [t], "lr": lr} for t, lr in zip(tensors, (0.02, 0.1), strict=True)]
        optimizer = torch.optim.SGD(groups, lr=5.0)
        scheduler = schedule(optimizer, lrs.CosineAnnealingLR, T_max=10, eta_min=0.05)
        assert [0.2, 1.0] == pytest.approx([g["lr_mult"] for g in optimizer.param_groups])
        run(scheduler, 10)
        assert [0.01, 0.05] == pytest.approx(scheduler.get_last_lr())

    @pytest.mark.parametrize("mults", [MULTS, (0.1, 0.01, 0.0, 0.3)])
    def test_groups_know_the_base_rate_where_the_optimizer_does_not(self, mults):
        """Without `lr=` torch takes its own default; the groups agree on another."""
        plain = [
            {"params": [tensor], "lr": BASE * mult, "lr_mult": mult}
            for tensor, mult in zip(parameters(), mults, strict=True)
        ]
        scheduler = schedule(torch.optim.SGD(plain, lr=0.5), lrs.StepLR, step_size=3)
        assert pytest.approx(BASE, rel=1e-12) == scheduler.base_lr

    def test_rates_that_are_nearly_of_one_base_are_refused(self):
        """One per cent off is a mistake, not rounding."""
        optimizer = grouped(torch.optim.SGD, parameters())
        optimizer.param_groups[1]["lr"] *= 1.01
        with pytest.raises(nnlr.ConfigError, match="do not start at one base rate"):
            schedule(optimizer, lrs.StepLR, step_size=3)

    def test_a_plain_scheduler_before_it_leaves_no_trace(self):
        """Rates as they are now are the start, for a schedule built later on, too."""
        tensors = parameters()[:2]
        groups = [{"params": [t], "lr": lr} for t, lr in zip(tensors, (0.02, 0.1), strict=True)]
        optimizer = torch.optim.SGD(groups)
        plain = lrs.ExponentialLR(optimizer, 0.5)
        optimizer.step()
        plain.step()
        schedule(optimizer, lrs.StepLR, step_size=3)
        again = torch.optim.SGD([{"params": [tensor]} for tensor in tensors])
        again.load_state_dict(saved(optimizer))
        scheduler = schedule(again, lrs.StepLR, step_size=3)
        assert [0.01, 0.05] == pytest.approx(scheduler.base_lrs)

    def test_a_regrouped_group_may_have_betas_of_its_own(self):
        """What old groups noted of cycling does not speak of the new ones."""
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        bases = {"lr": 0.1, "weight_decay": 0}
        optimizer = nnlr.resolve(net, **bases).optimizer(torch.optim.AdamW)
        scheduler = schedule(optimizer, lrs.OneCycleLR, max_lr=1.0, total_steps=40)
        for _ in range(3):
            optimizer.step()
            scheduler.step()
        own = nnlr.rule("0.*", lr_mult=0.1, options={"betas": (0.5, 0.9)})
        nnlr.regroup(optimizer, nnlr.resolve(net, own, **bases))
        optimizer.step()
        scheduler.step()
        head, body = (group["betas"] for group in optimizer.param_groups)
        assert scheduler.scheduler.optimizer.param_groups[0]["betas"][0] == head[0]
        assert (0.5, 0.9) == body

    def test_a_regrouped_group_takes_part_in_the_cycle_at_once(self):
        """Groups that differed get the default back, which is not what the cycle is at."""
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        bases = {"lr": 0.1, "weight_decay": 0}
        own = nnlr.rule("0.*", options={"betas": (0.5, 0.999)})
        optimizer = nnlr.resolve(net, own, **bases).optimizer(torch.optim.AdamW)
        scheduler = schedule(optimizer, lrs.OneCycleLR, max_lr=1.0, total_steps=40)
        run(scheduler, 3)
        cycled = optimizer.param_groups[1]["betas"]
        assert 0.9 < cycled[0] < 0.95
        nnlr.regroup(optimizer, nnlr.resolve(net, **bases))
        assert [cycled] == [group["betas"] for group in optimizer.param_groups]

    def test_a_decay_that_was_switched_off_comes_back(self):
        """A plan without decay puts its curve to 0; the next one with decay continues it."""
        net = nn.Linear(2, 1)

        def plan(weight_decay):
            return nnlr.resolve(net, lr=0.1, weight_decay=weight_decay)

        optimizer = plan(0.2).optimizer(torch.optim.AdamW)
        scheduler = schedule(
            optimizer,
            lrs.ConstantLR,
            factor=1.0,
            weight_decay=lambda opt: lrs.ExponentialLR(opt, 0.9),
        )
        run(scheduler, 2)
        for _ in range(2):
            nnlr.regroup(optimizer, plan(0))
        assert 0 == optimizer.param_groups[0]["weight_decay"]
        run(scheduler, 1)
        nnlr.regroup(optimizer, plan(0.4))
        wanted = pytest.approx(0.4 * 0.9**3)
        assert wanted == optimizer.param_groups[0]["weight_decay"]

    @pytest.mark.parametrize("tensor_lr", [False, True])
    def test_a_regrouped_optimizer_goes_on(self, tensor_lr):
        """No warning, no new scheduler: the next plan's ratios and base rates follow."""
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))

        def plan(lr_mult, **rates):
            rule = nnlr.rule("0.*", lr_mult=lr_mult, wd_mult=0.5)
            return nnlr.resolve(net, rule, **{"lr": 0.1, "weight_decay": 0.2, **rates})

        optimizer = plan(0.1).optimizer(torch.optim.AdamW, tensor_lr=tensor_lr)
        scheduler = schedule(
            optimizer,
            lrs.OneCycleLR,
            max_lr=1.0,
            total_steps=40,
            weight_decay=lambda opt: lrs.ExponentialLR(opt, 0.9),
        )
        for _ in range(5):
            optimizer.step()
            scheduler.step()
        before, momentum = scheduler.base_lr, optimizer.param_groups[0]["betas"][0]
        nnlr.regroup(optimizer, plan(0.5))
        assert [before, before * 0.5] == pytest.approx(
            [float(rate) for rate in scheduler.get_last_lr()]
        )
        wanted = pytest.approx([0.2 * 0.9**5, 0.1 * 0.9**5])
        assert wanted == [group["weight_decay"] for group in optimizer.param_groups]
        nnlr.regroup(optimizer, plan(0.5, lr=0.3))
        assert [before * 3, before * 1.5] == pytest.approx(
            [float(rate) for rate in scheduler.get_last_lr()]
        )
        optimizer.step()
        scheduler.step()
        assert momentum > optimizer.param_groups[1]["betas"][0]
        assert 0.5 == pytest.approx(float(ratios(optimizer)[1]))

    def test_settings_reach_the_inner_scheduler(self):
        """`patience` set from outside has an effect; an attribute of one's own stays out."""
        scheduler = schedule(grouped(torch.optim.SGD, parameters()), lrs.ReduceLROnPlateau)
        scheduler.patience, scheduler.note = 3, "mine"
        assert 3 == scheduler.scheduler.patience
        assert not hasattr(scheduler.scheduler, "note")
        assert not scheduler.in_cooldown

    def test_a_group_added_later_without_a_multiplier_is_left_alone(self):
        """One warning, then silence; with a multiplier it follows."""
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, COSINE[0], **COSINE[1])
        run(scheduler, 2)
        more = nn.Parameter(torch.zeros(1))
        optimizer.add_param_group({"params": [more], "lr": 0.5})
        with pytest.warns(nnlr.NnlrWarning, match="1 of 5 groups have no 'lr_mult'"):
            run(scheduler, 1)
        run(scheduler, 1)
        assert 0.5 == optimizer.param_groups[-1]["lr"]
        optimizer.param_groups[-1]["lr_mult"] = 2.0
        run(scheduler, 1)
        assert 2 == ratios(optimizer)[-1]

    def test_multipliers_are_the_handle_and_rates_are_not(self):
        """A rate written by hand lasts until the next step."""
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, COSINE[0], **COSINE[1])
        run(scheduler, 2)
        optimizer.param_groups[1].update(lr=7.0, lr_mult=0.5)
        run(scheduler, 1)
        assert 0.5 == ratios(optimizer)[1]

    def test_the_base_rate_can_be_moved(self):
        """set_base_lr scales the whole curve from now on, floor included."""
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, lrs.StepLR, step_size=2)
        scheduler.set_base_lr(2 * BASE)
        assert [2 * BASE * mult for mult in MULTS] == scheduler.get_last_lr()
        run(scheduler, 2)
        assert 2 * BASE * 0.1 == pytest.approx(scheduler.base_lr)
        with pytest.raises(nnlr.NnlrError, match="lr must be a finite number > 0, got 0"):
            scheduler.set_base_lr(0)

    def test_groups_that_are_no_part_of_it_from_the_start_are_left_alone(self):
        """One multiplier in one group makes the others strangers; base_lrs has them too."""
        groups = [{"params": [tensor]} for tensor in parameters()[:2]]
        optimizer = torch.optim.SGD(groups, lr=BASE)
        optimizer.param_groups[1]["lr_mult"] = 1.0
        with pytest.warns(nnlr.NnlrWarning, match="1 of 2 groups have no 'lr_mult'"):
            scheduler = schedule(optimizer, lrs.ExponentialLR, gamma=0.5)
        run(scheduler, 1)
        assert [BASE, BASE / 2] == scheduler.get_last_lr()
        assert [BASE, BASE] == scheduler.base_lrs
        assert "initial_lr" not in optimizer.param_groups[0]

    def test_one_tensor_that_a_checkpoint_put_into_all_groups_is_parted(self):
        """States of optimizers with a shared tensor bring it back on loading."""
        shared = torch.tensor(BASE)
        old = torch.optim.SGD([{"params": [t]} for t in parameters()], lr=shared, foreach=False)
        for group, mult in zip(old.param_groups, MULTS, strict=True):
            group.update(lr_mult=mult, initial_lr=BASE * mult)
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, COSINE[0], **COSINE[1])
        optimizer.load_state_dict(saved(old))
        run(scheduler, 3)
        assert list(MULTS) == pytest.approx([float(r) for r in ratios(optimizer)])

    def test_a_group_added_in_mid_cycle_takes_part_in_it(self):
        """With the optimizer's momentum it cycles, with one of its own it does not."""
        optimizer = grouped(torch.optim.SGD, parameters(), momentum=0.9)
        scheduler = schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=20)
        run(scheduler, 3)
        for own in ({}, {"momentum": 0.5}):
            tensor = nn.Parameter(torch.zeros(3, 2))
            optimizer.add_param_group({"params": [tensor], "lr_mult": 1.0, **own})
        run(scheduler, 2, start=3)
        momenta = [group["momentum"] for group in optimizer.param_groups]
        assert momenta[0] not in {0.9, 0.95}
        assert [momenta[0], 0.5] == momenta[-2:]

    def test_groups_are_not_marked_where_nothing_is_cycled(self):
        """Only what is needed is written into groups."""
        optimizer = grouped(torch.optim.AdamW, parameters())
        before = {*optimizer.param_groups[0], "initial_lr", "origin"}
        run(schedule(optimizer, COSINE[0], **COSINE[1]), 2)
        assert before == set(optimizer.param_groups[0])

    @pytest.mark.parametrize("alias", [True, False])
    def test_rates_in_tensors_are_filled_in_place(self, alias):
        """Compiled steps hold on to the tensor; one tensor in all groups is parted first."""
        shared = torch.tensor(BASE)
        rates = [shared if alias else torch.tensor(BASE) for _ in MULTS]
        groups = [
            {"params": [tensor], "lr": rate, "lr_mult": mult}
            for tensor, rate, mult in zip(parameters(), rates, (1.0,) * 4, strict=True)
        ]
        optimizer = torch.optim.SGD(groups, lr=shared, foreach=False)
        for group, mult in zip(optimizer.param_groups, MULTS, strict=True):
            group["lr_mult"] = mult
            if not alias:
                group["lr"].fill_(BASE * mult)
        if alias:
            for group in optimizer.param_groups:
                group["initial_lr"] = BASE * group["lr_mult"]
        scheduler = schedule(optimizer, COSINE[0], **COSINE[1])
        held = [group["lr"] for group in optimizer.param_groups]
        run(scheduler, 3)
        assert all(a is g["lr"] for a, g in zip(held, optimizer.param_groups, strict=True))
        assert list(MULTS) == pytest.approx([float(r) for r in ratios(optimizer)])
        assert held[0] is not scheduler.get_last_lr()[0]

    def test_momentum_is_cycled_where_it_is_the_optimizers(self):
        """A group with a momentum of its own keeps it, even one that the cycle passes."""
        tensors = parameters()[:2]
        groups = [
            {"params": [tensors[0]], "lr": BASE, "lr_mult": 1.0},
            {"params": [tensors[1]], "lr": BASE, "lr_mult": 1.0, "betas": (0.85, 0.9)},
        ]
        optimizer = torch.optim.Adam(groups, lr=BASE, betas=(0.95, 0.99))
        scheduler = schedule(optimizer, lrs.OneCycleLR, max_lr=1e-2, total_steps=20)
        seen = set()
        for step in range(12):
            run(scheduler, 1, start=step)
            seen.add(optimizer.param_groups[0]["betas"][0])
            assert 0.99 == optimizer.param_groups[0]["betas"][1]
            assert (0.85, 0.9) == optimizer.param_groups[1]["betas"]
        assert len(seen) > 5

    def test_weight_decay_follows_a_curve_of_its_own(self):
        """`weight_decay=` schedules the base decay, and groups follow by `wd_mult`."""
        groups = [
            {
                "params": [t],
                "lr": BASE,
                "lr_mult": 1.0,
                "weight_decay": 0.1 * m,
                "wd_mult": m,
            }
            for t, m in zip(parameters()[:3], (1.0, 0.5, 0.0), strict=True)
        ]
        optimizer = torch.optim.AdamW(groups, lr=BASE, weight_decay=0.1)
        scheduler = schedule(
            optimizer,
            lrs.ConstantLR,
            factor=1.0,
            weight_decay=lambda opt: lrs.CosineAnnealingLR(opt, 10, eta_min=0.4),
        )
        run(scheduler, 10)
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        assert [0.4, 0.2, 0.0] == pytest.approx(decays)
        half = schedule(
            torch.optim.AdamW(parameters()[:1], lr=BASE),
            lrs.StepLR,
            step_size=2,
            weight_decay=lambda opt: lrs.ReduceLROnPlateau(opt, patience=0),
        )
        run(half, 12)
        assert isinstance(half, lrs.ReduceLROnPlateau)
        assert half.optimizer.param_groups[0]["weight_decay"] < 0.01
        assert pytest.approx(BASE * 0.1**6) == half.base_lr
        other = schedule(
            torch.optim.AdamW(parameters()[:1], lr=BASE),
            lrs.ReduceLROnPlateau,
            weight_decay=lambda opt: lrs.ReduceLROnPlateau(opt, patience=0),
        )
        run(other, 12)
        assert other.optimizer.param_groups[0]["weight_decay"] < 0.01


class TestResume:
    @pytest.mark.parametrize("factory", ["torch", "plateau"])
    @pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "built after"])
    def test_it_goes_on_as_if_uninterrupted(self, factory, order):
        """Whatever is loaded first, also an optimizer loaded before the schedule exists."""
        make, kwargs = {
            "torch": (lrs.OneCycleLR, {"max_lr": 1e-2, "total_steps": 30}),
            "plateau": (lrs.ReduceLROnPlateau, {"patience": 1, "min_lr": 1e-5}),
        }[factory]

        def fresh():
            tensors = parameters()
            return tensors, grouped(torch.optim.AdamW, tensors)

        tensors, optimizer = fresh()
        scheduler = schedule(optimizer, make, **kwargs)
        run(scheduler, 12)
        weights = [tensor.detach().clone() for tensor in tensors]
        states = saved(optimizer), saved(scheduler)
        run(scheduler, 12, start=12)

        again, optimizer = fresh()
        for tensor, weight in zip(again, weights, strict=True):
            tensor.data.copy_(weight)
        if order == "built after":
            optimizer.load_state_dict(states[0])
            resumed = schedule(optimizer, make, **kwargs)
            resumed.load_state_dict(states[1])
        else:
            resumed = schedule(optimizer, make, **kwargs)
            loads = [
                (optimizer, states[0]),
                (resumed, states[1]),
            ]
            for thing, state in loads if order == "optimizer first" else loads[::-1]:
                thing.load_state_dict(state)
        run(resumed, 12, start=12)
        assert scheduler.get_last_lr() == resumed.get_last_lr()
        assert all(map(torch.equal, tensors, again))

    @pytest.mark.parametrize(("factory", "kwargs"), CASES)
    def test_every_state_is_plain(self, factory, kwargs):
        """`weights_only=True`, into a fresh run, for every scheduler of torch."""

        def fresh():
            optimizer = grouped(torch.optim.SGD, parameters(), momentum=0.9)
            return schedule(optimizer, factory, **kwargs)

        first, second = fresh(), fresh()
        run(first, 8)
        second.load_state_dict(saved(first))
        run(first, 8, start=8)
        run(second, 8, start=8)
        assert first.get_last_lr() == second.get_last_lr()
        momenta = [g["momentum"] for g in first.optimizer.param_groups]
        assert momenta == [g["momentum"] for g in second.optimizer.param_groups]

    def test_a_moved_base_rate_is_resumed(self):
        """set_base_lr is part of the state; so is where the schedule started."""
        first = schedule(grouped(torch.optim.SGD, parameters()), COSINE[0], **COSINE[1])
        first.set_base_lr(3 * BASE)
        run(first, 4)
        groups = [{"params": parameters(), "lr": 0.5, "lr_mult": 1.0}]
        second = schedule(torch.optim.SGD(groups, lr=0.5), COSINE[0], **COSINE[1])
        second.load_state_dict(saved(first))
        second.step()  # no word about the order: the optimizer stepped before saving
        run(first, 1)
        assert first.base_lr == second.base_lr
        assert [3 * BASE] == second.base_lrs
        first.set_base_lr(BASE)
        second.set_base_lr(BASE)
        assert first.base_lr == second.base_lr

    def test_every_state_of_transformers_is_plain(self):
        """The same for every scheduler of transformers."""
        transformers = pytest.importorskip("transformers")
        for kind, special in transformers_cases():

            def fresh(kind=kind, special=special):
                optimizer = grouped(torch.optim.AdamW, parameters())
                return schedule(
                    optimizer,
                    lambda opt: transformers.get_scheduler(
                        kind, opt, 5, STEPS, scheduler_specific_kwargs=special
                    ),
                )

            first, second = fresh(), fresh()
            run(first, 8)
            second.load_state_dict(saved(first))
            run(first, 8, start=8)
            run(second, 8, start=8)
            assert first.get_last_lr() == second.get_last_lr(), kind

    def test_anyones_groups_resume_into_a_schedule_built_afterwards(self):
        """Multipliers that schedule wrote come back with the optimizer's state."""

        def fresh():
            groups = [
                {"params": [tensor], "lr": lr}
                for tensor, lr in zip(parameters()[:2], (0.02, 0.1), strict=True)
            ]
            return torch.optim.SGD(groups)  # its own lr is another

        first = schedule(fresh(), COSINE[0], **COSINE[1])
        run(first, 5)
        optimizer = fresh()
        optimizer.load_state_dict(saved(first.optimizer))
        second = schedule(optimizer, COSINE[0], **COSINE[1])
        second.load_state_dict(saved(first))
        assert first.get_last_lr() == second.get_last_lr()

    def test_the_state_fits_other_groups(self):
        """Regrouped after saving: the state is of the base rate, not of the groups."""
        scheduler = schedule(grouped(torch.optim.SGD, parameters()), COSINE[0], **COSINE[1])
        run(scheduler, 9)
        groups = [{"params": parameters(), "lr": BASE * 0.3, "lr_mult": 0.3}]
        other = schedule(torch.optim.SGD(groups, lr=BASE), COSINE[0], **COSINE[1])
        other.load_state_dict(saved(scheduler))
        assert [scheduler.base_lr * 0.3] == other.get_last_lr()

    @pytest.mark.parametrize("state", [{}, {"last_epoch": 3}, None])
    def test_another_schedulers_state_is_refused(self, state):
        """A plain scheduler's state belongs to the inner scheduler."""
        scheduler = schedule(grouped(torch.optim.SGD, parameters()), COSINE[0], **COSINE[1])
        with pytest.raises(nnlr.ConfigError, match="not the state of such a schedule"):
            scheduler.load_state_dict(state)

    def test_a_plain_schedulers_position_is_taken_by_last_epoch(self):
        """As the message says: its state has no base rate."""
        optimizer = torch.optim.SGD(parameters(), lr=BASE)
        plain = COSINE[0](optimizer, **COSINE[1])
        for _ in range(4):
            optimizer.step()
            plain.step()
        scheduler = schedule(grouped(torch.optim.SGD, parameters()), COSINE[0], **COSINE[1])
        with pytest.raises(nnlr.ConfigError, match=r"schedule\(\.\.\., last_epoch=3\)"):
            scheduler.load_state_dict(saved(plain))
        scheduler = schedule(scheduler.optimizer, COSINE[0], **COSINE[1], last_epoch=3)
        assert math.isclose(optimizer.param_groups[0]["lr"], scheduler.base_lr)

    def test_a_course_that_only_one_of_both_has_is_named(self):
        """The message says what both need."""
        first, second = (torch.optim.SGD(parameters(), lr=BASE, weight_decay=0.1) for _ in "ab")
        constant = partial(lrs.ConstantLR, factor=1.0)
        state = saved(schedule(first, *COSINE[:1], weight_decay=constant, **COSINE[1]))
        with pytest.raises(nnlr.ConfigError, match="both with weight_decay=, or both without"):
            schedule(second, COSINE[0], **COSINE[1]).load_state_dict(state)

    @pytest.mark.parametrize("wrong", ["x", None, [1.0], math.nan])
    def test_multipliers_that_are_no_numbers_are_refused(self, wrong):
        """Where a schedule is built, and at the next step; groups stay as they were."""
        optimizer = grouped(torch.optim.SGD, parameters())
        scheduler = schedule(optimizer, COSINE[0], **COSINE[1])
        optimizer.step()
        before = scheduler.get_last_lr()
        optimizer.param_groups[1]["lr_mult"] = wrong
        with pytest.raises(nnlr.NnlrError, match="lr_mult"):
            scheduler.step()
        with pytest.raises(nnlr.NnlrError, match="lr_mult of group 1 must be a finite number"):
            schedule(optimizer, COSINE[0], **COSINE[1])
        assert before == scheduler.get_last_lr()

    def test_a_plain_one_cycle_leaves_the_base_rate_alone(self):
        """Torch notes the low rate from which it starts as the groups' initial rate."""
        net = nn.Linear(2, 2)
        plan = nnlr.resolve(net, nnlr.rule("bias", lr_mult=0.1), lr=BASE, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
        start = [group["lr"] for group in optimizer.param_groups]
        peaks = [10 * lr for lr in start]
        plain = lrs.OneCycleLR(optimizer, max_lr=peaks, total_steps=10)
        for _ in range(4):
            optimizer.step()
            plain.step()
        assert start == schedule(optimizer, lrs.ConstantLR, factor=1.0).get_last_lr()

    @pytest.mark.parametrize("torn", ["scheduler", "group", "base", "scale"])
    @pytest.mark.parametrize("key", ["lr", "weight_decay"])
    def test_a_torn_state_changes_nothing(self, key, torn):
        """What was read before the gap is taken back, in this curve and the other."""
        first, second = (
            schedule(
                torch.optim.AdamW(parameters()[:1], lr=BASE),
                lrs.StepLR,
                step_size=2,
                weight_decay=lambda opt: lrs.CosineAnnealingLR(opt, 10, eta_min=0.4),
            )
            for _ in range(2)
        )
        run(first, 5)
        run(second, 1)
        state, before = saved(first), copy.deepcopy(second.state_dict())
        held = dict(second.optimizer.param_groups[0])
        del state[key][torn]
        with pytest.raises(
            nnlr.ConfigError,
            match=rf"or not all of it: '{torn}'.* is missing: it is torn\. .* as it was",
        ):
            second.load_state_dict(state)
        assert before == second.state_dict()
        assert held == dict(second.optimizer.param_groups[0])


class TestRefusals:
    @pytest.mark.parametrize(
        ("factory", "kwargs", "said"),
        [
            (
                lrs.OneCycleLR,
                {"max_lr": [1, 2], "total_steps": 9},
                r"max_lr=\[1, 2\] is a list",
            ),
            (lrs.LambdaLR, {"lr_lambda": [grow]}, "lr_lambda=.* is a list"),
            (
                lrs.CyclicLR,
                {"base_lr": 1, "max_lr": 2, "max_momentum": [1]},
                "is a list",
            ),
            (lambda opt: None, {}, r"returned None, which is no scheduler\.$"),
            (lambda step: 1.0, {}, r"no scheduler\. A function of the step is for .* LambdaLR"),
            (lambda step: step / 9, {}, r"cannot take an optimizer\. A function of the step is"),
            (lambda opt: opt, {}, "which is no scheduler"),
            ("cosine", {}, "needs a scheduler class or a function"),
            (
                lambda opt: nnlr.schedule(opt, lrs.StepLR, step_size=1),
                {},
                r"works on a base rate already. Return the plain scheduler: StepLR\(opt",
            ),
        ],
    )
    def test_what_makes_no_scheduler_of_one_rate_is_refused(self, factory, kwargs, said):
        """Per-group lists have no meaning here, and the message says what has."""
        optimizer = grouped(torch.optim.AdamW, parameters())
        with pytest.raises(nnlr.NnlrError, match=said):
            schedule(optimizer, factory, **kwargs)

    def test_an_argument_that_is_missing_is_told_by_the_scheduler(self):
        """A TypeError that has nothing to do with the optimizer goes through as it is."""
        optimizer = grouped(torch.optim.AdamW, parameters())
        with pytest.raises(TypeError, match="step_size"):
            schedule(optimizer, lrs.StepLR)

    def test_a_scheduler_that_is_built_is_refused_with_the_call(self):
        """It works on the real optimizer; its class and arguments do."""
        optimizer = grouped(torch.optim.SGD, parameters())
        before = [group["lr"] for group in optimizer.param_groups]
        cosine = lrs.CosineAnnealingLR(optimizer, 5)
        fix = r"Pass its class and arguments: schedule\(optimizer, CosineAnnealingLR, \.\.\.\)\."
        with pytest.raises(nnlr.NnlrError, match=fix):
            schedule(optimizer, cosine)
        schedule(optimizer, lrs.CosineAnnealingLR, T_max=5)
        assert before == [group["lr"] for group in optimizer.param_groups]

    def test_a_scheduler_of_another_optimizer_is_refused(self):
        """A closure over the real optimizer would write absolute rates into it."""
        optimizer = grouped(torch.optim.SGD, parameters())
        with pytest.raises(nnlr.NnlrError, match="scheduled another optimizer"):
            schedule(optimizer, lambda _: lrs.StepLR(optimizer, 3))

    def test_a_step_that_passes_all_on_waits_for_no_metric(self):
        """Taken for a plateau, Lightning would ask for the name of a metric."""

        class Passing(lrs.StepLR):
            def step(self, *args):
                super().step(*args)

        optimizer = grouped(torch.optim.SGD, parameters())
        made = schedule(optimizer, Passing, step_size=1)
        assert not isinstance(made, lrs.ReduceLROnPlateau)

    def test_what_is_no_optimizer_is_refused(self):
        """A wrapper that is no torch optimizer has no groups that last."""
        with pytest.raises(nnlr.NnlrError, match="schedule needs a torch optimizer"):
            schedule(nn.Linear(1, 1), lrs.StepLR)

    def test_groups_that_belong_to_no_base_rate_are_refused(self):
        """Multipliers that were never applied; the message has the numbers."""
        groups = [
            {"params": [t], "lr_mult": m} for t, m in zip(parameters()[:2], (1.0, 0.1), strict=True)
        ]
        with pytest.raises(nnlr.ConfigError, match=r"0\.1 with lr_mult=1, 0\.1 with lr_mult=0\.1"):
            schedule(torch.optim.SGD(groups, lr=0.1), lrs.StepLR, step_size=3)

    def test_nothing_to_schedule_is_refused(self):
        """All rates 0, or no such setting."""
        optimizer = torch.optim.SGD(parameters(), lr=0.0)
        with pytest.raises(nnlr.NnlrError, match="Every group of the optimizer has lr=0"):
            schedule(optimizer, lrs.StepLR, step_size=3)
        optimizer = torch.optim.Rprop(parameters())
        with pytest.raises(nnlr.NnlrError, match="has no 'weight_decay' to schedule"):
            schedule(optimizer, lrs.ConstantLR, weight_decay=lrs.ConstantLR)


class TestWriting:
    def test_a_rate_that_is_a_whole_number_follows_too(self):
        """``lr=1`` in a group is no float, and becomes one with the first rate."""
        optimizer = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=1)
        scheduler = schedule(optimizer, lrs.StepLR, step_size=1, gamma=0.5)
        optimizer.step()
        scheduler.step()
        assert [0.5] == [group["lr"] for group in optimizer.param_groups]

    def test_groups_follow_the_momentum_of_their_own_course(self):
        """A cycle for the biases leaves that of the others alone."""
        groups = [
            {"params": [torch.zeros(2, requires_grad=True)], "name": name, "lr_mult": 1.0}
            for name in ("bias", "weight")
        ]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)

        def cycling(proxy):
            return lrs.OneCycleLR(proxy, 0.1, 10)

        optimizer.step()
        schedule(optimizer, {"bias": cycling, "*": partial(lrs.StepLR, step_size=1)})
        assert [0.95, 0.9] == [group["momentum"] for group in optimizer.param_groups]
