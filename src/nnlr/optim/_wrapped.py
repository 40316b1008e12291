"""The optimizer inside a trainer's wrapper."""

from typing import Final

from torch.optim import Optimizer

# Attributes in which wrappers hold it: Accelerate's and DeepSpeed's, Lightning's.
_INNER: Final = ("optimizer", "_optimizer")


def unwrapped(optimizer: object) -> object:
    """The optimizer inside a trainer's wrapper; itself if it is none."""
    while True:
        # Not getattr: Lightning's wrapper forwards what it does not have.
        attributes = vars(optimizer) if hasattr(optimizer, "__dict__") else {}
        inner = next((attributes[name] for name in _INNER if name in attributes), None)
        if not isinstance(inner, Optimizer):
            return optimizer
        optimizer = inner
