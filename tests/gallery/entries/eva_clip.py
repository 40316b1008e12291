"""EVA-CLIP: layer decay with a factor and a rate of its own for each tower.

Vision has rate 4e-4 and decay 0.85 from layer to layer, text 4e-5 and 0.75; the temperature learns
with `lr`, here 4e-4 too. Patches, positions and tokens are layer 0, block i is i + 1, the rest of
a tower is above its blocks. Vectors, biases and what the vision tower names do not decay, the rest
by 0.05.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "baaivision/EVA"
SOURCE = "EVA-CLIP/rei/training/optim.py, get_all_parameters"
FAMILY = "multimodal"


class Vision(nn.Module):
    """A tower that names what should not decay."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.patch_embed = nn.Conv2d(3, 4, 2)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"attn": nn.Linear(4, 4), "mlp": nn.Linear(4, 4)}) for _ in range(2)
        )
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 4)

    def no_weight_decay(self):
        """Positions and the class token."""
        return {"pos_embed", "cls_token"}


def model():
    """Two blocks of vision, three of text."""
    block = "text.transformer.resblocks.{}.{}"
    parts = [block.format(i, part) for i in range(3) for part in ("attn", "mlp")]
    return tree(
        {
            "visual": Vision(),
            "text.token_embedding": nn.Embedding(7, 4),
            "text.positional_embedding": nn.Parameter(torch.zeros(5, 4)),
            **{part: nn.Linear(4, 4) for part in parts},
            "text.ln_final": nn.LayerNorm(4),
            "text.text_projection": nn.Parameter(torch.zeros(4, 4)),
            "logit_scale": nn.Parameter(torch.zeros(())),
        }
    )


def by_hand(net):
    """A rate for each layer of each tower."""
    groups = []
    for name, p in net.named_parameters():
        rate, factor, last = (4e-4, 0.85, 3) if "visual." in name else (4e-5, 0.75, 4)
        if name == "logit_scale":
            rate, factor = 4e-4, 1.0
        layer = last
        if "blocks." in name:
            layer = int(name.split("blocks.")[1].split(".")[0]) + 1
        elif "embed" in name or "cls_token" in name:
            layer = 0
        free = p.ndim <= 1 or name in ("visual.pos_embed", "visual.cls_token")
        decay = 0.0 if free else 0.05
        groups.append({"params": [p], "lr": rate * factor ** (last - layer), "weight_decay": decay})
    return groups


def with_nnlr(net):
    """Each tower by itself; the norm after its blocks stands above them."""
    vision, text = (nnlr.layer_decay(decay, final_norm="head") for decay in (0.85, 0.75))
    towers = vision.within("visual") * text.within("text") * nnlr.rule("text.*", lr_mult=0.1)
    return nnlr.resolve(net, towers * nnlr.no_weight_decay("timm"), lr=4e-4, weight_decay=0.05)
