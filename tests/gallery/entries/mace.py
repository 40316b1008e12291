"""MACE: five groups by the parts of the network, of which two decay.

The products decay by 5e-7, and of the interactions what ends in `linear.weight` or
`skip_tp_full.weight`. Embedding, readouts and all other parts of the interactions do not. All learn
with 0.01. (Before the change of the thread, which names eleven more parts.)
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "ACEsuit/mace"
SOURCE = "mace/tools/scripts_utils.py, get_params_options"
FAMILY = "fields"


def model():
    """One interaction, its product, and the readout."""
    return tree(
        {
            "node_embedding.linear.weight": nn.Parameter(torch.zeros(4)),
            "interactions.0.linear_up.weight": nn.Parameter(torch.zeros(4)),
            "interactions.0.conv_tp_weights.layer0.weight": nn.Parameter(torch.zeros(2, 2)),
            "interactions.0.linear.weight": nn.Parameter(torch.zeros(4)),
            "interactions.0.skip_tp_full.weight": nn.Parameter(torch.zeros(4)),
            "products.0.symmetric_contractions.weights_max": nn.Parameter(torch.zeros(2, 2, 2)),
            "products.0.linear.weight": nn.Parameter(torch.zeros(4)),
            "readouts.0.linear.weight": nn.Parameter(torch.zeros(4)),
        }
    )


def by_hand(net):
    """Two dictionaries for the interactions, three lists for the rest."""
    decay, no_decay = {}, {}
    for name, p in net.interactions.named_parameters():
        heavy = "linear.weight" in name or "skip_tp_full.weight" in name
        (decay if heavy else no_decay)[name] = p
    return [
        {"params": list(net.node_embedding.parameters()), "lr": 0.01, "weight_decay": 0.0},
        {"params": list(decay.values()), "lr": 0.01, "weight_decay": 5e-7},
        {"params": list(no_decay.values()), "lr": 0.01, "weight_decay": 0.0},
        {"params": list(net.products.parameters()), "lr": 0.01, "weight_decay": 5e-7},
        {"params": list(net.readouts.parameters()), "lr": 0.01, "weight_decay": 0.0},
    ]


def with_nnlr(net):
    """What decays; all else does not, whatever the model has."""
    inside = nnlr.glob("interactions.*linear.weight") | "interactions.*skip_tp_full.weight"
    scheme = nnlr.rule(~(inside | "products.*"), wd_mult=0)
    return nnlr.resolve(net, scheme, lr=0.01, weight_decay=5e-7)


THREAD = "ACEsuit/mace#1529"
FAULT = (
    "Parts that the function does not name, such as the charge maps of PolarMACE, were in no "
    "group and stayed as initialized in training from scratch. Since then it raises on what is "
    "left. `nnlr.check` of the whole model names such parts for any optimizer."
)


def shown():
    """The check of the optimizer, with two of the parts that the thread names."""
    net = model()
    net.lr_source_maps = nn.ModuleList([nn.Linear(2, 2, bias=False)])
    net.fukui_source_map = nn.Linear(2, 1, bias=False)
    return str(nnlr.check(net, torch.optim.Adam(by_hand(net), amsgrad=True)))
