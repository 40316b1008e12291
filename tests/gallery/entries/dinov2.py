"""DINOv2: layer decay in pre-training, and patches slower still.

Called for the student and for its head. Tokens, positions and patches are layer 0, each block gets
0.9 of the one above it, and patches 0.2 of that; the head of the self-supervision is at the top,
its last layer marked `is_last_layer`, for a schedule of its own. Biases, norms and LayerScale
(`gamma`) do not decay, all else by 0.04; the rate is 4e-3 at a batch of 1024.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "facebookresearch/dinov2"
SOURCE = "dinov2/utils/param_groups.py, get_params_groups_with_decay"
FAMILY = "vision"
THREAD = "facebookresearch/dinov2#283"
FAULT = (
    "Registers were added to the model but not to the list of names, so they learned at the top "
    "rate. In nnlr a parameter for which a list has no layer is a note; the indexer `dinov2` "
    "knows the registers."
)

LISTED = {
    "backbone.cls_token": 0,
    "backbone.mask_token": 0,
    "backbone.pos_embed": 0,
    "backbone.patch_embed.*": 0,
    "backbone.blocks.0.*": 1,
    "backbone.blocks.1.*": 2,
    "backbone.norm.*": 3,
    "dino_head.*": 3,
}


def model():
    """A student of two blocks with registers, and its head."""
    return tree(
        {
            "backbone.cls_token": (1, 1, 2),
            "backbone.pos_embed": (1, 3, 2),
            "backbone.register_tokens": (1, 4, 2),
            "backbone.mask_token": (1, 2),
            "backbone.patch_embed.proj": nn.Conv2d(1, 2, 1),
            "backbone.blocks.0.norm1": nn.LayerNorm(2),
            "backbone.blocks.0.ls1.gamma": (2,),
            "backbone.blocks.0.mlp.fc1": nn.Linear(2, 2),
            "backbone.blocks.1.mlp.fc1": nn.Linear(2, 2),
            "backbone.norm": nn.LayerNorm(2),
            "dino_head.mlp.0": nn.Linear(2, 2),
            "dino_head.last_layer": nn.Linear(2, 3, bias=False),
        }
    )


def by_hand(net):
    """A group for each parameter."""
    tokens = ("cls_token", "mask_token", "pos_embed", "register_tokens", "patch_embed")
    groups = []
    for name, param in net.named_parameters():
        layer = 3  # two blocks
        if any(word in name for word in tokens):
            layer = 0
        elif ".blocks." in name:
            layer = int(name.split(".")[2]) + 1
        lr = 4e-3 * 0.9 ** (3 - layer) * (0.2 if "patch_embed" in name else 1)
        spared = name.endswith(".bias") or "norm" in name or "gamma" in name
        group = {"params": [param], "lr": lr, "weight_decay": 0 if spared else 0.04}
        if "last_layer" in name:
            group["is_last_layer"] = True
        groups.append(group)
    return groups


def with_nnlr(net):
    """The indexer and the preset of its name, and an option."""
    scheme = nnlr.layer_decay(0.9, "dinov2", patch_embed_mult=0.2) * nnlr.no_weight_decay("dinov2")
    last = nnlr.rule("*.last_layer.*", options={"is_last_layer": True})
    return nnlr.resolve(net, scheme * last, lr=4e-3, weight_decay=0.04)


def shown():
    """The list of names from before, as a mapping."""
    net = model()
    scheme = nnlr.layer_decay(0.9, LISTED) * nnlr.no_weight_decay("dinov2")
    plan = nnlr.resolve(net, scheme, lr=4e-3, weight_decay=0.04)
    return str(nnlr.check(plan))
