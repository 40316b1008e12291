"""Small models with the names of large ones."""

from torch import nn


def tree(parts):
    """A model of modules and parameters at dotted names."""
    root = nn.Module()
    for path, part in parts.items():
        *above, name = path.split(".")
        node = root
        for step in above:
            if step not in node._modules:
                node.add_module(step, nn.Module())
            node = node._modules[step]
        setattr(node, name, part)
    return root
