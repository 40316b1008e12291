"""TorchSeg: two groups for each part, and a loop that knows their numbers.

BiSeNet: the pretrained context path at 1e-2, every other part at ten times that; each part is two
groups, of which the one with biases and norms does not decay (the other by 5e-4). The loop writes
the rates of a polynomial schedule into the groups by their position: two slow ones, then the rest.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "yu-changqian/TorchSeg"
SOURCE = "model/bisenet/cityscapes.bisenet.R18/train.py; furnace/utils/init_func.py, group_weight"
FAMILY = "detection"
THREAD = "yu-changqian/TorchSeg#84"
FAULT = (
    "The loop over the two slow groups wrote into the first both times: biases and norms of the "
    "backbone stayed at their first rate for the whole run. Groups of a plan know their "
    "multipliers, and `nnlr.check` makes an error of one that has left its ratio."
)


def model():
    """A context path with a norm, and two other parts."""
    return tree(
        {
            "context_path.conv1": nn.Conv2d(1, 2, 1, bias=False),
            "context_path.bn1": nn.BatchNorm2d(2),
            "spatial_path.conv_7x7": nn.Conv2d(1, 2, 1, bias=False),
            "heads.0.conv_1x1": nn.Conv2d(2, 3, 1),
        }
    )


def by_hand(net):
    """Two groups for each part."""
    groups = []
    for name, part in net.named_children():
        lr = 1e-2 if name == "context_path" else 1e-1
        decayed = [p for p in part.parameters() if p.ndim > 1]
        spared = [p for p in part.parameters() if p.ndim == 1]
        groups.append({"params": decayed, "lr": lr, "weight_decay": 5e-4})
        groups.append({"params": spared, "lr": lr, "weight_decay": 0})
    return groups


def with_nnlr(net):
    """A rule and a preset."""
    scheme = nnlr.rule(~nnlr.glob("context_path.*"), lr_mult=10) * nnlr.no_weight_decay()
    return nnlr.resolve(net, scheme, lr=1e-2, weight_decay=5e-4)


def shown():
    """A step of the loop, on a plan's groups with the slow ones first."""
    net = model()
    optimizer = with_nnlr(net).optimizer(torch.optim.SGD, momentum=0.9)
    for _ in range(2):
        optimizer.param_groups[0]["lr"] = 9e-3
    for group in optimizer.param_groups[2:]:
        group["lr"] = 9e-2
    return str(nnlr.check(net, optimizer))
