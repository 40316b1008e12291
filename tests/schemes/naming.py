"""Models that are nothing but names: what an indexer reads, without the weights."""

import torch
from torch import nn


def module_of(names):
    """A module with one small parameter under each of these dotted names, in order."""
    root = nn.Module()
    for name in names:
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        module.register_parameter(leaf, nn.Parameter(torch.zeros(1)))
    return root


class Holder(nn.Module):
    """A model inside another one, as a trainer's module holds it."""

    def __init__(self, model, **others):
        super().__init__()
        self.model = model
        for name, module in others.items():
            self.add_module(name, module)
