"""LLaVA: the projector at a tenth of the rate, under LoRA.

`mm_projector_lr` (2e-5) is the rate of what has `mm_projector` in its name, with and without decay;
the rest, here LoRA in the language model, has 2e-4. What decays is up to transformers' `Trainer`;
the scripts decay by 0, here 0.01. Without `mm_projector_lr` all has one rate.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "haotian-liu/LLaVA"
SOURCE = "llava/train/llava_trainer.py, LLaVATrainer.create_optimizer"
FAMILY = "multimodal"


def model():
    """A frozen vision tower and language model, LoRA, and the projector."""
    net = tree(
        {
            "model.vision_tower.fc1": nn.Linear(4, 4),
            "model.mm_projector": nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)),
            "model.layers.0.q_proj.base_layer": nn.Linear(4, 4),
            "model.layers.0.q_proj.lora_A.default": nn.Linear(4, 2, bias=False),
            "model.layers.0.q_proj.lora_B.default": nn.Linear(2, 4, bias=False),
        }
    )
    for name, param in net.named_parameters():
        param.requires_grad = "lora_" in name or "mm_projector" in name
    return net


def by_hand(net):
    """Four groups by two questions."""
    groups = []
    for name, p in net.named_parameters():
        if p.requires_grad:
            rate = 2e-5 if "mm_projector" in name else 2e-4
            decay = 0.0 if "bias" in name else 0.01
            groups.append({"params": [p], "lr": rate, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The preset of the `Trainer`, and one rule."""
    projector = nnlr.rule("*mm_projector.*", lr=2e-5)
    return nnlr.resolve(net, projector * nnlr.no_weight_decay("hf"), lr=2e-4, weight_decay=0.01)
