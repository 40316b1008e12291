"""torchvision's references: a decay for norms, for biases, and for names.

`set_weight_decay` goes through the modules: a parameter whose own name is a key (`bias`,
`class_token`, `position_embedding`, `relative_position_bias_table`) gets the decay of the key, the
rest of a norm layer the decay of norms, all else the decay of the run. For Swin-T: rate 1e-3,
decay 0.05, and 0 for all of these.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "pytorch/vision"
SOURCE = "references/classification/utils.py, set_weight_decay; train.py"
FAMILY = "vision"


def model():
    """Patches, a block with a table of relative positions, a head."""
    return tree(
        {
            "features.0.0": nn.Conv2d(1, 2, 1),
            "features.1.0.norm1": nn.LayerNorm(2),
            "features.1.0.attn.relative_position_bias_table": (9, 1),
            "features.1.0.attn.qkv": nn.Linear(2, 6),
            "norm": nn.LayerNorm(2),
            "head": nn.Linear(2, 3),
        }
    )


def by_hand(net):
    """A group for each parameter."""
    keys = {"bias", "class_token", "position_embedding", "relative_position_bias_table"}
    groups = []
    for module in net.modules():
        for name, param in module.named_parameters(recurse=False):
            spared = name in keys or isinstance(module, nn.LayerNorm)
            decay = 0 if spared else 0.05
            groups.append({"params": [param], "lr": 1e-3, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The default of nnlr: norms, biases, tokens, positions of all kinds."""
    return nnlr.resolve(net, nnlr.no_weight_decay(), lr=1e-3, weight_decay=0.05)
