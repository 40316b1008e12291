"""LLaVA-NeXT: rates for vision tower and projector.

`mm_vision_tower_lr` (2e-6) and `mm_projector_lr` (here 5e-6) are the rates of what has
`vision_tower` or `mm_projector` in its name, each with and without decay; the language model has
1e-5. What decays is up to transformers' `Trainer`; the scripts decay by 0, here 0.01.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "LLaVA-VL/LLaVA-NeXT"
SOURCE = "llava/train/llava_trainer.py, LLaVATrainer.create_optimizer"
FAMILY = "multimodal"
THREAD = "LLaVA-VL/LLaVA-NeXT#492"
FAULT = (
    "A user set both rates and saw no effect of them; they suspect that DeepSpeed had built the "
    "optimizer, in one group. The thread has no answer. `nnlr.check(plan, optimizer)` compares "
    "what is there with what was meant."
)


def model():
    """A vision tower, a projector and a layer of the language model."""
    return tree(
        {
            "model.vision_tower.layers.0.fc1": nn.Linear(4, 4),
            "model.mm_projector": nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)),
            "model.layers.0.mlp.up_proj": nn.Linear(4, 8, bias=False),
            "lm_head": nn.Linear(4, 7, bias=False),
        }
    )


def by_hand(net):
    """Groups by a word in the name, and by what decays."""
    rate_of = {"mm_projector": 5e-6, "vision_tower": 2e-6}
    groups = []
    for name, p in net.named_parameters():
        rates = [rate for word, rate in rate_of.items() if word in name]
        decay = 0.0 if "bias" in name else 0.01
        groups.append({"params": [p], "lr": [*rates, 1e-5][0], "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The preset of the `Trainer`, and a rule for each rate."""
    vision = nnlr.rule("*vision_tower.*", lr=2e-6) * nnlr.rule("*mm_projector.*", lr=5e-6)
    return nnlr.resolve(net, vision * nnlr.no_weight_decay("hf"), lr=1e-5, weight_decay=0.01)


def shown():
    """An optimizer of one group, beside the plan."""
    net = model()
    vision = nnlr.rule("*vision_tower.*", lr=2e-6) * nnlr.rule("*mm_projector.*", lr=5e-6)
    plan = nnlr.resolve(net, vision, lr=1e-5, weight_decay=0)
    return str(nnlr.check(plan, torch.optim.AdamW(net.parameters(), lr=1e-5, weight_decay=0)))
