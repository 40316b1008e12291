"""D-FINE: groups by regular expressions.

The configuration has two: whatever is in the backbone and has no `norm` in its name learns at
1.25e-5, a twentieth of the base rate; what is a norm in encoder or decoder does not decay, all
else by 1.25e-4. The first says `(?!.*norm|bn)`, in which `bn` is only looked for at the very start
of a name; batch norms of the backbone are frozen, so nothing comes of it.
"""

import re

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "Peterande/D-FINE"
SOURCE = "configs/dfine/dfine_hgnetv2_l_coco.yml"
FAMILY = "detection"


def model():
    """A stage of the backbone, parts of encoder and decoder."""
    return tree(
        {
            "backbone.stages.0.blocks.0.conv": nn.Conv2d(1, 4, 1, bias=False),
            "encoder.input_proj.0.conv": nn.Conv2d(4, 4, 1, bias=False),
            "encoder.input_proj.0.norm": nn.BatchNorm2d(4),
            "decoder.decoder.layers.0.linear1": nn.Linear(4, 4),
            "decoder.decoder.layers.0.norm1": nn.LayerNorm(4),
            "decoder.dec_score_head.0": nn.Linear(4, 3),
        }
    )


def by_hand(net):
    """The first expression that is found in a name, else the base rates."""
    backbone = "^(?=.*backbone)(?!.*norm|bn).*$"
    norms = "^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn)).*$"
    groups = []
    for name, param in net.named_parameters():
        lr = 1.25e-5 if re.search(backbone, name) else 2.5e-4
        decay = 0 if re.search(norms, name) else 1.25e-4
        groups.append({"params": [param], "lr": lr, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The same two expressions."""
    backbone = nnlr.rule(nnlr.regex("^(?=.*backbone)(?!.*norm|bn).*$"), lr=1.25e-5)
    norms = nnlr.rule(nnlr.regex("^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn)).*$"), wd_mult=0)
    return nnlr.resolve(net, backbone * norms, lr=2.5e-4, weight_decay=1.25e-4)
