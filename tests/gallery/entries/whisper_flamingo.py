"""Whisper-Flamingo: the new cross-attention to the video only.

The optimizer gets the parameters with `gated_x_attn`, `attn_gate` or `ff` in their name, with a
rate of 1e-4 and a decay of 0.01 for all of them, gates and norms too. Nothing
switches off the gradients of the rest of Whisper.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "roudimit/whisper-flamingo"
SOURCE = "utils.py, whisper_flamingo_optimizer"
FAMILY = "speech"
THREAD = "roudimit/whisper-flamingo#12"
FAULT = (
    "A question: where is Whisper's decoder frozen? Nowhere: it is left out of the optimizer, but "
    "its gradients are computed, and add up. `nnlr.check` says so; a plan that freezes it "
    "switches them off."
)


def model():
    """A decoder block of Whisper with its gated layers."""
    return tree(
        {
            "decoder.token_embedding": nn.Embedding(7, 4),
            "decoder.blocks.0.gated_x_attn.query": nn.Linear(4, 4),
            "decoder.blocks.0.gated_x_attn_ln": nn.LayerNorm(4),
            "decoder.blocks.0.attn_gate": nn.Parameter(torch.zeros(1)),
            "decoder.blocks.0.ff": nn.Linear(4, 4),
            "decoder.blocks.0.ff_gate": nn.Parameter(torch.zeros(1)),
            "decoder.blocks.0.attn.query": nn.Linear(4, 4),
        }
    )


def by_hand(net):
    """One group by words in the name."""
    words = ["gated_x_attn", "attn_gate", "ff"]
    trained = [p for name, p in net.named_parameters() if any(word in name for word in words)]
    return [{"params": trained, "lr": 1e-4, "weight_decay": 0.01}]


def with_nnlr(net):
    """All but the new layers is frozen."""
    new = nnlr.glob("*.gated_x_attn*") | "*.attn_gate" | "*.ff*"
    return nnlr.resolve(net, nnlr.freeze(~new), lr=1e-4, weight_decay=0.01)


def shown():
    """The optimizer as the function makes it, without decay."""
    net = model()
    optimizer = torch.optim.AdamW(by_hand(net)[0]["params"], lr=1e-4, weight_decay=0)
    return str(nnlr.check(net, optimizer))
