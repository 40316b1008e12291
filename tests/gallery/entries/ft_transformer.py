"""FT-Transformer: no decay for the tokenizer of the columns, for norms and for biases.

By three words in the name: `tokenizer`, `.norm`, `.bias`. The rest decays by 1e-5; all learn with
1e-4. The norm before the head is called `last_normalization`, which none of the words matches: its
gain decays.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "yandex-research/rtdl-revisiting-models"
SOURCE = "bin/ft_transformer.py, needs_wd"
FAMILY = "fields"


def model():
    """Two numbers and one category as tokens, one block, the head."""
    return tree(
        {
            "tokenizer.weight": nn.Parameter(torch.zeros(3, 4)),
            "tokenizer.bias": nn.Parameter(torch.zeros(3, 4)),
            "tokenizer.category_embeddings": nn.Embedding(3, 4),
            "layers.0.attention.W_q": nn.Linear(4, 4),
            "layers.0.linear0": nn.Linear(4, 8),
            "layers.0.norm1": nn.LayerNorm(4),
            "last_normalization": nn.LayerNorm(4),
            "head": nn.Linear(4, 2),
        }
    )


def by_hand(net):
    """Two groups by words."""
    words = ("tokenizer", ".norm", ".bias")
    free = [p for name, p in net.named_parameters() if any(word in name for word in words)]
    rest = [p for name, p in net.named_parameters() if all(word not in name for word in words)]
    return [
        {"params": rest, "lr": 1e-4, "weight_decay": 1e-5},
        {"params": free, "lr": 1e-4, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """The same words. `nnlr.no_weight_decay()` would not need the last two."""
    free = nnlr.glob("tokenizer.*") | "*.norm*" | "*.bias*"
    return nnlr.resolve(net, nnlr.rule(free, wd_mult=0), lr=1e-4, weight_decay=1e-5)
