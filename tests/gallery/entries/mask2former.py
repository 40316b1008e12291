"""Mask2Former: detectron2's function, with a backbone and embeddings in it.

The backbone learns at a tenth of 1e-4. Norms, `nn.Embedding` (queries and levels) and, in a Swin,
positions and tables of relative positions do not decay; all else by 0.05, biases too.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "facebookresearch/Mask2Former"
SOURCE = "train_net.py, Trainer.build_optimizer"
FAMILY = "detection"


def model():
    """A block of a Swin, a pixel decoder, queries."""
    return tree(
        {
            "backbone.layers.0.blocks.0.norm1": nn.LayerNorm(2),
            "backbone.layers.0.blocks.0.attn.relative_position_bias_table": (9, 1),
            "backbone.layers.0.blocks.0.attn.qkv": nn.Linear(2, 6),
            "sem_seg_head.pixel_decoder.adapter_1": nn.Conv2d(2, 2, 1),
            "sem_seg_head.pixel_decoder.adapter_1.norm": nn.GroupNorm(1, 2),
            "sem_seg_head.predictor.query_feat": nn.Embedding(3, 2),
            "sem_seg_head.predictor.class_embed": nn.Linear(2, 3),
        }
    )


def by_hand(net):
    """A group for each parameter."""
    groups = []
    for name, module in net.named_modules():
        for key, param in module.named_parameters(recurse=False):
            lr = 1e-5 if "backbone" in name else 1e-4
            spared = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.Embedding)
            spared |= "relative_position_bias_table" in key or "absolute_pos_embed" in key
            groups.append({"params": [param], "lr": lr, "weight_decay": 0 if spared else 0.05})
    return groups


def with_nnlr(net):
    """The preset of detectron2 for norms, a rule for the rest."""
    spared = nnlr.rule(nnlr.module_type("Embedding") | nnlr.role("position"), wd_mult=0)
    scheme = nnlr.rule("backbone.*", lr_mult=0.1) * nnlr.no_weight_decay("detectron2") * spared
    return nnlr.resolve(net, scheme, lr=1e-4, weight_decay=0.05)
