"""Barlow Twins: two rates, forty times apart, by the number of axes.

What has one axis, biases and norms, learns at 0.0048, all else at 0.2 (for a batch of 256). The
LARS of the repository is given a function that asks the same of each tensor in each step: what has
one axis does not decay (the rest by 1e-6), and its step is not scaled.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "facebookresearch/barlowtwins"
SOURCE = "main.py, main_worker and adjust_learning_rate"
FAMILY = "vision"


def model():
    """The stem of a ResNet and the projector."""
    return tree(
        {
            "backbone.conv1": nn.Conv2d(1, 2, 1, bias=False),
            "backbone.bn1": nn.BatchNorm2d(2),
            "projector.0": nn.Linear(2, 4, bias=False),
            "projector.1": nn.BatchNorm1d(4),
            "projector.3": nn.Linear(4, 4, bias=False),
        }
    )


def by_hand(net):
    """Two groups."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    return [
        {"params": weights, "lr": 0.2, "weight_decay": 1e-6},
        {"params": biases, "lr": 0.0048, "weight_decay": 0},
    ]


def with_nnlr(net):
    """One rule with a rate of its own, whose ratio any schedule keeps."""
    flat = nnlr.rule(nnlr.ndim(max=1), lr=0.0048, wd_mult=0)
    return nnlr.resolve(net, flat, lr=0.2, weight_decay=1e-6)
