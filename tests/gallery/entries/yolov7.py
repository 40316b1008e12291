"""YOLOv7: what does not decay is a list of attributes.

As in YOLOv5, and then by name: the implicit knowledge of the head (`ia`, `im`), logit scales and
biases of attention, the kernels of one kind of reparametrised convolution. Whatever has no `weight`
and no `bias` and is not in the list is not trained. Rate 0.01, decay 5e-4.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "WongKinYiu/yolov7"
SOURCE = "train.py, train"
FAMILY = "detection"


def model():
    """A convolution, and a head with implicit knowledge before and after it."""
    return tree(
        {
            "model.0.conv": nn.Conv2d(1, 2, 1, bias=False),
            "model.0.bn": nn.BatchNorm2d(2),
            "model.1.m.0": nn.Conv2d(2, 3, 1),
            "model.1.ia.0.implicit": (1, 2, 1, 1),
            "model.1.im.0.implicit": (1, 3, 1, 1),
        }
    )


def by_hand(net):
    """Three groups: attributes, weights, biases."""
    spared, weights, biases = [], [], []
    for module in net.modules():
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            biases.append(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            spared.append(module.weight)
        elif isinstance(getattr(module, "weight", None), nn.Parameter):
            weights.append(module.weight)
        for key in ("im", "ia"):
            spared += [part.implicit for part in getattr(module, key, nn.Module()).children()]
    return [
        {"params": spared, "lr": 0.01, "weight_decay": 0},
        {"params": weights, "lr": 0.01, "weight_decay": 5e-4},
        {"params": biases, "lr": 0.01, "weight_decay": 0},
    ]


def with_nnlr(net):
    """The preset for the first part, a rule for the list; nothing is left out."""
    scheme = nnlr.no_weight_decay("yolov5") * nnlr.rule("*.implicit", wd_mult=0)
    return nnlr.resolve(net, scheme, lr=0.01, weight_decay=5e-4)
