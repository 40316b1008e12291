"""GCN of PyTorch Geometric: only the first layer decays.

On Cora, as in the paper: `conv1` decays by 5e-4, its bias as well, and `conv2` does not. Both learn
with 0.01 by Adam.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "pyg-team/pytorch_geometric"
SOURCE = "examples/gcn.py"
FAMILY = "fields"


def model():
    """Two graph convolutions: a linear map and a bias of its own each."""
    return tree(
        {
            "conv1.bias": nn.Parameter(torch.zeros(4)),
            "conv1.lin": nn.Linear(8, 4, bias=False),
            "conv2.bias": nn.Parameter(torch.zeros(3)),
            "conv2.lin": nn.Linear(4, 3, bias=False),
        }
    )


def by_hand(net):
    """Two groups by layer."""
    return [
        {"params": list(net.conv1.parameters()), "lr": 0.01, "weight_decay": 5e-4},
        {"params": list(net.conv2.parameters()), "lr": 0.01, "weight_decay": 0},
    ]


def with_nnlr(net):
    """One rule."""
    return nnlr.resolve(net, nnlr.rule("conv2.*", wd_mult=0), lr=0.01, weight_decay=5e-4)
