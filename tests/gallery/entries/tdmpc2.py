"""TD-MPC2: the encoder of observations at three tenths of the rate.

Encoder 9e-5, dynamics, reward, value functions and policy 3e-4, by Adam and without decay; the
policy has an `eps` of 1e-5. The target network, which follows by averaging, is frozen.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "nicklashansen/tdmpc2"
SOURCE = "tdmpc2/tdmpc2.py, TDMPC2.__init__"
FAMILY = "fields"


def model():
    """A layer of each part of the world model."""
    net = tree(
        {
            f"{part}.0": nn.Linear(2, 2)
            for part in ("_encoder.state", "_dynamics", "_reward", "_pi", "_Qs", "_target_Qs")
        }
    )
    net._target_Qs.requires_grad_(requires_grad=False)
    return net


def by_hand(net):
    """A group for each part; the last is the second optimizer."""
    rates = {"lr": 3e-4, "weight_decay": 0}
    return [
        {"params": list(net._encoder.parameters()), "lr": 3e-4 * 0.3, "weight_decay": 0},
        {"params": list(net._dynamics.parameters()), **rates},
        {"params": list(net._reward.parameters()), **rates},
        {"params": list(net._Qs.parameters()), **rates},
        {"params": list(net._pi.parameters()), **rates, "eps": 1e-5},
    ]


def with_nnlr(net):
    """A rate, and an option."""
    scheme = nnlr.rule("_encoder.*", lr_mult=0.3) * nnlr.rule("_pi.*", options={"eps": 1e-5})
    return nnlr.resolve(net, scheme, lr=3e-4, weight_decay=0)


CANNOT = (
    "that the policy has an optimizer of its own and steps after the world model, by another loss. "
    "A plan makes one optimizer with one step; two of them are two plans, each of one part."
)
