"""GaLore: linear layers of attention and MLP with a projection, at one rate for all.

Weights of `nn.Linear` whose path has `attn` or `mlp` in it form a group with four settings of the
projection (rank 128, renewed each 50 steps, scale 1, type `std`). All learn with 1e-4, without
decay.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "jiaweizzhao/GaLore"
SOURCE = "torchrun_main.py, main"
FAMILY = "algorithms"


def model():
    """A LLaMA with one layer."""
    return tree(
        {
            "model.embed_tokens": nn.Embedding(6, 4),
            "model.layers.0.self_attn.q_proj": nn.Linear(4, 4, bias=False),
            "model.layers.0.self_attn.q_norm": nn.RMSNorm(4),
            "model.layers.0.mlp.up_proj": nn.Linear(4, 8, bias=False),
            "model.layers.0.input_layernorm": nn.RMSNorm(4),
            "lm_head": nn.Linear(4, 6, bias=False),
        }
    )


def by_hand(net):
    """Modules by type and path, then all other parameters by identity."""
    projected = [
        module.weight
        for path, module in net.named_modules()
        if isinstance(module, nn.Linear) and ("attn" in path or "mlp" in path)
    ]
    ids = {id(p) for p in projected}
    rest = [p for p in net.parameters() if id(p) not in ids]
    settings = {"rank": 128, "update_proj_gap": 50, "scale": 1.0, "proj_type": "std"}
    return [
        {"params": rest, "lr": 1e-4, "weight_decay": 0},
        {"params": projected, "lr": 1e-4, "weight_decay": 0, **settings},
    ]


def with_nnlr(net):
    """A selector of types and names, and options."""
    layers = nnlr.module_type("Linear") & (nnlr.glob("*attn*weight") | "*mlp*weight")
    low = {"rank": 128, "update_proj_gap": 50, "scale": 1.0, "proj_type": "std"}
    return nnlr.resolve(net, nnlr.rule(layers, options=low), lr=1e-4, weight_decay=0)
