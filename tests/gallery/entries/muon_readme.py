"""Muon: hidden matrices by Muon, all else by AdamW, at a rate 67 times smaller.

Two names are excluded by hand, the token embedding and the head; of the rest, what has two axes or
more goes to Muon with a rate of 0.02, vectors to AdamW with 3e-4. Both decay by 0.01.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "KellerJordan/Muon"
SOURCE = "README.md, usage"
FAMILY = "algorithms"


def model():
    """A decoder with one layer, wide enough for its matrices to be matrices."""
    return tree(
        {
            "model.embed_tokens": nn.Embedding(12, 8),
            "model.layers.0.input_layernorm": nn.RMSNorm(8),
            "model.layers.0.self_attn.q_proj": nn.Linear(8, 8),
            "model.layers.0.mlp.up_proj": nn.Linear(8, 16, bias=False),
            "model.norm": nn.RMSNorm(8),
            "lm_head": nn.Linear(8, 12, bias=False),
        }
    )


def by_hand(net):
    """A table of names, and the number of axes."""
    hidden, rest = [], []
    for name, p in net.named_parameters():
        other = name in {"model.embed_tokens.weight", "lm_head.weight"} or p.ndim < 2
        (rest if other else hidden).append(p)
    return [
        {"params": hidden, "lr": 0.02, "weight_decay": 0.01, "algorithm": "muon"},
        {"params": rest, "lr": 3e-4, "weight_decay": 0.01, "algorithm": "adamw"},
    ]


def with_nnlr(net):
    """The default routing, which goes by what a parameter is for."""
    rates = {"muon": 0.02, "adamw": 3e-4}
    return nnlr.resolve(net, nnlr.route("muon", "adamw"), lr=rates, weight_decay=0.01)
