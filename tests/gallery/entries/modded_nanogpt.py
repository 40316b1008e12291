"""modded-nanogpt: four rates for what is looked up, what mixes, what scales and what decides.

In the record of May 2025, which introduced one optimizer for all: matrices of the blocks by Muon
with 0.05; by Adam the token and value embeddings with 0.6, the head with 0.22 and scalars with
0.04. Nothing decays.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.entries._tree import tree

REPOSITORY = "KellerJordan/modded-nanogpt"
SOURCE = "records/052525_MuonWithAuxAdamExample, train_gpt.py"
FAMILY = "algorithms"


def model():
    """A block whose attention is one tensor of four matrices, and two kinds of embeddings."""
    return tree(
        {
            "embed": nn.Embedding(8, 4),
            "value_embeds.0": nn.Embedding(8, 4),
            "blocks.0.attn.qkvo_w": nn.Parameter(torch.zeros(4, 4, 4)),
            "blocks.0.mlp.c_fc": nn.Linear(4, 8, bias=False),
            "lm_head": nn.Linear(4, 8, bias=False),
            "scalars": nn.Parameter(torch.zeros(5)),
        }
    )


def by_hand(net):
    """Three groups of Adam and one of Muon."""
    matrices = [p for p in net.blocks.parameters() if p.ndim >= 2]
    embeddings = [*net.embed.parameters(), *net.value_embeds.parameters()]
    adam = {"weight_decay": 0, "algorithm": "adam"}
    return [
        {"params": [net.lm_head.weight], "lr": 0.22, **adam},
        {"params": embeddings, "lr": 0.6, **adam},
        {"params": [net.scalars], "lr": 0.04, **adam},
        {"params": matrices, "lr": 0.05, "weight_decay": 0, "algorithm": "muon"},
    ]


def with_nnlr(net):
    """Who trains what, and how fast by Adam's own base rate."""
    who = nnlr.rules([nnlr.rule("blocks.*", algorithm="muon"), nnlr.rule("*", algorithm="adam")])
    rates = nnlr.rule("*embed*", lr_mult=15) * nnlr.rule("lm_head.*", lr_mult=5.5)
    return nnlr.resolve(net, who * rates, lr={"muon": 0.05, "adam": 0.04}, weight_decay=0)
