"""MT-DNN: no decay for biases and the norms of a BERT.

Two groups by words in the name, `bias`, `gamma`, `beta`, `LayerNorm.bias` and `LayerNorm.weight`:
these do not decay, all else by 0.01. One rate for all, 5e-5.
"""

from torch import nn

import nnlr
from tests.gallery.entries._error import error_of
from tests.gallery.tree import tree

REPOSITORY = "namisan/mt-dnn"
SOURCE = "mt_dnn/model.py, MTDNNModel._get_param_groups"
FAMILY = "language"
THREAD = "namisan/mt-dnn#37"
FAULT = (
    "The function asked whether the whole name is in the list (`n not in no_decay`) instead of "
    "whether a word of the list is in the name: the group without decay was all but empty. In "
    "nnlr a pattern that matches nothing is an error, with the nearest that would."
)


def model():
    """A layer of BERT and the scoring heads of two tasks."""
    return tree(
        {
            "bert.embeddings.word_embeddings": nn.Embedding(7, 4),
            "bert.encoder.layer.0.output.dense": nn.Linear(4, 4),
            "bert.encoder.layer.0.output.LayerNorm": nn.LayerNorm(4),
            "scoring_list.0": nn.Linear(4, 2),
            "scoring_list.1": nn.Linear(4, 3),
        }
    )


def by_hand(net):
    """Two groups by words in the name."""
    words = ["bias", "gamma", "beta", "LayerNorm.bias", "LayerNorm.weight"]
    named = list(net.named_parameters())
    decay = [p for name, p in named if not any(word in name for word in words)]
    others = [p for name, p in named if any(word in name for word in words)]
    return [
        {"params": decay, "lr": 5e-5, "weight_decay": 0.01},
        {"params": others, "lr": 5e-5, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """The preset of BERT's scripts."""
    return nnlr.resolve(net, nnlr.no_weight_decay("bert_legacy"), lr=5e-5, weight_decay=0.01)


def shown():
    """The first version's test of whole names."""
    whole_name = nnlr.rule("LayerNorm.weight", wd_mult=0)
    return error_of(nnlr.resolve, model(), whole_name, lr=5e-5, weight_decay=0.01)
