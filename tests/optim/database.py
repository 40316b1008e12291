"""Torch's own database of optimizer inputs, for the three classes."""

import warnings
from unittest.mock import patch

import pytest
import torch

from tests.optim.twins import NAMES

# On import torch's test modules warn, and forbid everybody to set flags of backends.
with warnings.catch_warnings(), patch.object(torch.backends, "disable_global_flags"):
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

__all__ = ["ALL", "INFOS", "OptimizerErrorEnum", "inputs"]

ALL = {info.optim_cls.__name__: info for info in optim_db}
INFOS = {name: info for name, info in ALL.items() if name in NAMES}


def inputs(dtype=torch.float32, device="cpu", infos=INFOS):
    """Every input that the database has for the three classes, or for others."""
    return [
        pytest.param(name, each.kwargs, id=f"{name}-{each.desc}".replace(" ", "_"))
        for name, info in infos.items()
        for each in info.optim_inputs_func(device=device, dtype=dtype)
    ]
