"""Multipliers that move while training: what acts on the optimizer, and what is saved."""

import io
import math

import pytest
import torch
from torch import nn

import nnlr

LAYERS = {f"{at}.*": at for at in range(4)}


def half_cosine(t, layer):
    """To 0, the earlier the lower the layer."""
    return max(0.0, math.cos(t * math.pi / 2 * (1 + layer.below)))


def make(*, scheduled=True, decay=0.9, function=half_cosine):
    """A network of four layers, its plan, an attached optimizer, and a schedule."""
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])
    scheme = nnlr.layer_decay(decay, indexer=LAYERS).at(function) * nnlr.no_weight_decay()
    plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.1)
    optimizer = plan.optimizer(torch.optim.AdamW)
    attached = nnlr.attach(optimizer, plan, total_steps=20)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    schedule = nnlr.schedule(optimizer, cosine, T_max=20) if scheduled else None
    return net, plan, optimizer, attached, schedule


def train(net, optimizer, attached, schedule, steps):
    """Some steps on data that depend on the step."""
    for _ in range(steps):
        torch.manual_seed(attached.progress.step)
        optimizer.zero_grad()
        net(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


@pytest.mark.parametrize("scheduled", [True, False])
def test_rates_are_base_times_plan_times_move(scheduled):
    """At each step, under a schedule and without one, the rate of a group is the product."""
    net, plan, optimizer, attached, schedule = make(scheduled=scheduled)
    for step in range(8):
        base = 0.1 if schedule is None else schedule.base_lr
        for group in optimizer.param_groups:
            row = plan[group["param_names"][0]]
            moved = half_cosine(step / 20, nnlr.depth.Layer(*row.depth))
            assert group["lr_mult"] == pytest.approx(row.lr_mult * moved)
            assert group["lr"] == pytest.approx(base * group["lr_mult"])
        train(net, optimizer, attached, schedule, 1)


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_resumed_run_goes_on_to_the_last_bit(scheduled):
    """Weights after 7 + 6 steps are those after 7 steps, a checkpoint, and 6 steps."""
    whole = make(scheduled=scheduled)
    train(whole[0], *whole[2:], 7)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in (whole[0], whole[2], whole[4]) if part], file)
    train(whole[0], *whole[2:], 6)
    resumed = make(scheduled=scheduled)
    file.seek(0)
    parts = [part for part in (resumed[0], resumed[2], resumed[4]) if part]
    for part, state in zip(parts, torch.load(file), strict=True):
        part.load_state_dict(state)
    assert resumed[3].progress.step == 7
    train(resumed[0], *resumed[2:], 6)
    for one, other in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_regrouping_goes_on_with_the_moves():
    """A new plan's groups are as far as the old ones were, on the new plan's multipliers."""
    net, _, optimizer, attached, schedule = make()
    train(net, optimizer, attached, schedule, 3)
    new = make(decay=0.5)[1]
    nnlr.regroup(optimizer, new, model=net)
    assert attached.progress.step == 3
    assert attached.plan is new
    for group in optimizer.param_groups:
        row = new[group["param_names"][0]]
        moved = half_cosine(3 / 20, nnlr.depth.Layer(*row.depth))
        assert group["lr_mult"] == pytest.approx(row.lr_mult * moved)


def test_a_step_before_attach_is_refused():
    """A plan that moves is not trained as if it did not."""
    net = nn.Linear(2, 1)
    plan = nnlr.resolve(net, nnlr.rule("bias").at(lambda t: 0.5), lr=0.1, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.SGD)
    with pytest.raises(nnlr.ConfigError, match=r"nobody moves them.*nnlr.attach"):
        optimizer.step()
    nnlr.attach(optimizer, plan)
    optimizer.step()


def test_a_plan_that_was_read_from_json_is_equal_and_cannot_be_attached():
    """JSON holds what moves and how in words, and no functions."""
    net, plan, *_ = make()
    read = nnlr.Plan.from_json(plan.to_json())
    assert read == plan
    optimizer = read.optimizer(torch.optim.AdamW, model=net)
    with pytest.raises(nnlr.ConfigError, match="read from JSON"):
        nnlr.attach(optimizer, read, model=net)
