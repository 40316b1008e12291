"""The Lua package's methods on ``torch.nn.Module``, for those who want them.

Opt-in, because class-level methods of these names get in the way of modules that have a
buffer, parameter or submodule of the same name.
"""

from types import TracebackType
from typing import Final

from torch import Tensor, nn

from nnlr._arguments import instance, number
from nnlr._declare.on_modules import learning_rate, weight_decay
from nnlr._resolve import resolve
from nnlr.errors import NnlrError


def get_optim_config(
    module: nn.Module, base_lr: float, base_weight_decay: float
) -> tuple[Tensor, Tensor]:
    """The two vectors of rates of a module, one value for each element; the Lua package's call.

    Args:
        module: The network.
        base_lr: Base learning rate, > 0.
        base_weight_decay: Base weight decay, >= 0.

    Returns:
        ``(learning_rates, weight_decays)``, base rates multiplied in, one element for each
        element of the flattened parameters; see :meth:`nnlr.Plan.vectors`.

    Raises:
        NnlrError: If an argument is none of these.

    Examples:
        >>> from torch import nn
        >>> layer = learning_rate(nn.Linear(1, 2), "bias", 0.5)
        >>> get_optim_config(layer, 1.0, 0.0)[0]
        tensor([1.0000, 1.0000, 0.5000, 0.5000])
    """
    instance(module, "module", nn.Module)
    lr = number(base_lr, "base_lr", above=0)
    plan = resolve(module, lr=lr, weight_decay=number(base_weight_decay, "base_weight_decay"))
    return plan.vectors()


_METHODS: Final = {
    "learning_rate": learning_rate,
    "weight_decay": weight_decay,
    "get_optim_config": get_optim_config,
}


class Installed:
    """The result of :func:`install`: as a context manager it uninstalls at the end."""

    def __init__(self, *, uninstall_at_end: bool) -> None:
        self._uninstall_at_end = uninstall_at_end

    def __enter__(self) -> "Installed":
        """Nothing more to do."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the methods off again, unless they were there before."""
        if self._uninstall_at_end:
            uninstall()


def install() -> Installed:
    """Add ``.learning_rate()``, ``.weight_decay()``, ``.get_optim_config()`` to all modules.

    Returns:
        A context manager that takes them off at its end; calling it plainly leaves them.

    Raises:
        NnlrError: If something else has put a method of such a name there.

    Examples:
        >>> from torch import nn
        >>> with install():
        ...     layer = nn.Linear(2, 4).learning_rate("weight", 0.1).weight_decay("bias", 0)
        >>> hasattr(nn.Module, "learning_rate")
        False
    """
    present = {name: vars(nn.Module)[name] for name in _METHODS if name in vars(nn.Module)}
    foreign = [name for name, method in present.items() if method is not _METHODS[name]]
    if foreign:
        raise NnlrError(
            f"torch.nn.Module already has {foreign[0]!r}, and not from nnlr. Use the functions "
            f"instead: nnlr.{foreign[0]}(module, ...).",
            name=foreign[0],
        )
    for name, method in _METHODS.items():
        setattr(nn.Module, name, method)
    return Installed(uninstall_at_end=not present)


def uninstall() -> None:
    """Take the methods of :func:`install` off; what was declared with them stays.

    Examples:
        >>> from torch import nn
        >>> _ = install()
        >>> layer = nn.Linear(1, 1).learning_rate("weight", 0.5)
        >>> uninstall()
        >>> get_optim_config(layer, 1.0, 0.0)[0]
        tensor([0.5000, 1.0000])
    """
    for name, method in _METHODS.items():
        if vars(nn.Module).get(name) is method:
            delattr(nn.Module, name)
