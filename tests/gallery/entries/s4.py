"""S4: the state matrices and step sizes slower and without decay, by a mark on the tensors.

A layer writes `_optim = {"lr": 0.001, "weight_decay": 0}` onto its `log_dt`, `log_A_real` and
`A_imag`, and the optimizer makes a group for each such mark. Everything else learns with 0.01 and
decays by 0.01, norms and biases too. A copy of the model has no marks, as torch does not copy
attributes of parameters; rules by name do not need them.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "state-spaces/s4"
SOURCE = "example.py, setup_optimizer, and models/s4/s4d.py"
FAMILY = "fields"


def model():
    """One diagonal layer, with its marks."""
    net = tree(
        {
            "encoder": nn.Linear(1, 2),
            "s4_layers.0.D": nn.Parameter(torch.zeros(2)),
            "s4_layers.0.kernel.C": nn.Parameter(torch.zeros(2, 2, 2)),
            "s4_layers.0.kernel.log_dt": nn.Parameter(torch.zeros(2)),
            "s4_layers.0.kernel.log_A_real": nn.Parameter(torch.zeros(2, 2)),
            "s4_layers.0.kernel.A_imag": nn.Parameter(torch.zeros(2, 2)),
            "s4_layers.0.output_linear.0": nn.Conv1d(2, 4, 1),
            "norms.0": nn.LayerNorm(2),
            "decoder": nn.Linear(2, 3),
        }
    )
    for name, p in net.named_parameters():
        if name.endswith(("log_dt", "log_A_real", "A_imag")):
            p._optim = {"weight_decay": 0.0, "lr": 0.001}
    return net


def by_hand(net):
    """One group, and one more for each distinct mark."""
    groups = [{"params": [], "lr": 0.01, "weight_decay": 0.01}]
    for p in net.parameters():
        if not hasattr(p, "_optim"):
            groups[0]["params"].append(p)
    marks = {tuple(sorted(p._optim.items())) for p in net.parameters() if hasattr(p, "_optim")}
    for mark in sorted(marks):
        marked = [p for p in net.parameters() if getattr(p, "_optim", None) == dict(mark)]
        groups.append({"params": marked, **dict(mark)})
    return groups


def with_nnlr(net):
    """The same three by name."""
    states = nnlr.regex(r".*\.kernel\.(log_dt|log_A_real|A_imag)")
    return nnlr.resolve(net, nnlr.rule(states, lr=0.001, wd_mult=0), lr=0.01, weight_decay=0.01)
