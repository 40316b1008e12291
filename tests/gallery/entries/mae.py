"""MAE: layer decay, with the factor beside the rate.

Fine-tuning a ViT. Tokens, positions and patches are layer 0, block i is layer i + 1, the rest one
layer above the last block; each layer gets 0.65 of the one above it (ViT-B: base rate 2e-3 at a
batch of 1024). Decay is 0.05, without what has one axis and what the model exempts. The function
writes the factor as `lr_scale`; `adjust_learning_rate` in the training loop multiplies it in.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "facebookresearch/mae"
SOURCE = "util/lr_decay.py, param_groups_lrd; util/lr_sched.py"
FAMILY = "vision"
THREAD = "facebookresearch/mae#216"
FAULT = (
    "The report, that all layers learn alike because no optimizer reads `lr_scale`, does not hold "
    "for this repository, whose own loop does. It holds wherever the function is used without the "
    "loop: `nnlr.check` makes an error of a scheduler that does not multiply `lr_scale` in."
)


def model():
    """A ViT of two blocks."""
    return tree(
        {
            "cls_token": (1, 1, 2),
            "pos_embed": (1, 3, 2),
            "patch_embed.proj": nn.Conv2d(1, 2, 1),
            "blocks.0.norm1": nn.LayerNorm(2),
            "blocks.0.attn.qkv": nn.Linear(2, 6),
            "blocks.1.norm1": nn.LayerNorm(2),
            "blocks.1.attn.qkv": nn.Linear(2, 6),
            "fc_norm": nn.LayerNorm(2),
            "head": nn.Linear(2, 3),
        }
    )


def by_hand(net):
    """A group for each parameter, with the rate that the loop gives it at the top of the course."""
    top, groups = len(net.blocks._modules) + 1, []
    for name, param in net.named_parameters():
        layer = top
        if name.startswith(("cls_token", "pos_embed", "patch_embed")):
            layer = 0
        elif name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        decay = 0 if param.ndim == 1 or name in ("pos_embed", "cls_token") else 0.05
        groups.append(
            {"params": [param], "lr": 2e-3 * 0.65 ** (top - layer), "weight_decay": decay}
        )
    return groups


def with_nnlr(net):
    """The scheme, the indexer, the exemptions."""
    scheme = nnlr.layer_decay(0.65, "vit") * nnlr.no_weight_decay()
    return nnlr.resolve(net, scheme, lr=2e-3, weight_decay=0.05)


def shown():
    """Groups with the factor beside the rate, under a scheduler of torch."""
    net = model()
    groups = [{"params": g["params"], "lr_scale": g["lr"] / 2e-3} for g in by_hand(net)]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, weight_decay=0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    return str(nnlr.check(net, optimizer, cosine))
