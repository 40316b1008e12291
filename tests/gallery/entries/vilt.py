"""ViLT: a new head ten times faster.

What has `vqa_classifier` or `nlvr2_classifier` in its name learns `lr_mult` (10 for VQA) times as
fast as the pretrained rest, which has 1e-4. Biases and norms, by nine endings of their names, do
not decay, the rest by 0.01. Heads of other tasks keep the base rate.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "dandelin/ViLT"
SOURCE = "vilt/modules/vilt_utils.py, set_schedule"
FAMILY = "multimodal"


def model():
    """Text embeddings, a block of the transformer, and the head for VQA."""
    head = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 5))
    return tree(
        {
            "text_embeddings.word_embeddings": nn.Embedding(7, 4),
            "text_embeddings.LayerNorm": nn.LayerNorm(4),
            "transformer.blocks.0.norm1": nn.LayerNorm(4),
            "transformer.blocks.0.attn.qkv": nn.Linear(4, 12),
            "transformer.norm": nn.LayerNorm(4),
            "vqa_classifier": head,
        }
    )


def by_hand(net):
    """Four groups by words in the name."""
    words = ("bias", "LayerNorm.weight", "norm.weight", "norm1.weight", "norm2.weight")
    groups = []
    for name, p in net.named_parameters():
        rate = 1e-4 * 10 if "vqa_classifier" in name or "nlvr2_classifier" in name else 1e-4
        decay = 0.0 if any(word in name for word in words) else 0.01
        groups.append({"params": [p], "lr": rate, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The same words; the norm inside the head has none of them, and decays."""
    words = nnlr.glob("*bias*") | "*LayerNorm.weight*" | nnlr.regex(r".*norm[12]?\.weight.*")
    rules = nnlr.rule(words, wd_mult=0) * nnlr.rule("vqa_classifier.*", lr_mult=10)
    return nnlr.resolve(net, rules, lr=1e-4, weight_decay=0.01)
