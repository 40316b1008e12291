"""METER: heads fifty times, the fusion five times as fast as the towers.

For VQA, pretrained towers learn with 5e-6, what has `cross_modal` in its name `lr_mult_cross_modal`
(5) times as fast, and heads `lr_mult_head` (50) times; each with and without decay (0.01), by words
in the name. What is both a head and cross-modal is in none of the six groups.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "zdou0830/METER"
SOURCE = "meter/modules/meter_utils.py, set_schedule"
FAMILY = "multimodal"


def model():
    """Two towers, a fusion layer and a head."""
    return tree(
        {
            "vit_model.patch_embed.proj": nn.Conv2d(3, 4, 2),
            "vit_model.layers.0.blocks.0.norm1": nn.LayerNorm(4),
            "text_transformer.embeddings.word_embeddings": nn.Embedding(7, 4),
            "text_transformer.embeddings.LayerNorm": nn.LayerNorm(4),
            "cross_modal_text_transform": nn.Linear(4, 4),
            "cross_modal_image_layers.0.output.LayerNorm": nn.LayerNorm(4),
            "vqa_classifier": nn.Linear(4, 5),
        }
    )


def by_hand(net):
    """Six groups by words in the name."""
    heads = ("vqa_classifier", "nlvr2_classifier", "mlm_score", "itm_score", "snli_classifier")
    words = ("bias", "LayerNorm.weight", "norm.weight", "norm1.weight", "norm2.weight")
    groups = []
    for name, p in net.named_parameters():
        is_head, is_fusion = any(head in name for head in heads), "cross_modal" in name
        if is_head and is_fusion:
            continue
        rate = 5e-6 * (50 if is_head else 5 if is_fusion else 1)
        decay = 0.0 if any(word in name for word in words) else 0.01
        groups.append({"params": [p], "lr": rate, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """A rule for each factor, and one for the words."""
    spared = nnlr.rule(nnlr.regex(r".*(bias|(LayerNorm|norm[12]?)\.weight).*"), wd_mult=0)
    rates = nnlr.rule("vqa_classifier.*", lr_mult=50) * nnlr.rule("cross_modal*", lr_mult=5)
    return nnlr.resolve(net, spared * rates, lr=5e-6, weight_decay=0.01)
