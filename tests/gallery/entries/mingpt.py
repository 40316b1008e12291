"""minGPT: decay for the weights of linear layers only.

`configure_optimizers` walks through the modules. Weights of `nn.Linear` decay by 0.1; biases and
the weights of `nn.LayerNorm` and `nn.Embedding` do not. An assertion stops at any parameter that is
in neither set. All learn with 3e-4.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "karpathy/minGPT"
SOURCE = "mingpt/model.py, GPT.configure_optimizers"
FAMILY = "language"
THREAD = "karpathy/minGPT#23"
FAULT = (
    "The first version went by names, `bias` and `LayerNorm.weight`, but the norms of the model "
    "are called `ln1`: their gains decayed. `nnlr.check` knows a norm by its class."
)


def model():
    """One block of a GPT."""
    return tree(
        {
            "transformer.wte": nn.Embedding(7, 4),
            "transformer.wpe": nn.Embedding(5, 4),
            "transformer.h.0.ln_1": nn.LayerNorm(4),
            "transformer.h.0.attn.c_attn": nn.Linear(4, 12),
            "transformer.h.0.mlp.c_fc": nn.Linear(4, 8),
            "transformer.ln_f": nn.LayerNorm(4),
            "lm_head": nn.Linear(4, 7, bias=False),
        }
    )


def by_hand(net):
    """Two sets by the classes of modules."""
    decay, no_decay = [], []
    for module in net.modules():
        for name, param in module.named_parameters(recurse=False):
            decays = name == "weight" and isinstance(module, nn.Linear)
            (decay if decays else no_decay).append(param)
    assert len(decay) + len(no_decay) == len(list(net.parameters()))
    return [
        {"params": decay, "lr": 3e-4, "weight_decay": 0.1},
        {"params": no_decay, "lr": 3e-4, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """Our own rule, and embeddings too."""
    return nnlr.resolve(net, nnlr.no_weight_decay(embeddings=True), lr=3e-4, weight_decay=0.1)


def shown():
    """The first version's rule, on its norms."""
    net = tree({"blocks.0.ln1": nn.LayerNorm(4), "ln_f": nn.LayerNorm(4), "head": nn.Linear(4, 7)})
    free = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p], "weight_decay": 0.0 if any(word in name for word in free) else 0.1}
        for name, p in net.named_parameters()
    ]
    return str(nnlr.check(net, torch.optim.AdamW(groups, lr=3e-4)))
