"""SSAST: a faster head, by its four names.

The tensors of the head are listed by name, `mlp_head.0` (a norm) and `mlp_head.1` (linear); they
learn `head_lr` times as fast as the pretrained transformer, here 10 times 5e-5. Adam decays all
by 5e-7. Were the head another module, the list would match nothing, and nothing would say so.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "YuanGongND/ssast"
SOURCE = "src/traintest.py, train"
FAMILY = "speech"


def model():
    """A block of the transformer, and the head."""
    return tree(
        {
            "v.patch_embed.proj": nn.Conv2d(1, 4, 2),
            "v.blocks.0.mlp.fc1": nn.Linear(4, 8),
            "v.norm": nn.LayerNorm(4),
            "mlp_head": nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 5)),
        }
    )


def by_hand(net):
    """Two groups by a list of names."""
    names = ["mlp_head.0.weight", "mlp_head.0.bias", "mlp_head.1.weight", "mlp_head.1.bias"]
    head = [p for name, p in net.named_parameters() if name in names]
    base = [p for name, p in net.named_parameters() if name not in names]
    return [
        {"params": base, "lr": 5e-5, "weight_decay": 5e-7},
        {"params": head, "lr": 5e-5 * 10, "weight_decay": 5e-7},
    ]


def with_nnlr(net):
    """One rule."""
    return nnlr.resolve(net, nnlr.rule("mlp_head.*", lr_mult=10), lr=5e-5, weight_decay=5e-7)
