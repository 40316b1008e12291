"""Whose base rates count when a checkpoint is loaded, with a schedule and without."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import AveragedModel

import nnlr

LR, DECAY = 0.2, 0.05


def network():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


def plan(model, *schemes, lr=LR, weight_decay=DECAY):
    return nnlr.resolve(model, *schemes, lr=lr, weight_decay=weight_decay)


def steps(model, optimizer, scheduler=None, count=2):
    for _ in range(count):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        if scheduler:
            scheduler.step()


def halved(optimizer):
    """Half the base rates at every step."""
    return nnlr.schedule(
        optimizer,
        lrs.ExponentialLR,
        gamma=0.5,
        weight_decay=lambda opt: lrs.ExponentialLR(opt, 0.5),
    )


def rates(optimizer):
    return [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]


@pytest.mark.parametrize("there", [0.0, DECAY])
@pytest.mark.parametrize("regrouped", [False, True])
def test_without_a_schedule_the_codes_decay_counts(there, regrouped):
    """Also where one of the two, code or checkpoint, has none."""
    here = DECAY - there
    old = plan(network(), weight_decay=here if regrouped else there)
    model = network()
    first = old.optimizer(torch.optim.AdamW, model=model)
    if regrouped:
        nnlr.regroup(first, plan(model, weight_decay=there))
    steps(model, first)
    second = plan(model, weight_decay=here).optimizer(torch.optim.AdamW)
    with pytest.warns(nnlr.NnlrWarning, match="weight_decay is"):
        second.load_state_dict(first.state_dict())
    assert [(LR, here)] == rates(second)


@pytest.mark.parametrize("order", ["bos", "bso", "obs"])
@pytest.mark.parametrize("resume", ["code", "checkpoint"])
def test_a_schedule_goes_on_at_the_base_rates_that_count(order, resume):
    """Whether it is built, loaded, and the optimizer loaded, in this order or another."""
    model = network()
    first = plan(model).optimizer(torch.optim.AdamW)
    scheduler = halved(first)
    steps(model, first, scheduler)
    saved, progress = copy.deepcopy((first.state_dict(), scheduler.state_dict()))
    other = plan(model, lr=0.03, weight_decay=0.4)
    second = other.optimizer(torch.optim.AdamW, resume=resume)
    with warnings.catch_warnings(action="ignore", category=nnlr.NnlrWarning):
        for part in order:
            if part == "b":
                scheduler = halved(second)
            elif part == "o":
                second.load_state_dict(saved)
            else:
                scheduler.load_state_dict(progress)
    lr, decay = (0.03, 0.4) if resume == "code" else (LR, DECAY)
    (now,) = rates(second)
    assert pytest.approx((lr / 4, decay / 4)) == now
    steps(model, second, scheduler, 1)
    assert pytest.approx((lr / 8, decay / 8)) == rates(second)[0]


def test_a_base_rate_that_was_moved_by_hand_stays_moved():
    """In proportion, if the code's base is another now."""
    model = network()
    runs = [plan(model, lr=lr).optimizer(torch.optim.SGD) for lr in (LR, LR, 3 * LR)]
    schedules = [halved(each) for each in runs]
    schedules[0].set_base_lr(0.5)
    for each in schedules[1:]:
        each.load_state_dict(copy.deepcopy(schedules[0].state_dict()))
    assert pytest.approx([0.5, 0.5, 1.5]) == [each.base_lr for each in schedules]


def test_states_of_old_and_of_groups_of_ones_own_are_taken_as_they_are():
    """Where nothing says what the default was, or it is not the base, it says nothing."""
    model = network()
    first, second = (plan(model, lr=lr).optimizer(torch.optim.SGD) for lr in (LR, 0.1))
    state = halved(first).state_dict()
    for each in state.values():
        del each["default"]
    scheduler = halved(second)
    scheduler.load_state_dict(state)
    assert LR == scheduler.base_lr

    def own(lr, default):
        group = {"params": list(model.named_parameters()), "lr": lr}
        optimizer = torch.optim.SGD([group], lr=default)
        nnlr.checkpoint.on_load(optimizer, model=model)
        return nnlr.schedule(optimizer, lrs.ExponentialLR, gamma=0.5)

    one, other = own(0.3, default=0.1), own(0.3, default=0.2)
    other.load_state_dict(one.state_dict())
    assert 0.3 == other.base_lr


def test_betas_that_a_schedule_cycles_are_not_the_checkpoints():
    """There they were an option of the plan, which the code has given up."""
    model = network()
    cycle = {"max_lr": 1.0, "total_steps": 20}
    own = nnlr.rule("0.*", options={"betas": (0.5, 0.999)})
    first = plan(model, own).optimizer(torch.optim.AdamW)
    scheduler = nnlr.schedule(first, lrs.OneCycleLR, **cycle)
    steps(model, first, scheduler)
    second = plan(model, nnlr.rule("0.*", lr_mult=0.5)).optimizer(torch.optim.AdamW)
    resumed = nnlr.schedule(second, lrs.OneCycleLR, **cycle)
    resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    with pytest.warns(nnlr.NnlrWarning, match="does not fit as it was saved"):
        second.load_state_dict(first.state_dict())
    wanted = resumed.scheduler.optimizer.param_groups[0]["betas"]
    assert [wanted, wanted] == [group["betas"] for group in second.param_groups]


def test_a_replaced_tensor_that_is_alive_does_not_keep_its_name():
    """The optimizer was moved to averages; the model that they are of is kept."""
    model = network()
    optimizer = plan(model).optimizer(torch.optim.Adam)
    steps(model, optimizer)
    averages = AveragedModel(model)
    nnlr.regroup(optimizer, plan(model), model=averages)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert set(averages.module.parameters()) == set(optimizer.state)
    report = nnlr.checkpoint.last_report(optimizer)
    assert ((), 4, {}) == (report.fresh, len(report.moved), report.unused)


@pytest.mark.parametrize("order", ["so", "os"])
def test_betas_that_all_groups_shared_are_the_checkpoints_and_do_not_cycle(order):
    """An option for every parameter cannot be told from the optimizer's own setting."""
    model = network()
    cycle = {"max_lr": 1.0, "total_steps": 20}
    own = nnlr.rule("*", options={"betas": (0.5, 0.999)})
    first = plan(model, own).optimizer(torch.optim.AdamW)
    scheduler = nnlr.schedule(first, lrs.OneCycleLR, **cycle)
    steps(model, first, scheduler)
    second = plan(model).optimizer(torch.optim.AdamW)
    with warnings.catch_warnings(action="ignore", category=nnlr.NnlrWarning):
        for part in order:
            if part == "o":
                second.load_state_dict(copy.deepcopy(first.state_dict()))
            else:
                resumed = nnlr.schedule(second, lrs.OneCycleLR, **cycle)
                resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    for _ in range(2):
        assert (0.5, 0.999) == second.param_groups[0]["betas"]
        steps(model, second, resumed, 1)


def test_a_group_whose_option_was_given_up_cycles_again():
    """Also where the optimizer is loaded first: no note of the old group stays."""
    model = network()
    cycle = {"max_lr": 1.0, "total_steps": 20}
    own = nnlr.rule("0.*", options={"betas": (0.5, 0.999)})
    first = plan(model, own).optimizer(torch.optim.AdamW)
    scheduler = nnlr.schedule(first, lrs.OneCycleLR, **cycle)
    steps(model, first, scheduler)
    second = plan(model, nnlr.rule("0.*", lr_mult=0.5)).optimizer(torch.optim.AdamW)
    with pytest.warns(nnlr.NnlrWarning, match="does not fit as it was saved"):
        second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed = nnlr.schedule(second, lrs.OneCycleLR, **cycle)
    resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    wanted = resumed.scheduler.optimizer.param_groups[0]["betas"]
    assert [wanted, wanted] == [group["betas"] for group in second.param_groups]


def test_a_group_added_in_mid_schedule_goes_by_the_same_base():
    """So nothing differs from a checkpoint of the same run; it has no note of its start."""
    model, extra = network(), nn.Linear(2, 2, bias=False)
    optimizer = plan(model).optimizer(torch.optim.AdamW)
    scheduler = halved(optimizer)
    steps(model, optimizer, scheduler)
    optimizer.add_param_group(
        {
            "params": [("extra.weight", extra.weight)],
            "lr": 2 * scheduler.base_lr,
            "weight_decay": 0.0,
            "lr_mult": 2.0,
            "wd_mult": 0.0,
        }
    )
    saved = copy.deepcopy(optimizer.state_dict())
    nnlr.checkpoint.on_load(optimizer, model=model)  # as after a copy
    optimizer.load_state_dict(saved)
    assert () == nnlr.checkpoint.last_report(optimizer).differences


@pytest.mark.parametrize("order", ["bos", "bso", "obs"])
@pytest.mark.parametrize(
    ("kind", "counts"),
    [("on_load", 0.03), ("fit_state", LR), ("torch", LR), ("resume=None", LR)],
)
def test_where_nothing_loads_by_name_the_schedule_goes_by_its_own_state(kind, counts, order):
    """In any order; with on_load the code's base counts, as for plan.optimizer."""
    model = network()

    def built(lr):
        if kind == "resume=None":
            return plan(model, lr=lr).optimizer(torch.optim.AdamW, resume=None)
        optimizer = torch.optim.AdamW(list(model.named_parameters()), lr=lr)
        if kind == "on_load":
            nnlr.checkpoint.on_load(optimizer, model=model)
        return optimizer

    first = built(LR)
    scheduler = nnlr.schedule(first, lrs.ExponentialLR, gamma=0.5)
    steps(model, first, scheduler)
    saved, progress = copy.deepcopy((first.state_dict(), scheduler.state_dict()))
    second = built(0.03)
    with warnings.catch_warnings(action="ignore", category=nnlr.NnlrWarning):
        for part in order:
            if part == "b":
                scheduler = nnlr.schedule(second, lrs.ExponentialLR, gamma=0.5)
            elif part == "s":
                scheduler.load_state_dict(progress)
            elif kind == "fit_state":
                state, _ = nnlr.checkpoint.fit_state(saved, second)
                second.load_state_dict(state)
            else:
                second.load_state_dict(saved)
    assert pytest.approx(counts / 4) == second.param_groups[0]["lr"]
    steps(model, second, scheduler, 1)
    assert pytest.approx(counts / 8) == second.param_groups[0]["lr"]
