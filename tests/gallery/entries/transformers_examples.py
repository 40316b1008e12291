"""transformers, example scripts: two words of a name, for any model.

Until February 2026, when they took over the rule of the `Trainer`, the scripts without it decayed
every parameter but those whose name holds `bias` or `layer_norm.weight`. The model is whatever the
user names on the command line; here GPT-2, with `--learning_rate 5e-5` and `--weight_decay 0.1`.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "huggingface/transformers"
SOURCE = "examples/pytorch/language-modeling/run_clm_no_trainer.py, main"
FAMILY = "language"
THREAD = "huggingface/transformers#42754"
FAULT = (
    "The norms of most language models have other names (`ln_1`, `input_layernorm`), and decay "
    "without a word. Of a part of a selector that matches nothing, the plan says so; "
    "`no_weight_decay()` finds norms of every kind."
)


def model():
    """One block of GPT-2."""
    return tree(
        {
            "transformer.wte": nn.Embedding(7, 4),
            "transformer.h.0.ln_1": nn.LayerNorm(4),
            "transformer.h.0.attn.c_attn": nn.Linear(4, 12),
            "transformer.ln_f": nn.LayerNorm(4),
        }
    )


def by_hand(net):
    """Two groups by words in the name."""
    words = ["bias", "layer_norm.weight"]
    named = list(net.named_parameters())
    decay = [p for name, p in named if not any(word in name for word in words)]
    others = [p for name, p in named if any(word in name for word in words)]
    return [
        {"params": decay, "lr": 5e-5, "weight_decay": 0.1},
        {"params": others, "lr": 5e-5, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """The same words, to the letter."""
    words = nnlr.glob("*bias*") | "*layer_norm.weight*"
    return nnlr.resolve(net, nnlr.rule(words, wd_mult=0), lr=5e-5, weight_decay=0.1)


def shown():
    """What is found in the plan."""
    net = model()
    return str(nnlr.check(with_nnlr(net)))
