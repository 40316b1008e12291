"""OpenRLHF: two groups, also where one is empty.

Parameters with `bias`, `norm.weight`, `layernorm.weight`, `layer_norm.weight` or `ln_f.weight` in
their name do not decay, the others do (0.01 here); only trainable ones are taken. Rate 1e-5.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "OpenRLHF/OpenRLHF"
SOURCE = "openrlhf/utils/deepspeed/deepspeed_utils.py, get_optimizer_grouped_parameters"
FAMILY = "language"
THREAD = "OpenRLHF/OpenRLHF#1234"
FAULT = (
    "With LoRA only matrices train, so that the group without decay is empty. DeepSpeed drops it "
    "after the scheduler has counted two, and from torch 2.10 on the first step raises. Plans "
    "have no empty groups; `nnlr.check` finds one."
)


def model(lora=False):
    """A layer with LoRA, as PEFT makes it, and a norm; under LoRA all else is frozen."""
    net = tree(
        {
            "model.layers.0.q_proj.base_layer": nn.Linear(4, 4),
            "model.layers.0.q_proj.lora_A.default": nn.Linear(4, 2, bias=False),
            "model.layers.0.q_proj.lora_B.default": nn.Linear(2, 4, bias=False),
            "model.norm": nn.LayerNorm(4),
        }
    )
    for name, param in net.named_parameters():
        param.requires_grad = "lora_" in name or not lora
    return net


def by_hand(net):
    """Two groups of trainable parameters."""
    words = ("bias", "layer_norm.weight", "layernorm.weight", "norm.weight", "ln_f.weight")
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    decay = [p for name, p in named if not any(word in name for word in words)]
    others = [p for name, p in named if any(word in name for word in words)]
    return [
        {"params": decay, "lr": 1e-5, "weight_decay": 0.01},
        {"params": others, "lr": 1e-5, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """Our own rule; what is frozen is left out."""
    return nnlr.resolve(net, nnlr.no_weight_decay(), lr=1e-5, weight_decay=0.01)


def shown():
    """The two groups under LoRA."""
    net = model(lora=True)
    return str(nnlr.check(net, torch.optim.AdamW(by_hand(net))))
