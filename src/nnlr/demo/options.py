"""What can be chosen for the demo."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from nnlr._text import plural
from nnlr.errors import NnlrError


class Method(StrEnum):
    """The ways to train."""

    sgd = "sgd"
    adamw = "adamw"
    torch7 = "torch7"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Base rates and settings of one way to train.

    Attributes:
        label: What it is, in words.
        lr: Base learning rate.
        weight_decay: Base weight decay.
        settings: Further arguments of the optimizer.
    """

    label: str
    lr: float
    weight_decay: float
    settings: dict[str, Any]


# Torch7's dampening is the momentum unless given, and torch's is 0.
RECIPES: Final = {
    Method.sgd: Recipe("torch.optim.SGD", 0.1, 1e-4, {"momentum": 0.9, "dampening": 0.9}),
    Method.torch7: Recipe("nnlr.torch7.sgd", 0.1, 1e-4, {"momentum": 0.9, "dampening": 0.9}),
    Method.adamw: Recipe("torch.optim.AdamW", 1e-3, 1e-2, {}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of ``nnlr demo``.

    Attributes:
        data: Folder with MNIST's four files; ``None`` for scikit-learn's digits.
        optimizer: How to train.
        epochs: Passes over the training images, >= 1.
        batch_size: Images in each step, at least; >= 2, because of batch norm.
        seed: Of the split, the initial weights and the batches; 0 to 2**32 - 1.
        device: Where to train, as torch spells it.
        out: Folder for ``movement.json`` and ``movement.png``; ``None`` for neither.
    """

    data: Path | None = None
    optimizer: Method = Method.sgd
    epochs: int = 6
    batch_size: int = 64
    seed: int = 0
    device: str = "cpu"
    out: Path | None = None

    @property
    def recipe(self) -> Recipe:
        """Base rates and settings of the optimizer."""
        return RECIPES[self.optimizer]

    @property
    def duration(self) -> str:
        """``1 epoch``, ``10 epochs``."""
        return plural(self.epochs, "epoch")


def missing_extra(package: str, purpose: str, instead: str) -> NnlrError:
    """The error for a package that only the demo needs.

    Examples:
        >>> print(missing_extra("matplotlib", "The picture of --out", "Or leave out --out."))
        The picture of --out needs matplotlib, which is not installed.
          Fix: pip install 'nnlr[demo]'. Or leave out --out.
    """
    return NnlrError(
        f"{purpose} needs {package}, which is not installed.\n"
        f"  Fix: pip install 'nnlr[demo]'. {instead}",
        package=package,
    )
