"""DETR: the pretrained backbone ten times slower than the transformer.

The optimizer is made of two groups: parameters with `backbone` in their name learn with
`lr_backbone` (1e-5), all others with `lr` (1e-4). Everything decays by 1e-4, norms and biases
too.
"""

from torch import nn

import nnlr

REPOSITORY = "facebookresearch/detr"
SOURCE = "main.py, main"
FAMILY = "detection"


def model():
    """A backbone inside a wrapper, a transformer, a class head and learned queries."""
    return nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)),
            "transformer": nn.TransformerEncoderLayer(4, 2, 8),
            "class_embed": nn.Linear(4, 3),
            "query_embed": nn.Embedding(5, 4),
        }
    )


def by_hand(net):
    """Two groups by a word in the name."""
    backbone = [p for name, p in net.named_parameters() if "backbone" in name]
    others = [p for name, p in net.named_parameters() if "backbone" not in name]
    return [
        {"params": others, "lr": 1e-4, "weight_decay": 1e-4},
        {"params": backbone, "lr": 1e-5, "weight_decay": 1e-4},
    ]


def with_nnlr(net):
    """One rule."""
    return nnlr.resolve(net, nnlr.rule("backbone.*", lr_mult=0.1), lr=1e-4, weight_decay=1e-4)
