"""Pytorch-Deeplab: the new classifier ten times faster than the ResNet.

`layer5`, the atrous classifier, learns at 2.5e-3, the pretrained layers before it at 2.5e-4, all
with a decay of 5e-4. Batch norms are frozen.
"""

import warnings

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "speedinghzl/Pytorch-Deeplab"
SOURCE = "train.py, get_1x_lr_params_NOscale and get_10x_lr_params"
FAMILY = "detection"
THREAD = "speedinghzl/Pytorch-Deeplab#18"
FAULT = (
    "The function goes through all modules of a layer, and through all parameters of each, which "
    "include those of its submodules: a kernel of a block three levels deep is in the list three "
    "times, and each step moves it three times. `nnlr.check` says which."
)


def model():
    """A stem, one layer with a block, the classifier; norms frozen."""
    net = tree(
        {
            "conv1": nn.Conv2d(1, 4, 1, bias=False),
            "bn1": nn.BatchNorm2d(4),
            "layer1.0.conv1": nn.Conv2d(4, 4, 1, bias=False),
            "layer1.0.bn1": nn.BatchNorm2d(4),
            "layer5.conv2d_list.0": nn.Conv2d(4, 3, 1),
            "layer5.conv2d_list.1": nn.Conv2d(4, 3, 1),
        }
    )
    for norm in (net.bn1, net.get_submodule("layer1.0.bn1")):
        norm.requires_grad_(False)
    return net


def by_hand(net):
    """Two groups of layers, without what is frozen."""
    lower = [p for layer in (net.conv1, net.bn1, net.layer1) for p in layer.parameters()]
    return [
        {"params": [p for p in lower if p.requires_grad], "lr": 2.5e-4, "weight_decay": 5e-4},
        {"params": list(net.layer5.parameters()), "lr": 2.5e-3, "weight_decay": 5e-4},
    ]


def with_nnlr(net):
    """One rule."""
    return nnlr.resolve(net, nnlr.rule("layer5.*", lr_mult=10), lr=2.5e-4, weight_decay=5e-4)


def shown():
    """The groups of the published function."""
    net = model()
    lower = [p for part in (net.conv1, net.layer1) for m in part.modules() for p in m.parameters()]
    lower = [p for p in lower if p.requires_grad]
    groups = [{"params": lower}, {"params": net.layer5.parameters(), "lr": 2.5e-3}]
    with warnings.catch_warnings():  # torch warns of it, and goes on
        warnings.simplefilter("ignore")
        optimizer = torch.optim.SGD(groups, lr=2.5e-4, momentum=0.9, weight_decay=5e-4)
    return str(nnlr.check(net, optimizer).at_least("warning"))
