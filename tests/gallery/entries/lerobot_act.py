"""LeRobot ACT: the backbone at a rate of its own.

What starts with `model.backbone` learns with `optimizer_lr_backbone`, the rest with `optimizer_lr`:
0.001 and 0.01 in the test of the repository (both are 1e-5 by default). All decay by 1e-4.
"""

from torch import nn

import nnlr
from tests.gallery.entries._error import error_of
from tests.gallery.tree import tree

REPOSITORY = "huggingface/lerobot"
SOURCE = "src/lerobot/policies/act/modeling_act.py, ACTPolicy.get_optim_params"
FAMILY = "fields"


def model():
    """The policy, in which the network is `model`."""
    return tree(
        {
            "model.backbone.conv1": nn.Conv2d(3, 2, 1, bias=False),
            "model.backbone.layer1.0.conv1": nn.Conv2d(2, 2, 1, bias=False),
            "model.encoder.layers.0.linear1": nn.Linear(2, 2),
            "model.action_head": nn.Linear(2, 2),
        }
    )


def by_hand(net):
    """Two groups by the start of the name."""
    inside = [p for name, p in net.named_parameters() if name.startswith("model.backbone")]
    outside = [p for name, p in net.named_parameters() if not name.startswith("model.backbone")]
    return [
        {"params": outside, "lr": 0.01, "weight_decay": 1e-4},
        {"params": inside, "lr": 0.001, "weight_decay": 1e-4},
    ]


def with_nnlr(net):
    """One rule."""
    return nnlr.resolve(net, nnlr.rule("model.backbone.*", lr=0.001), lr=0.01, weight_decay=1e-4)


THREAD = "huggingface/lerobot#280"
FAULT = (
    "The function looked for names that start with `backbone`. There are none: the group was "
    "empty, and the backbone learned at the rate of the rest. In nnlr a rule that matches nothing "
    "is an error, with the nearest pattern that would."
)


def shown():
    """The rule with the old prefix."""
    rule = nnlr.rule("backbone.*", lr=0.001)
    return error_of(nnlr.resolve, model(), rule, lr=0.01, weight_decay=1e-4)
