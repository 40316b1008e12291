"""Flair: the decoder faster than the embeddings.

With `decoder_learning_rate`, here 5e-4, whatever has no `embeddings` in its name learns with it,
the rest, the fine-tuned transformer, with `learning_rate` (5e-5). AdamW's default decay of 0.01
reaches everything.
"""

from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "flairNLP/flair"
SOURCE = "flair/trainers/trainer.py, ModelTrainer.train_custom"
FAMILY = "language"


def model():
    """A transformer as embeddings, an LSTM and a decoder."""
    return tree(
        {
            "embeddings.model.layer.0": nn.Linear(4, 4),
            "embeddings.model.LayerNorm": nn.LayerNorm(4),
            "rnn": nn.LSTM(4, 4),
            "linear": nn.Linear(4, 3),
        }
    )


def by_hand(net):
    """Two groups by a word in the name."""
    decoder = [p for name, p in net.named_parameters() if "embeddings" not in name]
    embeddings = [p for name, p in net.named_parameters() if "embeddings" in name]
    return [
        {"params": decoder, "lr": 5e-4, "weight_decay": 0.01},
        {"params": embeddings, "lr": 5e-5, "weight_decay": 0.01},
    ]


def with_nnlr(net):
    """All but the embeddings."""
    decoder = nnlr.rule(~nnlr.glob("embeddings.*"), lr_mult=10)
    return nnlr.resolve(net, decoder, lr=5e-5, weight_decay=0.01)
