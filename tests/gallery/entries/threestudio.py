"""threestudio: a table of modules and rates in YAML; what it does not list is not trained.

For ProlificDreamer the hash grid learns with 0.01, the small networks behind it and the background
with 0.001, and the adapter of the guiding diffusion model with 1e-4. All decay by AdamW's 0.01.
"""

import torch
from torch import nn

import nnlr
from tests.gallery.tree import tree

REPOSITORY = "threestudio-project/threestudio"
SOURCE = "threestudio/systems/utils.py, parse_optimizer, and configs/prolificdreamer.yaml"
FAMILY = "fields"


def model():
    """A grid, three small networks and an adapter."""
    return tree(
        {
            "geometry.encoding.encoding.params": nn.Parameter(torch.zeros(8)),
            "geometry.density_network.layers.0": nn.Linear(2, 2, bias=False),
            "geometry.feature_network.layers.0": nn.Linear(2, 2, bias=False),
            "background.network.layers.0": nn.Linear(2, 2, bias=False),
            "guidance.camera_embedding.linear_1": nn.Linear(2, 2),
            "guidance.lora_layers.layers.0.down": nn.Linear(2, 2, bias=False),
        }
    )


def by_hand(net):
    """A group for each line of the table."""
    table = {
        "geometry.encoding": 0.01,
        "geometry.density_network": 0.001,
        "geometry.feature_network": 0.001,
        "background": 0.001,
        "guidance": 0.0001,
    }
    return [
        {"params": list(net.get_submodule(part).parameters()), "lr": lr, "weight_decay": 0.01}
        for part, lr in table.items()
    ]


def with_nnlr(net):
    """What differs from 0.001. A part that no rule names is trained."""
    scheme = nnlr.rule("geometry.encoding.*", lr_mult=10) * nnlr.rule("guidance.*", lr_mult=0.1)
    return nnlr.resolve(net, scheme, lr=1e-3, weight_decay=0.01)
