"""OpenFlamingo: decay in the gated cross-attention only.

Of what is trained, the parameters with `gated_cross_attn_layer` in their name decay by 0.1, but for
the gates, norms and biases in it; the perceiver and the embeddings do not. All learn with 1e-4.
The vision encoder and the language model are frozen.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "mlfoundations/open_flamingo"
SOURCE = "open_flamingo/train/train.py, get_grouped_params"
FAMILY = "multimodal"


def model():
    """A frozen language block, its gated cross-attention, and the perceiver."""
    gated = "lang_encoder.blocks.0.gated_cross_attn_layer"
    net = tree(
        {
            "vision_encoder.conv1": nn.Conv2d(3, 4, 2),
            "perceiver.latents": nn.Parameter(torch.zeros(2, 4)),
            "perceiver.layers.0.to_q": nn.Linear(4, 4, bias=False),
            f"{gated}.attn.norm": nn.LayerNorm(4),
            f"{gated}.attn.to_q": nn.Linear(4, 4, bias=False),
            f"{gated}.attn_gate": nn.Parameter(torch.zeros(1)),
            f"{gated}.ff_gate": nn.Parameter(torch.zeros(1)),
            "lang_encoder.blocks.0.decoder_layer": nn.Linear(4, 4),
        }
    )
    for part in (net.vision_encoder, net.lang_encoder.blocks.get_submodule("0").decoder_layer):
        part.requires_grad_(False)
    return net


def by_hand(net):
    """Two groups: what decays is listed."""
    words = ("ff_gate", "attn_gate", "norm", "bias")
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    inside = {name for name, _ in named if "gated_cross_attn_layer" in name}
    decays = {name for name in inside if not any(word in name for word in words)}
    return [
        {"params": [p for name, p in named if name in decays], "lr": 1e-4, "weight_decay": 0.1},
        {"params": [p for name, p in named if name not in decays], "lr": 1e-4, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """Our own rule there, none elsewhere."""
    elsewhere = nnlr.rule(~nnlr.glob("*gated_cross_attn_layer*"), wd_mult=0)
    return nnlr.resolve(net, elsewhere * nnlr.no_weight_decay(), lr=1e-4, weight_decay=0.1)
