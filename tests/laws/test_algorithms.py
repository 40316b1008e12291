"""Random runs of several algorithms: train, regroup, save and load, copy, schedule again."""

import copy
import io
import random
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr

CLASSES = {
    "muon": torch.optim.Muon,
    "adamw": nnlr.optim.AdamW,
    "sgd": partial(nnlr.optim.SGD, momentum=0.9),
    "rms": partial(torch.optim.RMSprop, momentum=0.5),
}
KEEPS = {
    "muon": {"momentum_buffer"},
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "sgd": {"momentum_buffer"},
    "rms": {"step", "square_avg", "momentum_buffer"},
}
SCHEDULES = [
    partial(nnlr.schedule, factory=lrs.CosineAnnealingLR, T_max=50, eta_min=1e-4),
    partial(nnlr.schedule, factory=lrs.OneCycleLR, max_lr=0.05, total_steps=300),
    partial(nnlr.schedule, factory=lrs.ExponentialLR, gamma=0.9),
]


def some_plan(model, draw):
    """Any routing that the classes can take, any multipliers, any bases."""
    names = [*CLASSES]
    rules = [
        nnlr.rule(
            name,
            algorithm=draw.choice(names if p.ndim == 2 else names[1:]),
            lr_mult=draw.choice([1, 1, 0.5, 0.1, 0]),
            wd_mult=draw.choice([1, 0]),
        )
        for name, p in model.named_parameters()
    ]
    return nnlr.resolve(
        model,
        *rules,
        lr={name: draw.choice([0.01, 0.02, 1e-3]) for name in names},
        weight_decay={name: draw.choice([0.0, 0.1]) for name in names},
    )


def train(model, scheduler):
    for p in model.parameters():
        p.grad = torch.randn(p.shape) if p.requires_grad else None
    scheduler.optimizer.step()
    scheduler.step()


def reloaded(scheduler, build, draw):
    """Another optimizer and schedule that take up what these saved."""
    file = io.BytesIO()
    torch.save([scheduler.state_dict(), scheduler.optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    second = build()
    order = [(second, states[0]), (second.optimizer, states[1])]
    for target, state in draw.sample(order, 2):
        target.load_state_dict(state)
    return second


def assert_alike(model, scheduler):
    """A copy trains as the original does, to the last bit."""
    other, twin = copy.deepcopy((model, scheduler))
    before = torch.random.get_rng_state()
    train(model, scheduler)
    torch.random.set_rng_state(before)
    train(other, twin)
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def assert_in_proportion(optimizer):
    """All rates are at one factor of their algorithm's base; state is of the class that steps."""
    factors = set()
    for group in optimizer.param_groups:
        name = group["algorithm"]
        base = optimizer.algorithms[name].defaults["lr"]
        factors.add(round(group["lr"] / (base * group["lr_mult"]), 9))
        for p in group["params"]:
            assert not optimizer.state.get(p) or KEEPS[name] <= optimizer.state[p].keys()
    assert len(factors) == 1


def check(seed):
    """A run of twelve random operations."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    torch.manual_seed(seed)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    schedule = draw.choice(SCHEDULES)

    def build():
        for p in model.parameters():
            p.requires_grad_(True)
        return schedule(some_plan(model, draw).optimizer(CLASSES))

    scheduler = build()
    for _ in range(12):
        match draw.choice(["train", "regroup", "load", "copy", "schedule"]):
            case "train":
                train(model, scheduler)
            case "regroup":
                nnlr.regroup(scheduler.optimizer, some_plan(model, draw))
            case "load":
                scheduler = reloaded(scheduler, build, draw)
            case "copy":
                assert_alike(model, scheduler)
            case "schedule":
                schedule = draw.choice(SCHEDULES)
                scheduler = schedule(scheduler.optimizer)
        assert_in_proportion(scheduler.optimizer)
    train(model, scheduler)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_run(seed):
    """A sample of them."""
    with warnings.catch_warnings(action="ignore"):
        check(seed)


@pytest.mark.full
def test_random_runs():
    """Many of them."""
    with warnings.catch_warnings(action="ignore"):
        for seed in range(4, 300):
            check(seed)
