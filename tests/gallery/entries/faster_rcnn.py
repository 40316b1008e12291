"""simple-faster-rcnn-pytorch: biases twice as fast, and without decay.

The convention of Caffe: every parameter with `bias` in its name learns at twice the rate, 2e-3,
and does not decay; all else at 1e-3 with a decay of 5e-4. The lower layers of the VGG are frozen.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "chenyuntc/simple-faster-rcnn-pytorch"
SOURCE = "model/faster_rcnn.py, FasterRCNN.get_optimizer"
FAMILY = "detection"
THREAD = "chenyuntc/simple-faster-rcnn-pytorch#21"
FAULT = (
    "The log printed the rate of the first group, which in some runs was a bias, at twice the "
    "rate. nnlr's `rate_summary` gives the base rate, and the lowest and highest of all groups."
)


def model():
    """Two layers of a VGG, the first of them frozen, RPN and head."""
    net = tree(
        {
            "extractor.0": nn.Conv2d(1, 2, 1),
            "extractor.10": nn.Conv2d(2, 2, 1),
            "rpn.conv1": nn.Conv2d(2, 2, 1),
            "head.cls_loc": nn.Linear(2, 4),
        }
    )
    net.get_submodule("extractor.0").requires_grad_(False)
    return net


def by_hand(net):
    """A group for each parameter that is trained."""
    groups = []
    for name, param in net.named_parameters():
        if param.requires_grad and "bias" in name:
            groups.append({"params": [param], "lr": 2e-3, "weight_decay": 0})
        elif param.requires_grad:
            groups.append({"params": [param], "lr": 1e-3, "weight_decay": 5e-4})
    return groups


def with_nnlr(net):
    """One rule; what is frozen stays so."""
    return nnlr.resolve(net, nnlr.rule("*.bias", lr_mult=2, wd_mult=0), lr=1e-3, weight_decay=5e-4)


def shown():
    """The rates of a plan's groups."""
    net = model()
    optimizer = with_nnlr(net).optimizer(torch.optim.SGD, momentum=0.9)
    return str(nnlr.rate_summary(optimizer))
