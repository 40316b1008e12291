"""OpenAI GPT, fine-tuning: decay by the number of axes, inside the optimizer.

One group. `OpenAIAdam` itself decays by `l2` (0.01) only what has more than one axis, unless
`vector_l2` is set. All learn with 6.25e-5, the new classifier as fast as the rest.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "huggingface/pytorch-openai-transformer-lm"
SOURCE = "train.py and opt.py, OpenAIAdam"
FAMILY = "language"
THREAD = "huggingface/pytorch-openai-transformer-lm#6"
FAULT = (
    "The optimizer was made of `model.parameters()`, the transformer's: the new classifier was in "
    "no group and stayed as it was initialised. `nnlr.check` of the whole model names it."
)


def model():
    """An embedding, a block, and a classifier; the language head is the embedding."""
    net = tree(
        {
            "transformer.embed": nn.Embedding(7, 4),
            "transformer.h.0.ln_1": nn.LayerNorm(4),
            "transformer.h.0.mlp.c_fc": nn.Linear(4, 8),
            "lm_head.decoder": nn.Linear(4, 7, bias=False),
            "clf_head.linear": nn.Linear(4, 1),
        }
    )
    net.lm_head.decoder.weight = net.transformer.embed.weight
    return net


def by_hand(net):
    """What the optimizer does within its one group."""
    return [
        {"params": [p], "lr": 6.25e-5, "weight_decay": 0.01 if p.dim() > 1 else 0.0}
        for p in net.parameters()
    ]


def with_nnlr(net):
    """The preset that goes by axes."""
    return nnlr.resolve(net, nnlr.no_weight_decay("nanogpt"), lr=6.25e-5, weight_decay=0.01)


def shown():
    """The optimizer of the transformer alone."""
    net = model()
    by_mistake = torch.optim.AdamW(net.transformer.parameters(), lr=6.25e-5, weight_decay=0)
    return str(nnlr.check(net, by_mistake))
