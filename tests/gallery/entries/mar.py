"""MAR: vectors and biases do not decay, and the whole diffusion head does not either.

What has one axis, ends in `.bias` or has `diffloss` in its name has no decay, all else 0.02: class
and position embeddings and the mask token do decay. The rate is 1e-4 for each 256 images of a
batch, 8e-4 for the 2,048 of the README.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "LTH14/mar"
SOURCE = "util/misc.py, add_weight_decay"
FAMILY = "adapters"


def model():
    """Tokens, a block of encoder and decoder, and the head that denoises a token."""
    return tree(
        {
            "class_emb": nn.Embedding(3, 4),
            "mask_token": nn.Parameter(torch.zeros(1, 1, 4)),
            "encoder_pos_embed_learned": nn.Parameter(torch.zeros(1, 3, 4)),
            "encoder_blocks.0.norm1": nn.LayerNorm(4),
            "encoder_blocks.0.attn.qkv": nn.Linear(4, 12),
            "decoder_blocks.0.mlp.fc1": nn.Linear(4, 8),
            "diffloss.net.cond_embed": nn.Linear(4, 4),
            "diffloss.net.final_layer.linear": nn.Linear(4, 2),
        }
    )


def by_hand(net):
    """Two groups by shape and name."""
    decay, no_decay = [], []
    for name, p in net.named_parameters():
        free = len(p.shape) == 1 or name.endswith(".bias") or "diffloss" in name
        (no_decay if free else decay).append(p)
    return [
        {"params": no_decay, "lr": 8e-4, "weight_decay": 0.0},
        {"params": decay, "lr": 8e-4, "weight_decay": 0.02},
    ]


def with_nnlr(net):
    """Timm's rule, and one more part."""
    scheme = nnlr.no_weight_decay("timm") * nnlr.rule("diffloss.*", wd_mult=0)
    return nnlr.resolve(net, scheme, lr=1e-4 * 2048 / 256, weight_decay=0.02)
