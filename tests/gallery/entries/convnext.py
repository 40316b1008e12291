"""ConvNeXt: twelve layers out of 36 blocks.

Fine-tuning from ImageNet-22k (ConvNeXt-B: rate 5e-5, decay 1e-8): the stem is layer 0, the first
two stages layers 1 and 2, each with the downsampling before it; the third is cut into threes,
layers 3 to 11; the fourth is layer 12, norm and head come above. Each layer gets 0.8 of the next.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "facebookresearch/ConvNeXt"
SOURCE = "optim_factory.py, get_num_layer_for_convnext and get_parameter_groups"
FAMILY = "vision"
THREAD = "AILab-CVC/UniRepLKNet#12"
FAULT = (
    "The number of layers is a constant that fits 27 blocks in the third stage, so the script "
    "admits four models by their names. Where it was taken over, it stopped at the new models. "
    "The indexer of nnlr counts the blocks, of a model with nine as well."
)


def model(blocks=27):
    """Four stages of one-channel blocks."""
    parts = {"downsample_layers.0.0": nn.Conv2d(1, 1, 1)}
    for stage, depth in enumerate((3, 3, blocks, 3)):
        if stage:
            parts[f"downsample_layers.{stage}.1"] = nn.Conv2d(1, 1, 1)
        for block in range(depth):
            parts[f"stages.{stage}.{block}.dwconv"] = nn.Conv2d(1, 1, 1, bias=False)
            parts[f"stages.{stage}.{block}.gamma"] = (1,)
    return tree({**parts, "norm": nn.LayerNorm(1), "head": nn.Linear(1, 2)})


def by_hand(net):
    """A group for each parameter."""
    groups = []
    for name, param in net.named_parameters():
        kind, *path = name.split(".")
        layer = 13
        if kind == "downsample_layers":
            layer = (0, 2, 3, 12)[int(path[0])]
        elif kind == "stages":
            layer = (1, 2, 3 + int(path[1]) // 3, 12)[int(path[0])]
        decay = 0 if param.ndim == 1 else 1e-8
        groups.append({"params": [param], "lr": 5e-5 * 0.8 ** (13 - layer), "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The indexer of its name."""
    scheme = nnlr.layer_decay(0.8, "convnext") * nnlr.no_weight_decay()
    return nnlr.resolve(net, scheme, lr=5e-5, weight_decay=1e-8)


def shown():
    """The layers of a model that the scripts refuse."""
    return str(with_nnlr(model(blocks=9)).layers)
