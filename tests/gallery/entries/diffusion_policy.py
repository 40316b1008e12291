"""Diffusion Policy: matrices of the transformer decay, the image encoder a thousand times less.

In the transformer, weights of linear layers and of attention decay by 0.001; biases, norms and
positions do not. Everything in the image encoder, its biases too, decays by 1e-6. All learn with
1e-4.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "real-stanford/diffusion_policy"
SOURCE = "diffusion_policy/policy/diffusion_transformer_hybrid_image_policy.py, get_optimizer"
FAMILY = "fields"


def model():
    """A decoder layer, positions, and an encoder of images."""
    return tree(
        {
            "obs_encoder.conv": nn.Conv2d(3, 2, 1),
            "obs_encoder.norm": nn.GroupNorm(1, 2),
            "model.input_emb": nn.Linear(2, 4),
            "model.pos_emb": nn.Parameter(torch.zeros(1, 3, 4)),
            "model.cond_pos_emb": nn.Parameter(torch.zeros(1, 2, 4)),
            "model.decoder.layers.0": nn.TransformerDecoderLayer(4, 1, 4),
            "model.ln_f": nn.LayerNorm(4),
            "model.head": nn.Linear(4, 2),
        }
    )


def by_hand(net):
    """Types of modules and ends of names, as in minGPT; positions by their names."""
    decay, no_decay = set(), {"pos_emb", "cond_pos_emb"}
    for path, module in net.model.named_modules():
        for name, _ in module.named_parameters():
            full = f"{path}.{name}" if path else name
            if name.endswith("bias") or isinstance(module, nn.LayerNorm):
                no_decay.add(full)
            elif name.endswith("weight") and isinstance(module, nn.Linear | nn.MultiheadAttention):
                decay.add(full)
    named = dict(net.model.named_parameters())
    assert named.keys() == decay | no_decay
    assert not decay & no_decay
    return [
        {"params": [named[name] for name in sorted(decay)], "lr": 1e-4, "weight_decay": 1e-3},
        {"params": [named[name] for name in sorted(no_decay)], "lr": 1e-4, "weight_decay": 0.0},
        {"params": list(net.obs_encoder.parameters()), "lr": 1e-4, "weight_decay": 1e-6},
    ]


def with_nnlr(net):
    """The default rule inside of one part, a factor for the other."""
    scheme = nnlr.no_weight_decay().within("model") * nnlr.rule("obs_encoder.*", wd_mult=1e-3)
    return nnlr.resolve(net, scheme, lr=1e-4, weight_decay=1e-3)
