"""YOLOv5: weights decay, norms and biases do not.

Three groups of SGD: weights of norms, weights of all else, biases. Only the second decays, by
5e-4. The rate is 0.01 for all, after a warm-up in which that of the biases falls from 0.1 while
the others rise from 0.
"""

import functools

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "ultralytics/yolov5"
SOURCE = "utils/torch_utils.py, smart_optimizer; train.py, train"
FAMILY = "detection"
THREAD = "ultralytics/yolov5#8352"
FAULT = (
    "The warm-up knew the biases as the group with number 2. Then the groups were built in "
    "another order, and it was another group whose rate fell from 0.1. A schedule of nnlr knows "
    "groups by their names, and a name that no group has is an error."
)


def model():
    """Two convolutions, one with a norm, one as a head."""
    return tree(
        {
            "model.0.conv": nn.Conv2d(1, 4, 1, bias=False),
            "model.0.bn": nn.BatchNorm2d(4),
            "model.1.m.0": nn.Conv2d(4, 3, 1),
        }
    )


def by_hand(net):
    """Three groups by the types of modules."""
    norms, weights, biases = [], [], []
    for module in net.modules():
        for key, p in module.named_parameters(recurse=False):
            of_norm = key == "weight" and isinstance(module, nn.BatchNorm2d)
            (biases if key == "bias" else norms if of_norm else weights).append(p)
    return [
        {"params": norms, "lr": 0.01, "weight_decay": 0},
        {"params": weights, "lr": 0.01, "weight_decay": 5e-4},
        {"params": biases, "lr": 0.01, "weight_decay": 0},
    ]


def with_nnlr(net):
    """The preset of its name; biases in a group, so that they can have a course."""
    scheme = nnlr.no_weight_decay("yolov5") * nnlr.rule("*.bias", group="bias")
    return nnlr.resolve(net, scheme, lr=0.01, weight_decay=5e-4)


def shown():
    """A warm-up of a group that is not there."""
    net = model()
    optimizer = with_nnlr(net).optimizer(torch.optim.SGD, momentum=0.937)
    falls = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda t: 10 - 3 * t)
    rises = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda t: t / 3)
    try:
        nnlr.schedule(optimizer, {"biases": falls, "*": rises})
    except nnlr.NnlrError as error:
        return f"{type(error).__name__}: {error}"
