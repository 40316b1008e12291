"""Person_reID_baseline: the new classifier, and whatever is not it.

The idiom of many fine-tuning scripts: collect the identities of the new layer's parameters, filter
them out of the model's, and give the rest a tenth of the rate. Here 0.05 for the classifier, 0.005
for the pretrained ResNet, and a decay of 5e-4.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "layumi/Person_reID_baseline_pytorch"
SOURCE = "train.py"
FAMILY = "vision"


def model():
    """A ResNet and the classifier with its bottleneck."""
    return tree(
        {
            "model.conv1": nn.Conv2d(1, 2, 1, bias=False),
            "model.bn1": nn.BatchNorm2d(2),
            "classifier.add_block.0": nn.Linear(2, 2),
            "classifier.add_block.1": nn.BatchNorm1d(2),
            "classifier.classifier.0": nn.Linear(2, 3),
        }
    )


def by_hand(net):
    """Two groups by identity."""
    new = list(map(id, net.classifier.parameters()))
    rest = [p for p in net.parameters() if id(p) not in new]
    return [
        {"params": rest, "lr": 0.1 * 0.05, "weight_decay": 5e-4},
        {"params": list(net.classifier.parameters()), "lr": 0.05, "weight_decay": 5e-4},
    ]


def with_nnlr(net):
    """One rule."""
    return nnlr.resolve(net, nnlr.rule("model.*", lr_mult=0.1), lr=0.05, weight_decay=5e-4)
