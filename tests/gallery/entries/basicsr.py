"""BasicSR: the optical flow an eighth as fast as the rest.

BasicVSR takes a pretrained network for optical flow. It is frozen for the first 5,000 iterations,
by flags, and then learns at `flow_lr_mul` = 0.125 of 2e-4; what has `spynet` in its name is flow.
Nothing decays. The cosine ends at 1e-7 for both, where the ratio is gone; under `nnlr.schedule` it
stays.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "XPixelGroup/BasicSR"
SOURCE = "basicsr/models/video_recurrent_model.py, VideoRecurrentModel.setup_optimizers"
FAMILY = "vision"


def model():
    """Flow, a trunk in one direction, and an upsampling."""
    return tree(
        {
            "spynet.basic_module.0.basic_module.0": nn.Conv2d(2, 2, 1),
            "backward_trunk.main.0": nn.Conv2d(2, 2, 1),
            "upconv1": nn.Conv2d(2, 4, 1),
        }
    )


def by_hand(net):
    """Two groups by a word in the name."""
    normal = [p for name, p in net.named_parameters() if "spynet" not in name]
    flow = [p for name, p in net.named_parameters() if "spynet" in name]
    return [
        {"params": normal, "lr": 2e-4, "weight_decay": 0},
        {"params": flow, "lr": 2e-4 * 0.125, "weight_decay": 0},
    ]


def with_nnlr(net):
    """One rule; `nnlr.freeze("spynet.*")` beside it is the first phase."""
    return nnlr.resolve(net, nnlr.rule("spynet.*", lr_mult=0.125), lr=2e-4, weight_decay=0)
