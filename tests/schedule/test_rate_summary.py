"""The three numbers that stand for an optimizer's rates."""

import pytest
import torch
from torch import nn

import nnlr


def optimizer_of(*groups):
    """One tensor for each group."""
    filled = [{"params": [nn.Parameter(torch.zeros(1))], **group} for group in groups]
    return torch.optim.SGD(filled, lr=0.5)


def test_the_reference_is_the_first_group_of_multiplier_1():
    """Wherever it stands, and whatever the others have."""
    optimizer = optimizer_of(
        {"lr": 1.0, "lr_mult": 10.0},
        {"lr": 0.1, "lr_mult": 1.0},
        {"lr": 0.2, "lr_mult": 1.0},
    )
    expected = {"lr": 0.1, "lr_min": 0.1, "lr_max": 1.0}
    assert expected == nnlr.rate_summary(optimizer)


def test_without_a_multiplier_of_1_the_largest_is_the_reference():
    """Then the rate of that group is what the log shows."""
    optimizer = optimizer_of({"lr": 0.01, "lr_mult": 0.1}, {"lr": 0.05, "lr_mult": 0.5})
    expected = {"lr": 0.05, "lr_min": 0.01, "lr_max": 0.05}
    assert expected == nnlr.rate_summary(optimizer)


def test_without_multipliers_the_largest_rate_is_the_reference():
    """As nnlr.schedule takes it for the base."""
    optimizer = optimizer_of({"lr": 0.01}, {"lr": 0.3})
    expected = {"lr": 0.3, "lr_min": 0.01, "lr_max": 0.3}
    assert expected == nnlr.rate_summary(optimizer)


def test_groups_that_do_not_learn_are_left_out_of_the_extremes():
    """A kept lr-0 group would make every minimum 0."""
    optimizer = optimizer_of({"lr": 0.1, "lr_mult": 1.0}, {"lr": 0.0, "lr_mult": 0.0})
    expected = {"lr": 0.1, "lr_min": 0.1, "lr_max": 0.1}
    assert expected == nnlr.rate_summary(optimizer)


def test_at_the_start_of_a_warmup_all_are_0():
    """There is no rate above 0 then."""
    optimizer = optimizer_of({"lr": 0.0, "lr_mult": 1.0}, {"lr": 0.0, "lr_mult": 0.1})
    assert {"lr": 0.0, "lr_min": 0.0, "lr_max": 0.0} == nnlr.rate_summary(optimizer)


def test_rates_in_tensors_come_out_as_floats():
    """Loggers want plain values."""
    net = nn.Linear(2, 1)
    plan = nnlr.resolve(net, nnlr.rule("bias", lr_mult=0.5), lr=0.25, weight_decay=0)
    found = nnlr.rate_summary(plan.optimizer(torch.optim.AdamW, tensor_lr=True))
    assert {"lr": 0.25, "lr_min": 0.125, "lr_max": 0.25} == found
    assert {float} == set(map(type, found.values()))


PLAN = nnlr.resolve(nn.Linear(1, 1), lr=0.1, weight_decay=0)


@pytest.mark.parametrize("wrong", [nn.Linear(1, 1), None, [], PLAN])
def test_something_else_is_refused(wrong):
    """A model has no parameter groups, and a plan has a method of that name."""
    with pytest.raises(nnlr.NnlrError, match="needs an optimizer with parameter groups"):
        nnlr.rate_summary(wrong)
