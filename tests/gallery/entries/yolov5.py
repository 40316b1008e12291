"""YOLOv5: weights decay, norms and biases do not.

Three groups of SGD: weights of norms, weights of all else, biases. Only the second decays, by
5e-4. The rate is 0.01 for all, after a warm-up in which that of the biases falls from 0.1 while
the others rise from 0.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "ultralytics/yolov5"
SOURCE = "utils/torch_utils.py, smart_optimizer; train.py, train"
FAMILY = "detection"
CANNOT = (
    "the warm-up. A schedule can give groups courses of their own, but plans merge equal rows, and "
    "here norms and biases are equal: the biases are no group by themselves."
)
THREAD = "ultralytics/yolov5#7375"
FAULT = (
    "Norms were `nn.BatchNorm2d` and nothing else. With GroupNorm their group was empty, which "
    "raised; and had it not, the gains of all norms would have decayed with the weights."
)


def model(norm=nn.BatchNorm2d):
    """Two convolutions, one with a norm, one as a head."""
    normed = norm(4) if norm is nn.BatchNorm2d else norm(2, 4)
    return tree(
        {
            "model.0.conv": nn.Conv2d(1, 4, 1, bias=False),
            "model.0.bn": normed,
            "model.1.m.0": nn.Conv2d(4, 3, 1),
        }
    )


def by_hand(net):
    """Three groups by the types of modules."""
    norms, weights, biases = [], [], []
    for module in net.modules():
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            biases.append(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            norms.append(module.weight)
        elif isinstance(getattr(module, "weight", None), nn.Parameter):
            weights.append(module.weight)
    return [
        {"params": norms, "lr": 0.01, "weight_decay": 0},
        {"params": weights, "lr": 0.01, "weight_decay": 5e-4},
        {"params": biases, "lr": 0.01, "weight_decay": 0},
    ]


def with_nnlr(net):
    """The preset of its name, for norms of all kinds."""
    return nnlr.resolve(net, nnlr.no_weight_decay("yolov5"), lr=0.01, weight_decay=5e-4)


def shown():
    """The groups of a model with GroupNorm."""
    net = model(nn.GroupNorm)
    return str(nnlr.check(net, torch.optim.SGD(by_hand(net), momentum=0.937)))
