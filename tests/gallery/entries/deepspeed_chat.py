"""DeepSpeed-Chat: a rate of its own for LoRA.

Three groups: what decays (0.1 here), the LoRA matrices `lora_right_weight` and `lora_left_weight`,
which decay too and learn with `lora_lr` (5e-4), and what does not decay, biases and norms by five
words of the name in small letters. The base rate is 9.65e-6.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "deepspeedai/DeepSpeedExamples"
SOURCE = "applications/DeepSpeed-Chat/dschat/utils/utils.py, get_optimizer_grouped_parameters"
FAMILY = "language"
THREAD = "deepspeedai/DeepSpeedExamples#755"
FAULT = (
    "The list of words was `bias` and `LayerNorm.weight`, as BERT calls them: the norms of OPT, "
    "Llama and Bloom decayed. `plan.diff` says what the change of the rule changed."
)


def model():
    """A layer of OPT with LoRA."""
    return tree(
        {
            "decoder.embed_tokens": nn.Embedding(7, 4),
            "decoder.layers.0.self_attn.q_proj.weight": nn.Parameter(torch.zeros(4, 4)),
            "decoder.layers.0.self_attn.q_proj.bias": nn.Parameter(torch.zeros(4)),
            "decoder.layers.0.self_attn.q_proj.lora_right_weight": nn.Parameter(torch.zeros(4, 2)),
            "decoder.layers.0.self_attn.q_proj.lora_left_weight": nn.Parameter(torch.zeros(2, 4)),
            "decoder.layers.0.final_layer_norm": nn.LayerNorm(4),
        }
    )


def by_hand(net):
    """Three groups by words in the name."""
    words = ["bias", "layer_norm.weight", "layernorm.weight", "norm.weight", "ln_f.weight"]
    decay, lora, others = [], [], []
    for name, p in net.named_parameters():
        exempt = any(word in name.lower() for word in words)
        is_lora = "lora_right_weight" in name or "lora_left_weight" in name
        (others if exempt else lora if is_lora else decay).append(p)
    return [
        {"params": decay, "lr": 9.65e-6, "weight_decay": 0.1},
        {"params": lora, "lr": 5e-4, "weight_decay": 0.1},
        {"params": others, "lr": 9.65e-6, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """Our own rule, and the rate of LoRA."""
    lora = nnlr.rule("*.lora_*_weight", lr=5e-4)
    return nnlr.resolve(net, nnlr.no_weight_decay() * lora, lr=9.65e-6, weight_decay=0.1)


def shown():
    """From the older list to the newer one."""
    net = model()
    older = nnlr.no_weight_decay("bert_legacy") * nnlr.rule("*.lora_*_weight", lr=5e-4)
    return str(nnlr.resolve(net, older, lr=9.65e-6, weight_decay=0.1).diff(with_nnlr(net)))
