"""DeepSpeed Muon: by the number of axes and two words, with a rate for each half.

A parameter goes to Muon if it has two axes or more and neither `embed` nor `lm_head` in its name,
to Adam otherwise. The configuration's `muon_lr` (0.02 in the thread below) and `adam_lr` (1e-5)
overrule its `lr`; both halves decay by 0.01.
"""

from functools import partial

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "deepspeedai/DeepSpeed"
SOURCE = "deepspeed/runtime/engine.py, _configure_basic_optimizer"
FAMILY = "algorithms"


def model():
    """A decoder with one layer."""
    return tree(
        {
            "model.embed_tokens": nn.Embedding(12, 8),
            "model.layers.0.input_layernorm": nn.RMSNorm(8),
            "model.layers.0.self_attn.q_proj": nn.Linear(8, 8),
            "lm_head": nn.Linear(8, 12, bias=False),
        }
    )


def by_hand(net):
    """A mark on each parameter, and a group for each mark."""
    muon, adam = [], []
    for name, p in net.named_parameters():
        matrix = p.ndim >= 2 and not any(word in name.lower() for word in ("embed", "lm_head"))
        (muon if matrix else adam).append(p)
    return [
        {"params": muon, "lr": 2e-2, "weight_decay": 0.01, "algorithm": "muon"},
        {"params": adam, "lr": 1e-5, "weight_decay": 0.01, "algorithm": "adam"},
    ]


def with_nnlr(net):
    """The same two words; `nnlr.route("muon", "adam")` would do without them."""
    other = nnlr.rule(nnlr.ndim(max=1) | "*embed*" | "*lm_head*", algorithm="adam")
    who = nnlr.rules([other, nnlr.rule("*", algorithm="muon")])
    return nnlr.resolve(net, who, lr={"muon": 2e-2, "adam": 1e-5}, weight_decay=0.01)


THREAD = "deepspeedai/DeepSpeed#7713"
FAULT = (
    "The two rates were gone after the first step: the WarmupLR of the configuration writes its "
    "one `warmup_max_lr` into both groups. `nnlr.check` reads the configuration, and makes an "
    "error of it."
)


def shown():
    """The check of the optimizer with the scheduler of the thread."""
    net = model()
    plan = with_nnlr(net)
    adam = partial(torch.optim.AdamW, betas=(0.9, 0.95))
    optimizer = plan.optimizer({"muon": torch.optim.Muon, "adam": adam})
    warmup = {"warmup_min_lr": 0, "warmup_max_lr": 1e-3, "warmup_num_steps": 4}
    config = {"scheduler": {"type": "WarmupLR", "params": warmup}}
    return str(nnlr.check(plan, optimizer, deepspeed=config))
