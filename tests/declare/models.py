"""A small model, and plans and schemes for it, for the tests of this folder."""

import torch
from torch import nn

import nnlr

BAD_NUMBERS = [float("nan"), float("inf"), -1, True, "1", None, [1], torch.tensor(1.0)]


def net():
    """Two linear layers in a backbone, and a head."""
    return nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            "head": nn.Linear(2, 1),
        }
    )


def plan_of(*schemes, model=None, **settings):
    """Resolve on the small model at the base rates 1 and 1."""
    return nnlr.resolve(
        net() if model is None else model,
        *schemes,
        **{"lr": 1, "weight_decay": 1} | settings,
    )


def mults(plan):
    """Multipliers by name, where they are not 1."""
    return {row.name: row.lr_mult for row in plan if row.lr_mult != 1}


class Custom(nnlr.Scheme):
    """A scheme that gives whatever its test wants."""

    def __init__(self, answer):
        self.answer = answer

    def factors(self, model):
        return self.answer(model)
