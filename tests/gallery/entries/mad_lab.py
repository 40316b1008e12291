"""MAD: no decay where a layer asks for none, and by two words.

Parameters that Mamba marks with `_no_weight_decay` (`A_log`, `D`) and those with `bias` or `norm`
in their name do not decay; the rest does by 0.1, one of the two values of the benchmark. All learn
with 5e-4.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "athms/mad-lab"
SOURCE = "mad/model/pl_model_wrapper.py, PLModelWrap.configure_optimizers"
FAMILY = "fields"


def model():
    """A Mamba layer between embedding and head."""
    net = tree(
        {
            "token_embeds": nn.Embedding(6, 4),
            "model.0.norm": nn.LayerNorm(4),
            "model.0.layer.A_log": nn.Parameter(torch.zeros(4, 2)),
            "model.0.layer.D": nn.Parameter(torch.ones(4)),
            "model.0.layer.in_proj": nn.Linear(4, 8, bias=False),
            "model.0.layer.dt_proj": nn.Linear(1, 4),
            "unembed.norm": nn.LayerNorm(4),
            "unembed.lm_head": nn.Linear(4, 6),
        }
    )
    for name, p in net.named_parameters():
        if name.endswith(("A_log", ".D")):
            p._no_weight_decay = True
    return net


def by_hand(net):
    """Two groups."""
    decay, no_decay = [], []
    for name, p in net.named_parameters():
        free = getattr(p, "_no_weight_decay", False) or "bias" in name or "norm" in name
        (no_decay if free else decay).append(p)
    return [
        {"params": decay, "lr": 5e-4, "weight_decay": 0.1},
        {"params": no_decay, "lr": 5e-4, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """It knows roles, and reads the marks."""
    return nnlr.resolve(net, nnlr.no_weight_decay(), lr=5e-4, weight_decay=0.1)


THREAD = "athms/mad-lab#5"
FAULT = (
    "In the repository everything decays, says the thread: nothing reads the marks of Mamba. The "
    "function above is that of the pull request that mends it; both were open in autumn 2026. The "
    "difference of the two plans says what it changes."
)


def shown():
    """From a plan without the scheme to the one with it."""
    net = model()
    return str(nnlr.resolve(net, lr=5e-4, weight_decay=0.1).diff(with_nnlr(net)))
