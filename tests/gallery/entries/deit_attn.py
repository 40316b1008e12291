"""DeiT: attention, positions and the classifier, nothing else.

`--attn-only` fine-tunes a ViT at another resolution: parameters with `.attn.` in their name are
trained, and so are `pos_embed` and the head; patches and all else are frozen. Of what is trained,
one-axis parameters and those of the model's `no_weight_decay()` do not decay, as timm has it. Rate
5e-4 and decay 0.05, the defaults of the script.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "facebookresearch/deit"
SOURCE = "main.py, main, with --attn-only"
FAMILY = "vision"
THREAD = "facebookresearch/deit#39"
FAULT = (
    "The optimizer was built on the wrapped model, and the wrapper of distributed training has no "
    "`no_weight_decay()`: positions and tokens decayed. nnlr asks the model in the wrapper, here "
    "a `DataParallel`."
)


def model():
    """A ViT of one block."""
    net = tree(
        {
            "cls_token": (1, 1, 2),
            "pos_embed": (1, 3, 2),
            "patch_embed.proj": nn.Conv2d(1, 2, 1),
            "blocks.0.norm1": nn.LayerNorm(2),
            "blocks.0.attn.qkv": nn.Linear(2, 6),
            "blocks.0.mlp.fc1": nn.Linear(2, 2),
            "head": nn.Linear(2, 3),
        }
    )
    net.no_weight_decay = lambda: {"pos_embed", "cls_token"}
    return net


def by_hand(net):
    """Flags first, then two groups of what they leave."""
    for name, param in net.named_parameters():
        param.requires_grad = ".attn." in name or name.startswith(("pos_embed", "head."))
    trained = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    spared = [p for n, p in trained if p.ndim == 1 or n == "pos_embed"]
    decayed = [p for n, p in trained if p.ndim > 1 and n != "pos_embed"]
    return [
        {"params": decayed, "lr": 5e-4, "weight_decay": 0.05},
        {"params": spared, "lr": 5e-4, "weight_decay": 0},
    ]


def with_nnlr(net):
    """Freeze what is none of the three."""
    trained = nnlr.glob("*.attn.*") | nnlr.glob("pos_embed") | nnlr.glob("head.*")
    scheme = nnlr.freeze(~trained) * nnlr.no_weight_decay()
    return nnlr.resolve(net, scheme, lr=5e-4, weight_decay=0.05)


def shown():
    """The plan of a wrapped model."""
    plan = nnlr.resolve(
        nn.DataParallel(model()), nnlr.no_weight_decay("timm"), lr=5e-4, weight_decay=0.05
    )
    return plan.explain("pos_embed")
