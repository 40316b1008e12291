"""SAM 2: layer decay in the image encoder's trunk, except for its positions.

The fine-tuning configuration gives options by patterns, and a modifier multiplies rates. The image
encoder learns at 3e-6, all else at 5e-6. In the encoder's trunk each block gets 0.9 (`layer_decay`)
of the one above it, patches least; an override sets everything with `pos_embed` in its name back
to 1. The decay is 0.1, without biases and LayerNorms.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "facebookresearch/sam2"
SOURCE = "training/optimizer.py, construct_optimizer and layer_decay_param_modifier"
FAMILY = "detection"
THREAD = "facebookresearch/sam2#667"
FAULT = (
    "Asked how to freeze the encoder, a user advises a layer decay of 0. But the override of "
    "`pos_embed` still trains the positions, the neck still learns, and what has rate 0 still "
    "costs gradients and optimizer state: a note of `nnlr.check`. In nnlr a rule of rate 0 locks "
    "what it names."
)


def model():
    """A Hiera of two blocks, its neck, and a mask decoder."""
    return tree(
        {
            "image_encoder.trunk.pos_embed": (1, 4, 2, 2),
            "image_encoder.trunk.patch_embed.proj": nn.Conv2d(1, 4, 1),
            "image_encoder.trunk.blocks.0.norm1": nn.LayerNorm(4),
            "image_encoder.trunk.blocks.0.mlp.layers.0": nn.Linear(4, 4),
            "image_encoder.trunk.blocks.1.norm1": nn.LayerNorm(4),
            "image_encoder.trunk.blocks.1.mlp.layers.0": nn.Linear(4, 4),
            "image_encoder.neck.convs.0.conv": nn.Conv2d(4, 4, 1),
            "memory_attention.layers.0.linear1": nn.Linear(4, 4),
            "sam_mask_decoder.iou_token": nn.Embedding(1, 4),
        }
    )


def by_hand(net, layer_decay=0.9):
    """A group for each parameter."""
    groups = []
    for name, param in net.named_parameters():
        lr = 3e-6 if name.startswith("image_encoder.") else 5e-6
        if name.startswith("image_encoder.trunk.") and "pos_embed" not in name:
            block = int(name.split(".")[3]) + 1 if ".blocks." in name else 0
            lr *= layer_decay ** (3 - block)  # two blocks
        spared = "bias" in name or "norm" in name
        groups.append({"params": [param], "lr": lr, "weight_decay": 0 if spared else 0.1})
    return groups


def with_nnlr(net):
    """Layer decay within the trunk; a rate for the encoder; no decay for biases and norms."""
    trunk = nnlr.layer_decay(0.9, {"pos*": 3, "patch*": 0, "blocks.0.*": 1, "blocks.1.*": 2})
    scheme = trunk.within("image_encoder.trunk") * nnlr.rule("image_encoder.*", lr=3e-6)
    return nnlr.resolve(net, scheme * nnlr.no_weight_decay("hf"), lr=5e-6, weight_decay=0.1)


def shown():
    """The groups with a layer decay of 0."""
    net = model()
    return str(nnlr.check(net, torch.optim.AdamW(by_hand(net, layer_decay=0))))
