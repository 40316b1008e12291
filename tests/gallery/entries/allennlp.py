"""AllenNLP: ULMFiT's rates over groups given as patterns.

`parameter_groups` are lists of regular expressions, from the input to the output; what none of
them matches is a last, default group. `SlantedTriangular` gives each group 0.38 of the rate of the
group above it, and the top one all of it, here 0.01.
"""

from torch import nn

import nnlr
from tests.gallery.entries._error import error_of
from tests.gallery.tree import tree

REPOSITORY = "allenai/allennlp"
SOURCE = "allennlp/training/optimizers.py, make_parameter_groups; slanted_triangular.py"
FAMILY = "language"
THREAD = "allenai/allennlp#2159"
FAULT = (
    "All that a user is told of parameters that no pattern matches is `The default group should "
    "be empty.`, and without gradual unfreezing these silently get the highest rate. nnlr names "
    "them."
)


def model():
    """Embeddings, an encoder, an integrator and a classifier."""
    return tree(
        {
            "text_field_embedder": nn.Embedding(7, 4),
            "encoder": nn.LSTM(4, 4),
            "integrator": nn.LSTM(4, 4),
            "output_layer": nn.Linear(4, 2),
        }
    )


def by_hand(net):
    """A group for each list of patterns."""
    groups = [("text_field_embedder",), ("encoder", "integrator"), ("output_layer",)]
    return [
        {
            "params": [p for name, p in net.named_parameters() if name.startswith(words)],
            "lr": 0.01 * 0.38 ** (len(groups) - 1 - at),
            "weight_decay": 0.0,
        }
        for at, words in enumerate(groups)
    ]


def with_nnlr(net):
    """The scheme of that paper."""
    groups = ["text_field_embedder.*", nnlr.glob("encoder.*") | "integrator.*", "output_layer.*"]
    return nnlr.resolve(net, nnlr.discriminative(1 / 0.38, groups), lr=0.01, weight_decay=0)


def shown():
    """Patterns that leave the integrator over."""
    groups = ["text_field_embedder.*", "encoder.*", "output_layer.*"]
    scheme = nnlr.discriminative(1 / 0.38, groups)
    return error_of(nnlr.resolve, model(), scheme, lr=0.01, weight_decay=0)
