"""Small models by the names of their parts."""

import torch
from torch import nn


def tree(parts):
    """A model of modules, parameters, and zero parameters of a shape, each at its dotted name."""
    root = nn.Module()
    for name, part in parts.items():
        *path, last = name.split(".")
        owner = root
        for step in path:
            if step not in owner._modules:
                owner.add_module(step, nn.Module())
            owner = owner._modules[step]
        setattr(owner, last, nn.Parameter(torch.zeros(part)) if isinstance(part, tuple) else part)
    return root
