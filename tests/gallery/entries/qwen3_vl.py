"""Qwen3-VL, fine-tuning: three rates, one of them for the merger inside the tower.

The vision tower is `visual`, its projector `visual.merger`. What has `merger` in its name learns
with `mm_projector_lr` (1e-5), the rest of what has `visual` with `vision_tower_lr` (1e-6), the
language model with `learning_rate` (2e-7). What decays is up to transformers' `Trainer`; here 0.01.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "QwenLM/Qwen3-VL"
SOURCE = "qwen-vl-finetune/qwenvl/train/trainer.py, create_optimizer"
FAMILY = "multimodal"
THREAD = "QwenLM/Qwen3-VL#1646"
FAULT = (
    "A user's new module hardly moved at the rate of the documentation, 2e-7. Where weights are "
    "bfloat16, a step that small rounds to nothing, which `nnlr.check` works out from weights and "
    "rates."
)


def model():
    """A vision block, the merger, and a layer of the language model."""
    return tree(
        {
            "visual.blocks.0.attn.qkv": nn.Linear(4, 12),
            "visual.merger.linear_fc1": nn.Linear(4, 4),
            "language_model.layers.0.mlp.up_proj": nn.Linear(4, 8, bias=False),
            "lm_head": nn.Linear(4, 7, bias=False),
        }
    )


def by_hand(net):
    """Six groups: `merger` before `visual`, each with and without decay."""
    groups = []
    for name, p in net.named_parameters():
        rate = 1e-5 if "merger" in name else 1e-6 if "visual" in name else 2e-7
        groups.append({"params": [p], "lr": rate, "weight_decay": 0.0 if "bias" in name else 0.01})
    return groups


def with_nnlr(net):
    """The first rule that matches claims a parameter."""
    rates = nnlr.rules([nnlr.rule("*merger*", lr=1e-5), nnlr.rule("*visual*", lr=1e-6)])
    return nnlr.resolve(net, rates * nnlr.no_weight_decay("hf"), lr=2e-7, weight_decay=0.01)


def shown():
    """The language model alone, in bfloat16."""
    torch.manual_seed(0)
    net = model().language_model.bfloat16()
    return str(nnlr.check(net, torch.optim.AdamW(net.parameters(), lr=2e-7, weight_decay=0)))
