"""transformers, example scripts: two lists of words, for any model.

The scripts without a `Trainer` decay every parameter but those whose name holds `bias` or
`layer_norm.weight`. The model is whatever the user names on the command line; here GPT-2, with
`--learning_rate 5e-5` and `--weight_decay 0.1`.
"""

from torch import nn

import nnlr
from tests.gallery.entries._tree import tree

REPOSITORY = "huggingface/transformers"
SOURCE = "examples/pytorch/language-modeling/run_clm_no_trainer.py, main"
FAMILY = "language"
THREAD = "huggingface/transformers#42754"
FAULT = (
<<<<<<< HEAD
    "The norms of most language models have other names (`ln_1`, `input_layernorm`), and decay "
    "without a word. In nnlr a rule for the second word alone is an error on GPT-2; "
    "`no_weight_decay()` finds norms of every kind."
=======
    "The norms of most language models have other names (`ln_1`, `input_layernorm`), so that they "
    "decay without a word. The plan says it of a word that matches nothing; `no_weight_decay()` "
    "finds norms of every kind."
>>>>>>> f49592c (Find patterns that match nothing inside combined selectors; show more kinds of findings in the gallery)
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
