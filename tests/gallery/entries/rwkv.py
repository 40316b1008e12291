"""RWKV: the decay of the recurrence learns twice as fast.

With `layerwise_lr` on, `time_decay` learns with twice `lr_init` (6e-4). The other `time_` tensors,
low-rank ones too, learn with the base rate; none of them decays, and neither do vectors.
The other matrices decay by 0.001. Groups carry the factor as `my_lr_scale`, which the callback of
the repository multiplies in at each step, and no other scheduler.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "BlinkDL/RWKV-LM"
SOURCE = "RWKV-v5/src/model.py, RWKV.configure_optimizers"
FAMILY = "language"


def model():
    """One block of RWKV-6."""
    return tree(
        {
            "emb": nn.Embedding(7, 4),
            "blocks.0.ln1": nn.LayerNorm(4),
            "blocks.0.att.time_maa_x": nn.Parameter(torch.zeros(1, 1, 4)),
            "blocks.0.att.time_maa_w1": nn.Parameter(torch.zeros(4, 2)),
            "blocks.0.att.time_decay": nn.Parameter(torch.zeros(1, 1, 4)),
            "blocks.0.att.time_decay_w1": nn.Parameter(torch.zeros(4, 2)),
            "blocks.0.att.time_faaaa": nn.Parameter(torch.zeros(2, 2)),
            "blocks.0.att.receptance": nn.Linear(4, 4, bias=False),
            "blocks.0.ffn.key": nn.Linear(4, 8, bias=False),
            "head": nn.Linear(4, 7, bias=False),
        }
    )


def by_hand(net):
    """Three groups by names, then axes."""
    once, twice, decay = [], [], []
    for name, p in net.named_parameters():
        if "_w1" in name or "_w2" in name or "time_maa" in name or "time_faaaa" in name:
            once.append(p)
        elif "time_decay" in name:
            twice.append(p)
        else:
            (decay if p.squeeze().dim() >= 2 else once).append(p)
    return [
        {"params": once, "lr": 6e-4, "weight_decay": 0.0},
        {"params": twice, "lr": 2 * 6e-4, "weight_decay": 0.0},
        {"params": decay, "lr": 6e-4, "weight_decay": 0.001},
    ]


def with_nnlr(net):
    """One rule for the rate, one for the decay."""
    undecayed = nnlr.rule(nnlr.ndim(max=1) | "*.time_*", wd_mult=0)
    twice = nnlr.rule("*.time_decay", lr_mult=2)
    return nnlr.resolve(net, undecayed * twice, lr=6e-4, weight_decay=0.001)
