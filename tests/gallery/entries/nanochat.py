"""nanochat: Muon for the blocks; embedding and head by AdamW, slower as the model widens.

In autumn 2025, when there were three groups: matrices of the blocks learn by Muon with 0.02. By
AdamW, the token embedding learns with 0.2 and the head with 0.004, both times (width / 768)^-1/2.
Nothing decays.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "karpathy/nanochat"
SOURCE = "nanochat/gpt.py, GPT.setup_optimizers"
FAMILY = "algorithms"


def model():
    """A GPT with one block, 12 wide."""
    return tree(
        {
            "transformer.wte": nn.Embedding(16, 12),
            "transformer.h.0.attn.c_q": nn.Linear(12, 12, bias=False),
            "transformer.h.0.mlp.c_fc": nn.Linear(12, 48, bias=False),
            "lm_head": nn.Linear(12, 16, bias=False),
        }
    )


def by_hand(net):
    """Three lists, of which an assertion makes sure that they are all."""
    by_width = (net.lm_head.in_features / 768) ** -0.5
    matrices = list(net.transformer.h.parameters())
    embedding = list(net.transformer.wte.parameters())
    head = list(net.lm_head.parameters())
    assert len(list(net.parameters())) == len(matrices) + len(embedding) + len(head)
    adamw = {"weight_decay": 0, "algorithm": "adamw"}
    return [
        {"params": head, "lr": 0.004 * by_width, **adamw},
        {"params": embedding, "lr": 0.2 * by_width, **adamw},
        {"params": matrices, "lr": 0.02, "weight_decay": 0, "algorithm": "muon"},
    ]


def with_nnlr(net):
    """A base rate for each algorithm; every parameter must be routed, so nothing is forgotten."""
    rates = {"muon": 0.02, "adamw": 0.2 * (net.lm_head.in_features / 768) ** -0.5}
    scheme = nnlr.route("muon", "adamw") * nnlr.rule("lm_head.*", lr_mult=0.004 / 0.2)
    return nnlr.resolve(net, scheme, lr=rates, weight_decay=0)
