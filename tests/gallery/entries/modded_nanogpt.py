"""modded-nanogpt: a rate each for embeddings, matrices, scalars and the head.

In the record of May 2025, which introduced one optimizer for all: matrices of the blocks by Muon
with 0.05; by Adam everything with `embed` in its name with 0.6, the head with 0.22, and what has
one axis or none with 0.04. Nothing decays. Later records split the groups further.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "KellerJordan/modded-nanogpt"
SOURCE = "records/052525_MuonWithAuxAdamExample, the script in its log"
FAMILY = "algorithms"


def model():
    """A block whose attention is one tensor of three matrices, and two kinds of embeddings."""
    return tree(
        {
            "embed": nn.Embedding(8, 4),
            "value_embeds.0": nn.Embedding(8, 4),
            "blocks.0.attn.qkv_w": nn.Parameter(torch.zeros(3, 4, 4)),
            "blocks.0.attn.c_proj": nn.Linear(4, 4, bias=False),
            "blocks.0.mlp.c_fc": nn.Linear(4, 8, bias=False),
            "lm_head": nn.Linear(4, 8, bias=False),
            "blocks.0.lambdas": nn.Parameter(torch.zeros(2)),
            "skip_weights": nn.Parameter(torch.zeros(5)),
        }
    )


def by_hand(net):
    """Three groups of Adam and one of Muon."""
    named = [(name, p) for name, p in net.named_parameters() if p is not net.lm_head.weight]
    embeddings = [p for name, p in named if "embed" in name]
    adam = {"weight_decay": 0, "algorithm": "adam"}
    matrices = [p for name, p in named if "embed" not in name and p.ndim >= 2]
    return [
        {"params": [net.lm_head.weight], "lr": 0.22, **adam},
        {"params": embeddings, "lr": 0.6, **adam},
        {"params": [p for _, p in named if p.ndim < 2], "lr": 0.04, **adam},
        {"params": matrices, "lr": 0.05, "weight_decay": 0, "algorithm": "muon"},
    ]


def with_nnlr(net):
    """Routing leaves tensors of three axes out; a rule takes them in."""
    who = nnlr.route("muon", "adam") * nnlr.rule("*.qkv_w", algorithm="muon")
    rates = nnlr.rule("*embed*", lr=0.6) * nnlr.rule("lm_head.*", lr=0.22)
    return nnlr.resolve(net, who * rates, lr={"muon": 0.05, "adam": 0.04}, weight_decay=0)
