"""CLIP4Clip: CLIP a thousand times slower than what is new.

What has `clip.` in its name learns with `coef_lr` (1e-3) of the rate (1e-4), the new layers with
all of it. Decay is 0.2, but for `bias` and `LayerNorm.weight`, by name; the norms of CLIP itself
are called `ln_1` and decay.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "ArrowLuo/CLIP4Clip"
SOURCE = "main_task_retrieval.py, prep_optimizer"
FAMILY = "multimodal"
THREAD = "ArrowLuo/CLIP4Clip#11"
FAULT = (
    "A question: are the decays swapped? Only the names of the lists `decay` and `no_decay` were, "
    "and they were mended. A printed plan says what decays, whatever a list is called."
)


def model():
    """A block of CLIP, and a layer over the frames."""
    return tree(
        {
            "clip.visual.resblocks.0.ln_1": nn.LayerNorm(4),
            "clip.visual.resblocks.0.mlp": nn.Linear(4, 4),
            "clip.token_embedding": nn.Embedding(7, 4),
            "transformerClip.frame_position": nn.Embedding(5, 4),
            "cross.embeddings.LayerNorm": nn.LayerNorm(4),
        }
    )


def by_hand(net):
    """Four groups by two questions about the name."""
    groups = []
    for name, p in net.named_parameters():
        rate = 1e-4 * 1e-3 if "clip." in name else 1e-4
        decay = 0.0 if "bias" in name or "LayerNorm.weight" in name else 0.2
        groups.append({"params": [p], "lr": rate, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The preset for such names, and one rule."""
    slow = nnlr.rule("clip.*", lr_mult=1e-3)
    return nnlr.resolve(net, slow * nnlr.no_weight_decay("bert_legacy"), lr=1e-4, weight_decay=0.2)


def shown():
    """The plan."""
    return str(with_nnlr(model()))
