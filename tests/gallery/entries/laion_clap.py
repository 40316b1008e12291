"""CLAP: text tower and audio tower as two optimizers, each with and without decay.

With `--split-opt` the pretrained text tower has an optimizer of its own, at `lr_pretrained`; the
audio tower is new and has `lr_new`, here 1e-5 and 1e-4 with a decay of 0.1. In each of the two,
vectors and what has `bn`, `ln`, `bias` or `logit_scale` in its name do not decay.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "LAION-AI/CLAP"
SOURCE = "src/laion_clap/training/main.py, main"
FAMILY = "speech"


def model():
    """A text transformer, an audio branch, and two temperatures."""
    return tree(
        {
            "token_embedding": nn.Embedding(7, 4),
            "positional_embedding": nn.Parameter(torch.zeros(5, 4)),
            "transformer.resblocks.0.ln_1": nn.LayerNorm(4),
            "transformer.resblocks.0.mlp": nn.Linear(4, 4),
            "ln_final": nn.LayerNorm(4),
            "audio_branch.bn0": nn.BatchNorm2d(4),
            "audio_branch.conv": nn.Conv2d(1, 4, 3),
            "audio_projection": nn.Linear(4, 4),
            "logit_scale_a": nn.Parameter(torch.zeros(())),
            "logit_scale_t": nn.Parameter(torch.zeros(())),
        }
    )


def by_hand(net):
    """Four groups by words in the name."""
    text = ("transformer", "positional_embedding", "token_embedding", "ln_final", "logit_scale_t")
    groups = []
    for name, p in net.named_parameters():
        free = p.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))
        decay = 0.0 if free else 0.1
        rate = 1e-5 if name.startswith(text) else 1e-4
        groups.append({"params": [p], "lr": rate, "weight_decay": decay})
    return groups


def with_nnlr(net):
    """The preset of open_clip's older rule, and the text tower slower."""
    text = nnlr.regex("(transformer|positional_e|token_e|ln_final|logit_scale_t).*")
    no_decay = nnlr.no_weight_decay("open_clip_legacy")
    return nnlr.resolve(net, no_decay * nnlr.rule(text, lr_mult=0.1), lr=1e-4, weight_decay=0.1)
