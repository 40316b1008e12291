"""SimMIM: layer decay through the stages of a Swin.

Fine-tuning Swin-B: rate 1.25e-3, each block 0.9 of the one above it, counted through all stages;
the downsampling after a stage goes with the stage's last block, patches are layer 0, norm and head
the layer above the last block. Decay is 0.05, without one-axis parameters, positions and the tables
of relative positions, which the model lists.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "microsoft/SimMIM"
SOURCE = "optimizer.py, get_swin_layer and get_finetune_param_groups"
FAMILY = "vision"


def model():
    """Two stages of two blocks."""
    parts = {"patch_embed.proj": nn.Conv2d(1, 2, 1), "patch_embed.norm": nn.LayerNorm(2)}
    for stage in (0, 1):
        for block in (0, 1):
            parts[f"layers.{stage}.blocks.{block}.norm1"] = nn.LayerNorm(2)
            parts[f"layers.{stage}.blocks.{block}.attn.relative_position_bias_table"] = (9, 1)
            parts[f"layers.{stage}.blocks.{block}.mlp.fc1"] = nn.Linear(2, 2)
    parts["layers.0.downsample.reduction"] = nn.Linear(4, 2, bias=False)
    parts["layers.0.downsample.norm"] = nn.LayerNorm(4)
    return tree({**parts, "norm": nn.LayerNorm(2), "head": nn.Linear(2, 3)})


def by_hand(net):
    """A group for each parameter."""
    depths, groups = (2, 2), []
    for name, param in net.named_parameters():
        layer, path = 5, name.split(".")
        if path[0] == "patch_embed":
            layer = 0
        elif path[0] == "layers" and path[2] == "downsample":
            layer = sum(depths[: int(path[1]) + 1])
        elif path[0] == "layers":
            layer = sum(depths[: int(path[1])]) + int(path[3]) + 1
        spared = param.ndim == 1 or "relative_position_bias_table" in name
        lr, decay = 1.25e-3 * 0.9 ** (5 - layer), 0 if spared else 0.05
        groups.append({"params": [param], "lr": lr, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The indexer of its name."""
    scheme = nnlr.layer_decay(0.9, "swin") * nnlr.no_weight_decay()
    return nnlr.resolve(net, scheme, lr=1.25e-3, weight_decay=0.05)
