"""DeepFM of DeepCTR-Torch: a penalty on the embeddings and the linear part, none on the deep one.

1e-5 times the sum of squares of all embeddings and of the linear model is added to the loss,
nothing of the deep network. The gradient of that is what Adam, whose decay is part of the gradient,
makes of a decay of 2e-5; the rate is Adam's 0.001.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "shenweichen/DeepCTR-Torch"
SOURCE = "deepctr_torch/models/basemodel.py and deepfm.py, add_regularization_weight"
FAMILY = "fields"


def model():
    """One feature to look up, one dense one."""
    return tree(
        {
            "embedding_dict.C1": nn.Embedding(5, 2),
            "linear_model.embedding_dict.C1": nn.Embedding(5, 1),
            "linear_model.weight": nn.Parameter(torch.zeros(1, 1)),
            "dnn.linears.0": nn.Linear(3, 4),
            "dnn_linear": nn.Linear(4, 1, bias=False),
            "out.bias": nn.Parameter(torch.zeros(1)),
        }
    )


def by_hand(net):
    """The penalties as decay: what is in no list of the function has none."""
    penalized = [*net.embedding_dict.parameters(), *net.linear_model.parameters()]
    ids = {id(p) for p in penalized}
    rest = [p for p in net.parameters() if id(p) not in ids]
    return [
        {"params": penalized, "lr": 1e-3, "weight_decay": 2 * 1e-5},
        {"params": rest, "lr": 1e-3, "weight_decay": 0},
    ]


def with_nnlr(net):
    """What has no penalty."""
    deep = nnlr.rule(nnlr.glob("dnn*") | "out.*", wd_mult=0)
    return nnlr.resolve(net, deep, lr=1e-3, weight_decay=2 * 1e-5)


THREAD = "shenweichen/DeepCTR-Torch#131"
FAULT = (
    "Up to version 0.2.1 the penalty was computed once, of the initial weights: a constant "
    "without a gradient, so nothing decayed. `nnlr.check` makes an error of an optimizer that "
    "does not decay where its plan does."
)


def shown():
    """The check of the optimizer that trained these versions."""
    net = model()
    return str(nnlr.check(with_nnlr(net), torch.optim.Adam(net.parameters(), lr=1e-3)))
