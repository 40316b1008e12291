"""ESPnet with S4 layers: what parameters ask for themselves.

`configure_optimizer` reads two marks on parameters: `_no_weight_decay`, and `_optim`, a dictionary
of settings, by which S4 asks for a rate of 0.001 and no decay. Biases, norms and embeddings get
no decay either. The base settings, here 0.0025 and a decay of 0.01, count for the rest.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "espnet/espnet"
SOURCE = "espnet2/optimizers/optim_groups.py, configure_optimizer"
FAMILY = "speech"
THREAD = "state-spaces/mamba#798"
FAULT = (
    "A question: who reads the mark `_no_weight_decay` that Mamba sets on `A_log` and `D`? torch "
    "does not, and the file that Mamba's comment names is in another repository. nnlr's own rule "
    "reads both marks, and where `_optim` asks for more than no decay, a note says so."
)


def model():
    """An S4 layer in a decoder."""
    net = tree(
        {
            "decoder.embed": nn.Embedding(7, 4),
            "decoder.layers.0.norm": nn.LayerNorm(4),
            "decoder.layers.0.s4.log_dt": nn.Parameter(torch.zeros(4, 1)),
            "decoder.layers.0.s4.C": nn.Parameter(torch.zeros(4, 4, 2)),
            "decoder.layers.0.s4.output_linear": nn.Linear(4, 4),
        }
    )
    s4 = net.decoder.layers.get_submodule("0.s4")
    s4.log_dt._optim = {"lr": 0.001, "weight_decay": 0.0}
    s4.C._no_weight_decay = True
    return net


def by_hand(net):
    """The base settings, and what is asked for."""
    asked = {p: getattr(p, "_optim", {}) for p in net.parameters()}
    for module in net.modules():
        free = isinstance(module, nn.Embedding | nn.LayerNorm)
        for name, p in module.named_parameters():
            if free or name.endswith("bias") or getattr(p, "_no_weight_decay", False):
                asked[p] = {"weight_decay": 0.0}
    base = {"lr": 0.0025, "weight_decay": 0.01}
    return [{"params": [p], **base, **settings} for p, settings in asked.items()]


def with_nnlr(net):
    """Marks are read; the rate that one asks for is a rule."""
    no_decay = nnlr.no_weight_decay(embeddings=True)
    asked = nnlr.rule("*.log_dt", lr=0.001)
    return nnlr.resolve(net, no_decay * asked, lr=0.0025, weight_decay=0.01)


def shown():
    """The plan without the rule."""
    plan = nnlr.resolve(model(), nnlr.no_weight_decay(), lr=0.0025, weight_decay=0.01)
    return f"{plan.explain('decoder.layers.0.s4.C')}\n\n{plan.findings[0]}"
