"""timm: layer decay by the model's own matcher.

`param_groups_layer_decay` asks the model: `group_matcher()` has regular expressions for the stem
and the blocks, `no_weight_decay()` names. Layers are counted, each gets 0.75 of the next; what has
one axis or is named does not decay (rate 1e-3, decay 0.05). The factor is written as `lr_scale`.
"""

import re

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "huggingface/pytorch-image-models"
SOURCE = "timm/optim/_param_groups.py, param_groups_layer_decay"
FAMILY = "vision"
THREAD = "huggingface/pytorch-image-models#2712"
FAULT = (
    "Registers were in no expression of the matcher, so they got the top layer, the full rate, "
    "and decay. The layers of a plan show it before a run."
)


def model(stem="^cls_token|reg_token|pos_embed|patch_embed"):
    """A ViT of two blocks with registers, with the hooks of timm."""
    net = tree(
        {
            "cls_token": (1, 1, 2),
            "reg_token": (1, 4, 2),
            "pos_embed": (1, 3, 2),
            "patch_embed.proj": nn.Conv2d(1, 2, 1),
            "blocks.0.norm1": nn.LayerNorm(2),
            "blocks.0.mlp.fc1": nn.Linear(2, 2),
            "blocks.1.norm1": nn.LayerNorm(2),
            "blocks.1.mlp.fc1": nn.Linear(2, 2),
            "norm": nn.LayerNorm(2),
            "head": nn.Linear(2, 3),
        }
    )
    blocks = [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]
    net.group_matcher = lambda coarse=False: {"stem": stem, "blocks": blocks}
    net.no_weight_decay = lambda: {"cls_token", "reg_token", "pos_embed"}
    return net


def by_hand(net):
    """A group for each parameter."""
    stem, groups = net.group_matcher()["stem"], []
    for name, param in net.named_parameters():
        layer = 3  # two blocks
        if re.match(stem, name):
            layer = 0
        elif name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        elif name.startswith("norm."):
            layer = 2
        decay = 0 if param.ndim == 1 or name in net.no_weight_decay() else 0.05
        groups.append({"params": [param], "lr": 1e-3 * 0.75 ** (3 - layer), "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The indexer and the preset of its name; the rates are real."""
    scheme = nnlr.layer_decay(0.75, "timm") * nnlr.no_weight_decay("timm_layer_decay")
    return nnlr.resolve(net, scheme, lr=1e-3, weight_decay=0.05)


def shown():
    """The layers of the earlier matcher."""
    net = model(stem="^cls_token|pos_embed|patch_embed")
    return str(with_nnlr(net).layers)
