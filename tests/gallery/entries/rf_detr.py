"""RF-DETR: layer decay in the encoder, and a factor for each component after it.

The DINOv2 encoder has a base rate of its own, 1.5e-4, times 0.7 squared for being two components
below the head, times 0.8 for each layer down; what is in no block, its last norm, counts as top.
The decoder gets 0.7 of the rate of the rest, 1e-4. Everything decays by 1e-4, but of the encoder
only what has none of `gamma`, `pos_embed`, `rel_pos`, `bias`, `norm` and `embeddings` in its name.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "roboflow/rf-detr"
SOURCE = "src/rfdetr/training/param_groups.py, get_param_dict"
FAMILY = "detection"
THREAD = "roboflow/rf-detr#1409"
FAULT = (
    "It made one group for each tensor: 465 groups in the smallest model, with 28 different "
    "settings, so that AdamW launched a kernel for each tensor in every step. A plan merges "
    "groups that are equal; its first line says how many are left."
)


def model():
    """Two blocks of an encoder, its projector, a decoder, a head."""
    encoder = "backbone.0.encoder.encoder"
    return tree(
        {
            f"{encoder}.embeddings.cls_token": (1, 1, 4),
            f"{encoder}.embeddings.position_embeddings": (1, 3, 4),
            f"{encoder}.embeddings.patch_embeddings.projection": nn.Conv2d(1, 4, 1),
            f"{encoder}.encoder.layer.0.norm1": nn.LayerNorm(4),
            f"{encoder}.encoder.layer.0.mlp.fc1": nn.Linear(4, 4),
            f"{encoder}.encoder.layer.1.norm1": nn.LayerNorm(4),
            f"{encoder}.encoder.layer.1.mlp.fc1": nn.Linear(4, 4),
            f"{encoder}.layernorm": nn.LayerNorm(4),
            "backbone.0.projector.stages.0": nn.Conv2d(4, 4, 1),
            "transformer.decoder.layers.0.linear1": nn.Linear(4, 4),
            "class_embed": nn.Linear(4, 3),
        }
    )


def by_hand(net):
    """A group for each parameter."""
    spared = ("gamma", "pos_embed", "rel_pos", "bias", "norm", "embeddings")
    groups = []
    for name, param in net.named_parameters():
        lr, decay = 1e-4, 1e-4
        if name.startswith("backbone.0.encoder."):
            layer = 3  # two blocks
            if "embeddings" in name:
                layer = 0
            elif ".layer." in name:
                layer = int(name.partition(".layer.")[2].split(".")[0]) + 1
            lr = 1.5e-4 * 0.8 ** (3 - layer) * 0.7**2
            decay = 0 if any(word in name for word in spared) else decay
        elif "transformer.decoder" in name:
            lr *= 0.7
        groups.append({"params": [param], "lr": lr, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """Layer decay and exemptions within the encoder; a factor for each part."""
    vit = nnlr.layer_decay(0.8, "dinov2") * nnlr.rule(nnlr.regex(".*(bias|norm|emb).*"), wd_mult=0)
    parts = nnlr.rule("*.encoder.*", lr_mult=1.5 * 0.7**2) * nnlr.rule("*.decoder.*", lr_mult=0.7)
    return nnlr.resolve(net, vit.within("backbone.0.encoder") * parts, lr=1e-4, weight_decay=1e-4)


def shown():
    """The head of the plan's table."""
    return "\n".join(str(with_nnlr(model())).splitlines()[:2])
