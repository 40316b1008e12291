"""MONAI: parts of a network by functions, each with a rate.

`generate_param_groups` takes functions that pick a submodule (`select`) or names (`filter`), a
rate for each, and puts what is left into a last group. Here the example of its docstring: the
first layer of a Unet at 1e-2, names with `2.0.conv` at 1e-3, the rest at 1e-4.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "Project-MONAI/MONAI"
SOURCE = "monai/optimizers/utils.py, generate_param_groups"
FAMILY = "detection"
THREAD = "Project-MONAI/MONAI#1339"
FAULT = (
    "The parameters of a group were an iterator, which had been read once to see what is left. "
    "The group that reached the optimizer was empty, and the layer with the rate of its own never "
    "trained. `nnlr.check` finds both, the empty group and the layer."
)


def model():
    """A Unet of three units."""
    return tree(
        {
            "model.0.conv": nn.Conv3d(1, 2, 1),
            "model.1.submodule.conv": nn.Conv3d(2, 2, 1),
            "model.2.0.conv": nn.ConvTranspose3d(2, 2, 1),
            "model.2.1.conv": nn.Conv3d(2, 3, 1),
        }
    )


def by_hand(net):
    """A submodule, a filter over names, and the rest."""
    first = list(net.model.get_submodule("0").parameters())
    second = [p for name, p in net.named_parameters() if "2.0.conv" in name]
    chosen = set(map(id, first + second))
    rest = [p for p in net.parameters() if id(p) not in chosen]
    return [
        {"params": first, "lr": 1e-2, "weight_decay": 0},
        {"params": second, "lr": 1e-3, "weight_decay": 0},
        {"params": rest, "lr": 1e-4, "weight_decay": 0},
    ]


def with_nnlr(net):
    """Two rules with the rates themselves."""
    scheme = nnlr.rule("model.0.*", lr=1e-2) * nnlr.rule("*2.0.conv*", lr=1e-3)
    return nnlr.resolve(net, scheme, lr=1e-4, weight_decay=0)


def shown():
    """The groups of the first version: the iterator is spent before the optimizer sees it."""
    net = model()
    first = net.model.get_submodule("0").parameters()
    chosen = set(map(id, first))
    rest = [p for p in net.parameters() if id(p) not in chosen]
    groups = [{"params": first, "lr": 1e-2}, {"params": rest, "lr": 1e-4}]
    return str(nnlr.check(net, torch.optim.Adam(groups)))
