"""PySOT: the head first, then three layers of the backbone at a tenth.

SiamRPN++ trains neck and head at 0.005 for ten epochs on a frozen ResNet. Then the optimizer is
built again: `layer2` to `layer4` learn too, at a tenth, and the layers below stay frozen. All
decays by 1e-4. These are the defaults of its configuration; below is the second phase.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "STVIR/pysot"
SOURCE = "tools/train.py, build_opt_lr"
FAMILY = "detection"


def model():
    """A ResNet of a stem and four layers, neck and head."""
    parts = {f"backbone.layer{i}.0.conv1": nn.Conv2d(2, 2, 1, bias=False) for i in (1, 2, 3, 4)}
    return tree(
        {
            "backbone.conv1": nn.Conv2d(1, 2, 1, bias=False),
            "backbone.bn1": nn.BatchNorm2d(2),
            **parts,
            "neck.downsample2": nn.Conv2d(2, 2, 1),
            "rpn_head.rpn2.cls": nn.Conv2d(2, 2, 1),
        }
    )


def by_hand(net):
    """Freeze the backbone, open three layers, and group what is trained."""
    net.backbone.requires_grad_(False)
    for name in ("layer2", "layer3", "layer4"):
        getattr(net.backbone, name).requires_grad_(True)
    opened = [p for p in net.backbone.parameters() if p.requires_grad]
    return [
        {"params": opened, "lr": 0.1 * 0.005, "weight_decay": 1e-4},
        {"params": list(net.neck.parameters()), "lr": 0.005, "weight_decay": 1e-4},
        {"params": list(net.rpn_head.parameters()), "lr": 0.005, "weight_decay": 1e-4},
    ]


def with_nnlr(net):
    """A rate of 0 locks: the first rule that matches counts."""
    layers = nnlr.rule(nnlr.regex(r"backbone\.layer[234]\..*"), lr_mult=0.1)
    scheme = nnlr.rules([layers, nnlr.rule("backbone.*", lr_mult=0)])
    return nnlr.resolve(net, scheme, lr=0.005, weight_decay=1e-4)
