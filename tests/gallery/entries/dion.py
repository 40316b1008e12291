"""Dion: matrices by Dion, embedding and head by Lion, the head slower by the root of the width.

All have one base rate, 0.02. Matrices of the blocks decay by 0.01; embedding and head do not, and
the head has the base rate divided by the square root of the width. (Lion also gets betas of its
own, which are left out here.)
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "microsoft/dion"
SOURCE = "train.py, init_optimizer"
FAMILY = "algorithms"


def model():
    """A GPT with one block, 16 wide."""
    return tree(
        {
            "transformer.wte": nn.Embedding(24, 16),
            "transformer.h.0.attn.c_q": nn.Linear(16, 16, bias=False),
            "transformer.h.0.mlp.c_proj": nn.Linear(64, 16, bias=False),
            "lm_head": nn.Linear(16, 24, bias=False),
        }
    )


def by_hand(net):
    """Three groups, of which two name the other algorithm."""
    lion = {"weight_decay": 0, "algorithm": "lion"}
    width = net.lm_head.in_features
    return [
        {
            "params": list(net.transformer.h.parameters()),
            "lr": 0.02,
            "weight_decay": 0.01,
            "algorithm": "dion",
        },
        {"params": list(net.transformer.wte.parameters()), "lr": 0.02, **lion},
        {"params": list(net.lm_head.parameters()), "lr": 0.02 / width**0.5, **lion},
    ]


def with_nnlr(net):
    """Decay, too, has a base for each algorithm."""
    head = nnlr.rule("lm_head.*", lr_mult=net.lm_head.in_features**-0.5)
    decay = {"dion": 0.01, "lion": 0}
    return nnlr.resolve(net, nnlr.route("dion", "lion") * head, lr=0.02, weight_decay=decay)
