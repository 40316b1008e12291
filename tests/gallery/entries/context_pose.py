"""ContextAware-PoseFormer: a slow rate for the layers that say where to look.

Deformable attention over image features, lifted to 3D poses: `sampling_offsets` at a tenth of the
rate of all else, as the paper has it (6.4e-4 for the rest, AdamW, decay 0.1). Rates go by words in
names, with the function of Deformable DETR. Since the thread below the repository has these groups
as a comment, beside the one rate by which its models were trained.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "QitaoZhao/ContextAware-PoseFormer"
SOURCE = "ContextPose/train.py, main"
FAMILY = "detection"
THREAD = "QitaoZhao/ContextAware-PoseFormer#12"
FAULT = (
    "`sampling_offsets` was passed as a string where a list of words was expected. So its letters "
    "were the words, every name has one of them, and the group of the rest was empty: the "
    "published models were trained at one rate. An empty group is a finding of `nnlr.check`; a "
    "pattern of nnlr is a string."
)


def model():
    """The lifting network: an embedding, a block with deformable attention, a head."""
    return tree(
        {
            "coord_embed": nn.Linear(2, 4),
            "blocks.0.attn.sampling_offsets": nn.Linear(4, 2),
            "blocks.0.attn.attention_weights": nn.Linear(4, 2),
            "blocks.0.mlp.fc1": nn.Linear(4, 4),
            "head": nn.Linear(4, 3),
        }
    )


def by_hand(net):
    """Two groups by a list of words."""
    words = ["sampling_offsets"]
    slow = [p for name, p in net.named_parameters() if any(word in name for word in words)]
    rest = [p for name, p in net.named_parameters() if not any(word in name for word in words)]
    return [
        {"params": rest, "lr": 6.4e-4, "weight_decay": 0.1},
        {"params": slow, "lr": 6.4e-5, "weight_decay": 0.1},
    ]


def with_nnlr(net):
    """One rule."""
    slow = nnlr.rule("*.sampling_offsets.*", lr_mult=0.1)
    return nnlr.resolve(net, slow, lr=6.4e-4, weight_decay=0.1)


def shown():
    """The groups as they were built, with a string for the list."""
    net, words = model(), "sampling_offsets"
    named = list(net.named_parameters())
    rest = [p for name, p in named if not any(word in name for word in words)]
    slow = [p for name, p in named if any(word in name for word in words)]
    groups = [{"params": rest, "lr": 6.4e-4}, {"params": slow, "lr": 6.4e-5}]
    return str(nnlr.check(net, torch.optim.AdamW(groups, weight_decay=0.1)).at_least("warning"))
