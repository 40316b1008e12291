"""V-JEPA 2: two networks, and a mark against the schedule of the decay.

Encoder and predictor learn at 5.25e-4. What has `bias` in its name or one axis does not decay; all
else by 0.04, which a schedule may move. Groups without decay are marked `WD_exclude`, so that the
schedule passes them over.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "facebookresearch/vjepa2"
SOURCE = "app/vjepa/utils.py, init_opt"
FAMILY = "vision"


def model():
    """An encoder of one block, a predictor with its mask token."""
    return tree(
        {
            "encoder.backbone.patch_embed.proj": nn.Conv3d(1, 2, 1),
            "encoder.backbone.blocks.0.norm1": nn.LayerNorm(2),
            "encoder.backbone.blocks.0.attn.qkv": nn.Linear(2, 6),
            "predictor.backbone.mask_tokens.0": (1, 1, 2),
            "predictor.backbone.predictor_embed": nn.Linear(2, 2),
            "predictor.backbone.predictor_norm": nn.LayerNorm(2),
        }
    )


def by_hand(net):
    """Four groups: with and without decay, of each network."""
    groups = []
    for part in (net.encoder, net.predictor):
        spared = [p for n, p in part.named_parameters() if "bias" in n or p.ndim == 1]
        decayed = [p for n, p in part.named_parameters() if "bias" not in n and p.ndim != 1]
        groups.append({"params": decayed, "lr": 5.25e-4, "weight_decay": 0.04})
        groups.append({"params": spared, "lr": 5.25e-4, "weight_decay": 0, "WD_exclude": True})
    return groups


def with_nnlr(net):
    """One rule; under `nnlr.schedule(..., weight_decay=...)` it needs no mark."""
    spared = nnlr.glob("*bias*") | nnlr.ndim(max=1)
    scheme = nnlr.rule(spared, wd_mult=0, options={"WD_exclude": True})
    return nnlr.resolve(net, scheme, lr=5.25e-4, weight_decay=0.04)
