"""torch-ngp with semantics: a list of the networks, and the new one is not in it.

`get_params` of torch-ngp names hash grid, density and colour network, and gives all the same rate,
0.01. Nothing decays.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "Clear-3d/torch-ngp-semantic"
SOURCE = "nerf/network_sem.py, NeRFNetwork.get_params"
FAMILY = "fields"


def model():
    """Grid, density and colour, as in torch-ngp."""
    return tree(
        {
            "encoder.embeddings": nn.Parameter(torch.zeros(4, 2)),
            "sigma_net.0": nn.Linear(2, 4, bias=False),
            "color_net.0": nn.Linear(4, 3, bias=False),
        }
    )


def by_hand(net):
    """A group for each network that is named."""
    return [
        {"params": list(net.encoder.parameters()), "lr": 0.01, "weight_decay": 0},
        {"params": list(net.sigma_net.parameters()), "lr": 0.01, "weight_decay": 0},
        {"params": list(net.color_net.parameters()), "lr": 0.01, "weight_decay": 0},
    ]


def with_nnlr(net):
    """A plan is of the whole model."""
    return nnlr.resolve(net, lr=0.01, weight_decay=0)


THREAD = "Clear-3d/torch-ngp-semantic#1"
FAULT = (
    "A network for semantics was added to the model and not to the list: it stayed as it was "
    "initialized, and only what it reads was trained (well enough, the author answers). "
    "`nnlr.check` of the whole model names it."
)


def shown():
    """The check of the optimizer, with the network that the fork adds."""
    net = model()
    net.sem_net = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 5, bias=False)])
    return str(nnlr.check(net, torch.optim.Adam(by_hand(net), eps=1e-15)))
