"""The switch for kernels that numba compiles."""

from types import ModuleType
from typing import Final

from nnlr._arguments import flag
from nnlr.errors import ConfigError, NnlrError

_SHEETS: Final[list[ModuleType]] = []  # nnlr.optim._numba.sheets if switched on


class NumbaMissingError(NnlrError, ModuleNotFoundError):
    """``use_numba`` was called, and numba cannot be imported."""


def use_numba(on: bool = True) -> None:
    """Step the small tensors of all groups in one call, whatever their rates.

    Torch's fused kernels take one learning rate and one weight decay, so many rates mean many
    calls, and each costs a few microseconds. With this, ``SGD``, ``Adam`` and ``AdamW`` of
    :mod:`nnlr.optim` step all tensors on the CPU that are ``float32`` and have less than
    32,768 elements by one kernel that reads the rates from a table. It holds for the process
    and for optimizers that exist already; call it once, before training.

    The kernels are compiled when this is called for the first time on a machine, which takes
    some seconds, and kept on disk. Numbers are those of torch's fused step to round-off. What
    they do not cover steps as before: larger tensors, other dtypes and devices, ``amsgrad``,
    ``beta1`` of 0.5 or less, learning rates in tensors, a ``GradScaler`` with ``fused=True``.

    Args:
        on: False goes back to torch's kernels.

    Raises:
        NnlrError: If ``on`` is no bool, numba is not installed (``pip install "nnlr[numba]"``),
            or does not compile because ``NUMBA_DISABLE_JIT`` is set.

    Examples:
        >>> import torch, nnlr
        >>> nnlr.optim.use_numba()
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = nnlr.optim.AdamW(model.parameters(), lr=1e-3)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> nnlr.optim.use_numba(False)
    """
    if not flag(on, "on"):
        _SHEETS.clear()
        return
    try:
        from nnlr.optim._numba import kernels, sheets
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise NumbaMissingError(
            "nnlr.optim.use_numba() needs numba, which is not installed.\n"
            '  Fix: pip install "nnlr[numba]"'
        ) from error
    if not kernels.COMPILES:
        raise ConfigError(
            "nnlr.optim.use_numba() needs numba to compile, and NUMBA_DISABLE_JIT is set.\n"
            "  Fix: unset it, or leave the call out."
        )
    _SHEETS[:] = [sheets]


def numba_sheets() -> ModuleType | None:
    """The module :mod:`nnlr.optim._numba.sheets` if it is switched on."""
    return _SHEETS[0] if _SHEETS else None
