"""Rates over time: a copy of a schedule runs ahead, and nothing of the user's is touched."""

import copy
import random
import threading
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim import optimizer as hooks

import nnlr
from nnlr.report import rates_over_time

COSINE = partial(lrs.CosineAnnealingLR, T_max=9, eta_min=1e-3)
CHAIN = partial(
    lambda opt, warm: lrs.SequentialLR(
        opt, [lrs.LinearLR(opt, 0.1, total_iters=warm), lrs.ExponentialLR(opt, 0.5)], [warm]
    ),
    warm=3,
)


def layered(scheme=None):
    """A plan of three groups: rates 0.1, 0.05 and 0.025."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    return net, nnlr.resolve(net, scheme or nnlr.layer_decay(0.5), lr=0.1, weight_decay=0.2)


def trained(optimizer, scheduler, steps, *told):
    """The rates of each group in so many steps of real training, by name."""
    rates = []
    for step in range(steps):
        if step:
            optimizer.step()
            scheduler.step(*told)
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    names = [group["name"] for group in optimizer.param_groups]
    return dict(zip(names, map(tuple, zip(*rates, strict=True)), strict=True))


class ByPosition:
    """A scheduler of timm's kind: it is told the position, in epochs and in updates."""

    def __init__(self, optimizer):
        self.optimizer, self.updates = optimizer, []

    def step(self, epoch, metric=None):
        self.metric = metric
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] / (1 + epoch)

    def step_update(self, num_updates):
        self.updates.append(num_updates)


class TestCourse:
    @pytest.mark.parametrize("factory", [COSINE, CHAIN], ids=["cosine", "chain"])
    def test_a_schedule_of_ours(self, factory):
        """The rates are those of real steps, whether it is built or a factory."""
        _, plan = layered()
        optimizer = plan.optimizer(torch.optim.SGD)
        scheduler = nnlr.schedule(optimizer, factory)
        course = rates_over_time(plan, scheduler, 8)
        assert course == rates_over_time(plan, factory, 8)
        assert trained(optimizer, scheduler, 8) == course.lr
        assert (tuple(range(8)), {}, False, None) == (
            *(course.positions, course.weight_decay),
            *(course.metric, course.incomplete),
        )
        assert tuple(group.name for group in plan.groups) == course.groups

    @pytest.mark.parametrize("factory", [COSINE, CHAIN], ids=["cosine", "chain"])
    def test_a_plain_scheduler_of_torch(self, factory):
        """Its own rates, also where it loses the ratios."""
        _, plan = layered()
        optimizer = plan.optimizer(torch.optim.AdamW)
        scheduler = factory(optimizer)
        course = rates_over_time(plan, scheduler, 6)
        assert trained(optimizer, scheduler, 6) == course.lr
        assert type(scheduler).__name__ == course.label

    def test_it_goes_on_from_where_a_scheduler_stands(self):
        """The positions are the scheduler's own."""
        _, plan = layered()
        optimizer = plan.optimizer(torch.optim.SGD)
        scheduler = nnlr.schedule(optimizer, COSINE)
        trained(optimizer, scheduler, 5)
        course = rates_over_time(plan, scheduler, 3)
        assert (4, 5, 6) == course.positions
        assert trained(optimizer, scheduler, 3) == course.lr

    def test_groups_with_courses_of_their_own(self):
        """A mapping is what nnlr.schedule takes."""
        _, plan = layered()
        first, *others = (group.name for group in plan.groups)
        halved = partial(lrs.ExponentialLR, gamma=0.5)
        course = rates_over_time(plan, {first: halved, "*": None}, 3)
        assert (0.1, 0.05, 0.025) == course.lr[first]
        assert all(len(set(course.lr[name])) == 1 for name in others)

    def test_several_algorithms(self):
        """Each by its own base rate."""
        plan = nnlr.resolve(
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            nnlr.rule("0.*", algorithm="a") * nnlr.rule("1.*", algorithm="b"),
            lr={"a": 0.1, "b": 1.0},
            weight_decay=0,
        )
        course = rates_over_time(plan, lrs.ExponentialLR, 2, gamma=0.5)
        assert {"a_lr1_wd1": (0.1, 0.05), "b_lr1_wd1": (1.0, 0.5)} == course.lr

    def test_a_scheduled_decay(self):
        """It is read beside the rate."""
        _, plan = layered()
        halved = partial(lrs.ExponentialLR, gamma=0.5)
        course = rates_over_time(plan, COSINE, 3, weight_decay=halved)
        assert {(0.2, 0.1, 0.05)} == set(course.weight_decay.values())

    def test_a_setting_that_cycles_is_no_obstacle(self):
        """Some schedulers move betas too, and need an optimizer that has them."""
        _, plan = layered()
        settings = {"max_lr": 0.1, "total_steps": 10}
        course = rates_over_time(plan, lrs.OneCycleLR, 10, **settings)
        assert 0.1 == pytest.approx(max(course.lr["lr1_wd1"]))

    @pytest.mark.parametrize("ours", [True, False])
    @pytest.mark.parametrize("mode", ["min", "max"])
    def test_a_scheduler_that_follows_a_metric(self, ours, mode):
        """A metric that never improves; the patience counts."""
        _, plan = layered()
        optimizer = plan.optimizer(torch.optim.SGD)
        plateau = partial(lrs.ReduceLROnPlateau, mode=mode, factor=0.5, patience=2)
        scheduler = nnlr.schedule(optimizer, plateau) if ours else plateau(optimizer)
        course = rates_over_time(plan, scheduler, 9)
        assert course.metric
        assert "ReduceLROnPlateau" == course.label
        assert trained(optimizer, scheduler, 9, 1.0 if mode == "min" else 0.0) == course.lr
        assert 3 == len(set(course.lr["lr1_wd1"]))

    def test_a_scheduler_that_is_told_the_position(self):
        """Both of its methods are called, with the position."""
        _, plan = layered()
        optimizer = plan.optimizer(torch.optim.SGD)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        scheduler = ByPosition(optimizer)
        course = rates_over_time(plan, scheduler, 3)
        assert (0.1, 0.05, 0.1 / 3) == course.lr["lr1_wd1"]
        assert [] == scheduler.updates
        by_epochs = type("ByEpochs", (ByPosition,), {"step_update": None})(optimizer)
        assert course.lr == rates_over_time(plan, by_epochs, 3).lr

    def test_a_long_course_is_thinned(self):
        """The first and the last position stay."""
        _, plan = layered()
        course = rates_over_time(plan, COSINE, 101, points=5)
        assert (0, 25, 50, 75, 100) == course.positions
        whole = rates_over_time(plan, COSINE, 101).lr["lr1_wd1"]
        assert whole[::25] == course.lr["lr1_wd1"]

    def test_a_course_that_ends_early_says_why(self):
        """The rates up to there are told."""
        _, plan = layered()
        optimizer = plan.optimizer(torch.optim.SGD)
        scheduler = lrs.OneCycleLR(optimizer, 0.1, total_steps=4, cycle_momentum=False)
        course = rates_over_time(plan, scheduler, 9)
        assert (0, 1, 2, 3) == course.positions[:4]
        assert "Tried to step" in course.incomplete


class TestNothingIsTouched:
    def test_objects_random_states_and_hooks(self):
        """Everything is as it was, and the schedule goes on as if nothing had been."""
        _, plan = layered()
        optimizer = plan.optimizer(torch.optim.AdamW)
        scheduler = nnlr.schedule(optimizer, lambda opt: lrs.LambdaLR(opt, noisy))
        before = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
        states = torch.get_rng_state(), random.getstate()
        handle = hooks.register_optimizer_step_post_hook(lambda *_: None)
        registered = dict(hooks._global_optimizer_post_hooks)
        rates_over_time(plan, scheduler, 5)
        assert registered == dict(hooks._global_optimizer_post_hooks)
        handle.remove()
        assert before == (optimizer.state_dict(), scheduler.state_dict())
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1] == random.getstate()

    def test_a_model_that_a_scheduler_refers_to_is_not_copied(self):
        """The parameters of the optimizer are shared with the copy."""

        class Uncopyable(nn.Parameter):
            def __deepcopy__(self, memo):
                raise MemoryError

        net = nn.Linear(1, 1, bias=False)
        net.weight = Uncopyable(net.weight.detach())
        plan = nnlr.resolve(net, lr=1.0, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        scheduler = lrs.ExponentialLR(optimizer, 0.5)
        scheduler.weights = [net.weight]
        assert {"lr1_wd1": (1.0, 0.5)} == rates_over_time(plan, scheduler, 2).lr


def noisy(step):
    """A multiplier that draws from both random states."""
    return random.random() + torch.rand(1).item()  # noqa: S311 - no secret


def failing(optimizer):
    """A scheduler whose step raises."""
    scheduler = lrs.StepLR(optimizer, 1)
    scheduler.step = lambda: 1 / 0
    return scheduler


class TestErrors:
    @pytest.mark.parametrize("value", [3, "cosine", repr])
    def test_no_scheduler(self, value):
        """What it is, and what to pass."""
        _, plan = layered()
        with pytest.raises(nnlr.NnlrError, match=r"(must be what nnlr\.schedule|no scheduler)"):
            rates_over_time(plan, value, 3)

    def test_an_optimizer_is_no_scheduler(self):
        """It has a step too."""
        _, plan = layered()
        with pytest.raises(nnlr.NnlrError, match=r"must be what nnlr\.schedule returned"):
            rates_over_time(plan, plan.optimizer(torch.optim.SGD), 3)

    def test_settings_of_a_scheduler_that_is_built(self):
        """They would be ignored."""
        _, plan = layered()
        scheduler = COSINE(plan.optimizer(torch.optim.SGD))
        with pytest.raises(nnlr.NnlrError, match="T_max=3 is a setting for a scheduler class"):
            rates_over_time(plan, scheduler, 3, T_max=3)

    def test_a_scheduler_that_cannot_be_copied(self):
        """The way out is in the message."""
        _, plan = layered()
        scheduler = COSINE(plan.optimizer(torch.optim.SGD))
        scheduler.lock = threading.Lock()
        with pytest.raises(nnlr.NnlrError, match=r"cannot be copied \(TypeError"):
            rates_over_time(plan, scheduler, 3)

    @pytest.mark.parametrize(
        ("step", "why"),
        [
            (lambda self: 1 / 0, "ZeroDivisionError"),
            (lambda self, loss, epoch: None, "TypeError: its step takes loss, epoch"),
        ],
    )
    def test_a_scheduler_that_cannot_be_run(self, step, why):
        """It fails at once, with the reason."""
        _, plan = layered()
        cls = type("Odd", (ByPosition,), {"step": step})
        scheduler = cls(plan.optimizer(torch.optim.SGD))
        with pytest.raises(nnlr.NnlrError, match=f"Odd fails at its first step .{why}"):
            rates_over_time(plan, scheduler, 3)

    def test_a_plan_that_trains_nothing(self):
        """There is no group to schedule."""
        _, plan = layered(nnlr.rule("*", lr_mult=0))
        with pytest.raises(nnlr.NnlrError, match="trains no parameter"):
            rates_over_time(plan, COSINE, 3)

    @pytest.mark.parametrize("steps", [0, 1.5, True, "10"])
    def test_no_number_of_steps(self, steps):
        """At least one step."""
        _, plan = layered()
        with pytest.raises(nnlr.NnlrError, match="steps must be a whole number >= 1"):
            rates_over_time(plan, COSINE, steps)

    def test_no_plan(self):
        """The arguments in another order."""
        _, plan = layered()
        with pytest.raises(nnlr.NnlrError, match="plan must be a Plan"):
            rates_over_time(COSINE, plan, 3)

    def test_too_few_points(self):
        """The first and the last are two."""
        _, plan = layered()
        with pytest.raises(nnlr.NnlrError, match="points must be a whole number >= 2"):
            rates_over_time(plan, COSINE, 3, points=1)
