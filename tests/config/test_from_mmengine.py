"""``nnlr.config.from_mmengine``: an optim_wrapper as a recipe."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import NnlrError

INNER = {"custom_keys": {"0": {"lr_mult": 0.1}}, "bias_decay_mult": 0.0}

NET = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


def recipe(paramwise_cfg=None, **optimizer):
    """That of an optim_wrapper with this optimizer."""
    whole = {"type": "OptimWrapper", "optimizer": optimizer, "clip_grad": {"max_norm": 1}}
    return nnlr.config.from_mmengine({**whole, "paramwise_cfg": paramwise_cfg})


def test_rates_scheme_class_and_settings_come_from_the_dict():
    """Nothing is copied by hand."""
    made = recipe(INNER, type="AdamW", lr=0.5, weight_decay=0.25, betas=(0.8, 0.9))
    assert (0.5, 0.25) == (made.lr, made.weight_decay)
    optimizer = made.optimizer(NET)
    assert type(optimizer) is torch.optim.AdamW
    rates = {tuple(g["param_names"]): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert (0.05, 0.25) == rates["0.weight", "0.bias"]
    assert (0.5, 0.0) == rates["1.bias",]
    assert (0.8, 0.9) == optimizer.param_groups[0]["betas"]


def test_base_rates_that_are_left_out_are_those_of_the_class():
    """AdamW decays by 0.01 where nothing is written, as in MMEngine."""
    made = recipe(type="torch.optim.AdamW")
    assert (1e-3, 1e-2) == (made.lr, made.weight_decay)
    assert 0 == recipe(type="SGD", lr=1, weight_decay=None).weight_decay


def test_the_optimizer_of_mmcv_1_is_taken():
    """Its dict has the settings and the paramwise_cfg side by side."""
    old = {"type": "SGD", "lr": 1, "momentum": 0.9, "weight_decay": 0.1, "paramwise_cfg": INNER}
    made = nnlr.config.from_mmengine(old)
    assert 0.9 == made.optimizer(NET).param_groups[0]["momentum"]
    assert pytest.approx(0.1) == made.resolve(NET)["0.weight"].lr


class Own(torch.optim.SGD):
    """An optimizer that is registered elsewhere."""

    def __init__(self, params, lr, momentum=0.0):
        super().__init__(params, lr, momentum)


def test_a_class_is_taken_as_it_is():
    """As lazy configurations have it; also one that is not torch's."""
    assert torch.optim.AdamW is recipe(type=torch.optim.AdamW).algorithms
    assert Own is recipe(type=Own, lr=1, weight_decay=0).algorithms
    made = recipe(type=Own, lr=1, weight_decay=0, momentum=0.5)
    assert {"momentum": 0.5} == made.algorithms.keywords


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ({"custom_keys": {}}, "needs the whole optim_wrapper(?s:.*)got one with custom_keys"),
        ({"optimizer": {}}, "needs the whole optim_wrapper"),
        ("swin.py", r"takes a configuration, got the text 'swin.py'\. .*Config\.fromfile"),
        (
            {"optimizer": {"type": "Lamb", "lr": 1}},
            r"'Lamb' is no class of torch.optim\. (?s:.*)= Lamb",
        ),
        ({"optimizer": {"type": "AdmW", "lr": 1}}, r"no class of torch.optim\. Nearest: 'AdamW'"),
        ({"optimizer": {"type": Own}}, "needs 'lr': Own has no default"),
        ({"optimizer": {"type": Own, "lr": 1}}, "needs 'weight_decay': Own has no default"),
        ({"optimizer": {"type": "SGD", "lr": "x"}}, "lr must be a finite number"),
        ({"optimizer": {"type": "SGD", "mometum": 1}}, "Nearest: 'momentum'"),
        ({"optimizer": {"type": "SGD"}, "constructor": "Mine"}, "constructor 'Mine' is none"),
    ],
)
def test_what_makes_no_recipe_is_refused(whole, message):
    """At the call, with what to write."""
    with pytest.raises(NnlrError, match=message):
        nnlr.config.from_mmengine(whole)


def test_settings_of_a_schedule_that_is_not_there_are_refused():
    """An optim_wrapper has no param_scheduler: the rates would be constant without a word."""
    of_sgd = recipe(type="SGD", lr=0.1)
    optimizer = of_sgd.optimizer(NET)
    of_sgd.scheduler(optimizer)
    assert 0.1 == optimizer.param_groups[0]["lr"]
    with pytest.raises(nnlr.ConfigError, match="names no schedule that total_steps could be for"):
        of_sgd.scheduler(optimizer, total_steps=10)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    scheduler = nnlr.schedule(optimizer, cosine, T_max=10)  # the fix of the message
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] < 0.1
