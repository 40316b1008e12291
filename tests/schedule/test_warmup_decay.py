"""`nnlr.WarmupDecay`: the shape of each course, as torch's scheduler and as a course of groups."""

import math

import pytest
import torch

import nnlr


def factors(steps=11, **settings):
    """The factors of a course of ten steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    scheduler = nnlr.WarmupDecay(optimizer, total_steps=10, **settings)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"] / 2)
        optimizer.step()
        scheduler.step()
    return rates


CASES = {
    "cosine": ({}, [(1 + math.cos(math.pi * t / 10)) / 2 for t in range(11)]),
    "linear, warm-up": (
        {"warmup": 0.2, "shape": "linear", "floor": 0.2},
        [0, 0.5, *(1 - 0.1 * t for t in range(9))],
    ),
    "warm-up in steps, from a start": (
        {"warmup_steps": 2, "start": 0.5, "shape": "constant"},
        [0.5, 0.75, *[1.0] * 9],
    ),
    "exponential, late": (
        {"shape": "exponential", "floor": 0.01, "cooldown": 0.2},
        [*[1.0] * 9, 0.1, 0.01],
    ),
    "steps": (
        {"shape": "steps", "milestones": [0.5, 0.8], "gamma": 0.5},
        [*[1.0] * 5, *[0.5] * 3, *[0.25] * 3],
    ),
    "nothing but warm-up": ({"warmup": 1.0, "floor": 0.3}, [t / 10 for t in range(10)] + [0.3]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_shape(case):
    """The factor at every step; after the last it stays."""
    settings, expected = CASES[case]
    assert pytest.approx(expected, abs=1e-12) == factors(**settings)
    assert pytest.approx(expected[-1], abs=1e-12) == factors(steps=14, **settings)[-1]


def test_ratios_hold_and_a_resume_goes_on():
    """As a course of groups; its state continues in a new one."""

    def made():
        net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0.1), lr=1.0, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        return optimizer, nnlr.schedule(
            optimizer, nnlr.WarmupDecay, total_steps=8, warmup=0.25, shape="linear"
        )

    optimizer, scheduler = made()
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.5, 0.05])
    twin, other = made()
    twin.load_state_dict(optimizer.state_dict())
    other.load_state_dict(scheduler.state_dict())
    for each in (scheduler, other):
        each.optimizer.step()
        each.step()
    assert scheduler.get_last_lr() == other.get_last_lr()


def test_the_warm_up_of_a_recipe_is_overruled():
    """With the words of the messages, for a share and for steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    share = nnlr.recipe("mae/vit-b/finetune")
    steps = nnlr.recipe("nanogpt/gpt2-124m/pretrain")
    with pytest.raises(nnlr.NnlrError, match=r"Pass fewer, or a share"):
        steps.scheduler(optimizer, total_steps=1000)
    made = steps.scheduler(optimizer, total_steps=1000, warmup=0.1, warmup_steps=None)
    assert made.scheduler.warmup == 100
    made = share.scheduler(optimizer, total_steps=1000, warmup=None, warmup_steps=7)
    assert made.scheduler.warmup == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_steps": 0}, "total_steps must be a whole number >= 1"),
        ({"warmup": 1.5}, "warmup must be a finite number >= 0 and <= 1"),
        ({"warmup_steps": 1.5}, "warmup_steps must be a whole number >= 0"),
        ({"warmup_steps": 11}, "warmup_steps=11 are more than .* total_steps=10.*warmup=0.1, w"),
        ({"warmup": 0.1, "warmup_steps": 2}, "warmup=0.1 and warmup_steps=2 both.*warmup_steps=N"),
        ({"floor": 1.5}, "floor must be a finite number >= 0 and <= 1"),
        ({"shape": "cosinus"}, "shape must be one of .*Nearest: 'cosine'"),
        ({"shape": "steps"}, "shape='steps' needs milestones"),
        ({"milestones": [0.5]}, "no other shape takes any; got shape='cosine'"),
        ({"shape": "steps", "milestones": [0.5, 0.2]}, "ascending"),
        ({"shape": "steps", "milestones": [5]}, r"milestones\[0\] must be"),
        ({"shape": "constant", "floor": 0.1}, "shape='constant' has no floor"),
        ({"shape": "exponential"}, "needs a floor > 0"),
        ({"cooldown": 0}, "cooldown must be a finite number > 0 and <= 1"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    """Ranges, and settings that a shape would ignore."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with pytest.raises(nnlr.NnlrError, match=message):
        nnlr.WarmupDecay(optimizer, **{"total_steps": 10, **settings})


def test_a_call_that_is_offered_has_no_steps_for_shares():
    """After the end: the class by its public name, the length, dots for what is kept as steps."""
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    scheduler = nnlr.schedule(optimizer, nnlr.WarmupDecay, total_steps=8, warmup=0.25)
    for _ in range(8):
        optimizer.step()
        scheduler.step()
    (finding,) = [f for f in nnlr.check(net, optimizer, scheduler) if f.kind == "rates-stay-zero"]
    assert "nnlr.schedule(optimizer, nnlr.WarmupDecay, total_steps=8, ...)" in " ".join(
        str(finding).split()
    )
