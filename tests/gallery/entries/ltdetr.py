"""LTDETR: a hundredth of the rate for the pretrained ViT, and for nothing beside it.

The backbone holds a DINOv3 and a small convolutional branch that feeds it details (the STA). Only
`backbone.dinov3` learns at 1e-6; the branch is new and learns as the detector does, at 1e-4. The
decay is 1e-4, without norms, biases, tokens and embeddings.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "lightly-ai/lightly-train"
SOURCE = (
    "src/lightly_train/_task_models/dinov3_ltdetr_object_detection/train_model.py, get_optimizer"
)
FAMILY = "detection"
THREAD = "lightly-ai/lightly-train#646"
FAULT = (
    "The convolutional branch beside the ViT, new and untrained, had the rate of the whole "
    "backbone: a hundredth of what it needs. The difference of two plans says what a change of a "
    "pattern moves."
)


def model():
    """A ViT with a token, the branch beside it, encoder and decoder."""
    return tree(
        {
            "backbone.dinov3.cls_token": (1, 1, 4),
            "backbone.dinov3.blocks.0.norm1": nn.LayerNorm(4),
            "backbone.dinov3.blocks.0.mlp.fc1": nn.Linear(4, 4),
            "backbone.sta.stem.0": nn.Conv2d(1, 4, 1, bias=False),
            "backbone.sta.stem.1": nn.BatchNorm2d(4),
            "backbone.convs.0": nn.Conv2d(4, 4, 1, bias=False),
            "encoder.lateral_convs.0": nn.Conv2d(4, 4, 1),
            "decoder.enc_output.0": nn.Linear(4, 4),
        }
    )


def by_hand(net):
    """Two rates, each with and without decay."""
    slow = {id(p) for p in net.backbone.dinov3.parameters()}
    groups = []
    for name, param in net.named_parameters():
        spared = param.ndim <= 1 or "token" in name or "embed" in name
        lr = 1e-6 if id(param) in slow else 1e-4
        groups.append({"params": [param], "lr": lr, "weight_decay": 0 if spared else 1e-4})
    return groups


def with_nnlr(net):
    """A rule for the ViT, and the preset."""
    scheme = nnlr.rule("backbone.dinov3.*", lr_mult=0.01) * nnlr.no_weight_decay()
    return nnlr.resolve(net, scheme, lr=1e-4, weight_decay=1e-4)


def shown():
    """What the mended pattern moves."""
    net = model()
    before = nnlr.rule("backbone.*", lr_mult=0.01) * nnlr.no_weight_decay()
    return str(nnlr.resolve(net, before, lr=1e-4, weight_decay=1e-4).diff(with_nnlr(net)))
