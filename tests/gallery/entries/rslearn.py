"""rslearn: layer decay in the encoder of a larger model.

OlmoEarth inside a multi-task model: block i of the encoder is layer i, its patch embeddings are
layer 0 with the first block, and all else, the encoder's norm and the decoders, is one layer above
the last block. Each layer gets 0.65 of the next; rate 1e-3, and the decay of AdamW's default, 0.01.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "allenai/rslearn"
SOURCE = "rslearn/models/olmoearth_pretrain/optimizer.py, LayerDecayAdamW"
FAMILY = "vision"


def model():
    """An encoder of four blocks, as the smallest has, and a decoder."""
    blocks = {f"model.encoder.0.model.blocks.{i}.mlp.fc1": nn.Linear(2, 2) for i in range(4)}
    return tree(
        {
            "model.encoder.0.model.patch_embeddings.s2.proj": nn.Conv2d(1, 2, 1),
            **blocks,
            "model.encoder.0.model.norm": nn.LayerNorm(2),
            "model.decoders.segment.0.layer": nn.Conv2d(2, 3, 1),
        }
    )


def by_hand(net):
    """A group for each parameter."""
    prefix, groups = "model.encoder.0.model.", []
    for name, param in net.named_parameters():
        layer = 4
        if name.startswith(prefix + "blocks."):
            layer = int(name.removeprefix(prefix).split(".")[1])
        elif name.startswith(prefix + "patch_embeddings"):
            layer = 0
        groups.append({"params": [param], "lr": 1e-3 * 0.65 ** (4 - layer), "weight_decay": 0.01})
    return groups


def with_nnlr(net):
    """A mapping of patterns to layers; what is forgotten would be a note."""
    layers = {"*.patch_embeddings.*": 0, "*.norm.*": 4, "model.decoders.*": 4}
    layers |= {f"model.encoder.0.model.blocks.{i}.*": i for i in range(4)}
    return nnlr.resolve(net, nnlr.layer_decay(0.65, layers), lr=1e-3, weight_decay=0.01)
