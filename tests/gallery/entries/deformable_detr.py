"""Deformable DETR: the backbone and whatever points at a place, ten times slower.

A parameter is sorted by words in its name. With `backbone.0` it learns at 2e-5; with
`reference_points` or `sampling_offsets`, the layers that say where attention looks, at a tenth of
the base rate, which is 2e-5 as well; all else at 2e-4. Everything decays by 1e-4.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "fundamentalvision/Deformable-DETR"
SOURCE = "main.py, main"
FAMILY = "detection"


def model():
    """A backbone in a joiner, deformable attention in encoder and decoder, heads."""
    return tree(
        {
            "transformer.level_embed": (2, 4),
            "transformer.encoder.layers.0.self_attn.sampling_offsets": nn.Linear(4, 2),
            "transformer.encoder.layers.0.self_attn.value_proj": nn.Linear(4, 4),
            "transformer.encoder.layers.0.norm1": nn.LayerNorm(4),
            "transformer.decoder.layers.0.cross_attn.sampling_offsets": nn.Linear(4, 2),
            "transformer.decoder.layers.0.linear1": nn.Linear(4, 4),
            "transformer.reference_points": nn.Linear(4, 2),
            "class_embed.0": nn.Linear(4, 3),
            "query_embed": nn.Embedding(5, 4),
            "backbone.0.body.layer4": nn.Conv2d(1, 4, 1, bias=False),
        }
    )


def by_hand(net):
    """Three groups by words in the names."""
    words, others, backbone, points = ("reference_points", "sampling_offsets"), [], [], []
    for name, param in net.named_parameters():
        if "backbone.0" in name:
            backbone.append(param)
        elif any(word in name for word in words):
            points.append(param)
        else:
            others.append(param)
    return [
        {"params": others, "lr": 2e-4, "weight_decay": 1e-4},
        {"params": backbone, "lr": 2e-5, "weight_decay": 1e-4},
        {"params": points, "lr": 2e-5, "weight_decay": 1e-4},
    ]


def with_nnlr(net):
    """One rule."""
    slow = nnlr.regex(r"backbone\.0\..*|.*(reference_points|sampling_offsets).*")
    return nnlr.resolve(net, nnlr.rule(slow, lr_mult=0.1), lr=2e-4, weight_decay=1e-4)
