"""Cosmos-Predict2.5: one group, after a split by the number of axes.

A first function separates matrices (two axes or more) from vectors, as nanoGPT does; a second one
joins them again. Everything learns with 2^-14.5, about 4.3e-5, and decays by 0.001, norms and
biases too.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "nvidia-cosmos/cosmos-predict2.5"
SOURCE = "cosmos_predict2/_src/predict2/utils/optim_instantiate.py, get_base_optimizer"
FAMILY = "adapters"


def model():
    """A patch embedding and one block of a diffusion transformer."""
    return tree(
        {
            "net.x_embedder.proj": nn.Linear(2, 4),
            "net.blocks.0.layer_norm": nn.LayerNorm(4),
            "net.blocks.0.self_attn.q_proj": nn.Linear(4, 4, bias=False),
            "net.blocks.0.mlp.layer1": nn.Linear(4, 4),
        }
    )


def by_hand(net):
    """The split has no effect."""
    decay = [p for p in net.parameters() if p.dim() >= 2]
    no_decay = [p for p in net.parameters() if p.dim() < 2]
    return [{"params": decay + no_decay, "lr": 2**-14.5, "weight_decay": 0.001}]


def with_nnlr(net):
    """No rule: what the function does."""
    return nnlr.resolve(net, lr=2**-14.5, weight_decay=0.001)


THREAD = "nvidia-cosmos/cosmos-predict2.5#165"
FAULT = (
    "A question that had no answer in autumn 2026: is it meant that both halves decay? "
    "`nnlr.check` notes it of any optimizer, with the names; the split that the code announces is "
    '`nnlr.no_weight_decay("nanogpt")`.'
)


def shown():
    """The check of the optimizer as the function makes it."""
    net = model()
    return str(nnlr.check(net, torch.optim.AdamW(by_hand(net))))
