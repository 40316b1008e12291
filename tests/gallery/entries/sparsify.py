"""sparsify: the matrices of a sparse autoencoder by Muon, its biases by Adam.

Encoder and decoder learn by Muon, the biases by Adam, both with 2e-3; this Muon decays by 0.1,
Adam does not.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "EleutherAI/sparsify"
SOURCE = "sparsify/trainer.py, Trainer.__init__"
FAMILY = "algorithms"


def model():
    """A sparse coder for four activations."""
    return tree(
        {
            "encoder": nn.Linear(4, 8),
            "W_dec": nn.Parameter(torch.zeros(8, 4)),
            "b_dec": nn.Parameter(torch.zeros(4)),
        }
    )


def by_hand(net):
    """Two optimizers by the number of axes."""
    muon = [p for p in net.parameters() if p.ndim >= 2]
    adam = [p for p in net.parameters() if p.ndim < 2]
    return [
        {"params": muon, "lr": 2e-3, "weight_decay": 0.1, "algorithm": "muon"},
        {"params": adam, "lr": 2e-3, "weight_decay": 0, "algorithm": "adam"},
    ]


def with_nnlr(net):
    """One optimizer of both, and so one schedule."""
    matrices = nnlr.rule(nnlr.ndim(min=2), algorithm="muon")
    who = nnlr.rules([matrices, nnlr.rule("*", algorithm="adam")])
    return nnlr.resolve(net, who, lr=2e-3, weight_decay={"muon": 0.1, "adam": 0})


THREAD = "EleutherAI/sparsify#62"
FAULT = (
    "The pull request brings the parameters of Adam into the schedule. Before it the schedule was "
    "that of Muon alone, and the rate of the biases stayed as it was. `nnlr.check` compares all "
    "optimizers with all schedulers; a plan makes one optimizer of both."
)


def shown():
    """Two optimizers, and a scheduler of the first."""
    net = model()
    muon, adam = by_hand(net)
    optimizers = [
        torch.optim.Muon(muon["params"], lr=2e-3, adjust_lr_fn="match_rms_adamw"),
        torch.optim.Adam(adam["params"], lr=2e-3),
    ]
    schedule = torch.optim.lr_scheduler.LinearLR(optimizers[0], 1, 0.1, 1000)
    return str(nnlr.check(net, optimizers, schedule))
