"""The learning rate and weight decay of every element, as two vectors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nnlr._apply.locate import Located
from nnlr._text import listed
from nnlr.errors import NnlrError


def vectors(located: Sequence[Located]) -> tuple[Tensor, Tensor]:
    """Return learning rate and weight decay of every element of the flattened parameters."""
    devices = {param.tensor.device for param in located}
    if len(devices) > 1:
        raise NnlrError(
            f"The parameters are on several devices ({listed(sorted(map(str, devices)))}), so "
            "one vector cannot line up with them.",
            devices=devices,
        )
    device = next(iter(devices), None)
    counts = torch.tensor([param.row.numel for param in located], dtype=torch.long)
    rates = [
        (param.row.lr, param.row.weight_decay) if param.row.trainable else (0.0, 0.0)
        for param in located
    ]
    table = torch.tensor(rates, dtype=torch.get_default_dtype()).reshape(-1, 2)
    lrs, decays = table.repeat_interleave(counts, dim=0).unbind(dim=1)
    return lrs.contiguous().to(device), decays.contiguous().to(device)
