"""Lets torchvision's CUDA build be imported beside a CPU build of torch.

torchvision describes operators of its own C++ library to torch when it is imported. That
library does not load without CUDA, and torch refuses to describe what it does not know. timm
and mup import torchvision and use none of these operators, so the descriptions may be skipped.
"""

import torch

_register_fake = torch.library.register_fake


def _skip_torchvision(op, *args, **kwargs):
    if isinstance(op, str) and op.startswith("torchvision::"):
        return lambda function: function
    return _register_fake(op, *args, **kwargs)


torch.library.register_fake = _skip_torchvision
