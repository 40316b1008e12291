"""icefall: a scale on any module, which multiplies on the way down.

A module with an attribute `lr_scale` scales the rate of all that is in it; scales of modules
inside one another multiply. Base rate 0.045 for the ScaledAdam of Zipformer, no decay. Here the
encoder has 0.5, and its first layer 0.5 once more.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "k2-fsa/icefall"
SOURCE = "icefall/utils.py, get_parameter_groups_with_lrs"
FAMILY = "speech"


def model():
    """An encoder with two scales, a decoder and a joiner."""
    net = tree(
        {
            "encoder.layers.0": nn.Linear(4, 4),
            "encoder.layers.1": nn.Linear(4, 4),
            "decoder.embedding": nn.Embedding(7, 4),
            "joiner.output_linear": nn.Linear(4, 7),
        }
    )
    net.encoder.lr_scale = 0.5
    net.encoder.layers.get_submodule("0").lr_scale = 0.5
    return net


def by_hand(net):
    """A rate for each parameter, from the modules around it."""
    scale_of = {name: getattr(module, "lr_scale", 1.0) for name, module in net.named_modules()}
    groups = []
    for name, p in net.named_parameters():
        rate, path = 0.045, ""
        for part in name.split(".")[:-1]:
            path = f"{path}.{part}".lstrip(".")
            rate *= scale_of[path]
        groups.append({"params": [p], "lr": rate, "weight_decay": 0.0})
    return groups


def with_nnlr(net):
    """A rule for each module that has a scale."""
    scaled = [(name, part) for name, part in net.named_modules() if hasattr(part, "lr_scale")]
    scales = [nnlr.rule(f"{name}.*", lr_mult=part.lr_scale) for name, part in scaled]
    return nnlr.resolve(net, *scales, lr=0.045, weight_decay=0)
