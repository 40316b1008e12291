"""torchgfn: the logarithm of the partition function, one scalar, a hundred times faster.

Forward and backward policy share a trunk and learn with 0.001, `logZ` with 0.1, by Adam and without
decay.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "GFNOrg/torchgfn"
SOURCE = "tutorials/examples/train_hypergrid_simple.py, main"
FAMILY = "fields"


def model():
    """Two policies with one trunk."""
    trunk = nn.Linear(2, 4)
    return tree(
        {
            "logZ": nn.Parameter(torch.tensor(0.0)),
            "pf.module.trunk": trunk,
            "pf.module.last_layer": nn.Linear(4, 3),
            "pb.module.trunk": trunk,
            "pb.module.last_layer": nn.Linear(4, 2),
        }
    )


def by_hand(net):
    """One optimizer, and a group added to it."""
    policies = [p for name, p in net.named_parameters() if name != "logZ"]
    return [
        {"params": policies, "lr": 1e-3, "weight_decay": 0},
        {"params": [net.logZ], "lr": 1e-1, "weight_decay": 0},
    ]


def with_nnlr(net):
    """One rule; the shared trunk is one parameter under two names."""
    return nnlr.resolve(net, nnlr.rule("logZ", lr_mult=100), lr=1e-3, weight_decay=0)
