"""nanoGPT: decay for whatever has two axes.

`configure_optimizers` makes two groups: tensors of two or more axes, embeddings and positions too,
decay by 0.1, vectors do not. The table of words is also the output layer. All learn with 6e-4.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "karpathy/nanoGPT"
SOURCE = "model.py, GPT.configure_optimizers"
FAMILY = "language"
THREAD = "karpathy/nanoGPT#21"
FAULT = (
    "Tying the output layer to the table of words broke the function, which then counted one "
    "tensor under two names, as a matrix and as an embedding. In nnlr it is one row, which says "
    "its other name."
)


def model():
    """One block of a GPT whose output layer is its table of words."""
    net = tree(
        {
            "transformer.wte": nn.Embedding(7, 4),
            "transformer.wpe": nn.Embedding(5, 4),
            "transformer.h.0.ln_1": nn.LayerNorm(4),
            "transformer.h.0.attn.c_attn": nn.Linear(4, 12),
            "lm_head": nn.Linear(4, 7, bias=False),
        }
    )
    net.transformer.wte.weight = net.lm_head.weight
    return net


def by_hand(net):
    """Two groups by the number of axes."""
    return [
        {"params": [p for p in net.parameters() if p.dim() >= 2], "lr": 6e-4, "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.dim() < 2], "lr": 6e-4, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """The preset of that name."""
    return nnlr.resolve(net, nnlr.no_weight_decay("nanogpt"), lr=6e-4, weight_decay=0.1)


def shown():
    """The tied table in the plan."""
    return with_nnlr(model()).explain("lm_head.weight")
