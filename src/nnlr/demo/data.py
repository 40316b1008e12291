"""The images: scikit-learn's handwritten digits, or MNIST's files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from nnlr.demo.idx import read_split
from nnlr.demo.options import missing_extra
from nnlr.errors import NnlrError

SIDE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Images of digits, split for training and testing.

    Attributes:
        source: Where they come from, in words.
        train_images: Shape ``(n, 1, 32, 32)``, float32, mean 0 and standard deviation 1.
        train_labels: Shape ``(n,)``, int64, 0 to 9.
        test_images: As ``train_images``, with the training images' mean and deviation taken.
        test_labels: As ``train_labels``.
    """

    source: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def to(self, device: torch.device) -> "Digits":
        """Copy everything to a device."""
        return replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )


def load(folder: Path | None, seed: int) -> Digits:
    """Load MNIST's files from a folder, or scikit-learn's digits without one.

    Args:
        folder: Where MNIST's four files are; they bring their own split.
        seed: Of the split of scikit-learn's digits.

    Raises:
        NnlrError: If a file is not as it should be, or scikit-learn is not installed.
    """
    return _scikit_learn(seed) if folder is None else _mnist(folder)


def _scikit_learn(seed: int) -> Digits:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise missing_extra(
            "scikit-learn", "The demo's data", "Or pass MNIST's files with --data DIR."
        ) from error
    bunch = load_digits()
    labels = torch.from_numpy(bunch.target).long()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1)  # (1797, 1, 8, 8)
    images = F.interpolate(small, scale_factor=4, mode="nearest")
    train, test = train_test_split(
        range(len(labels)), test_size=0.2, stratify=bunch.target, random_state=seed
    )
    return _normalised(
        "scikit-learn's digits, 8x8 enlarged to 32x32",
        (images[train], labels[train]),
        (images[test], labels[test]),
    )


def _mnist(folder: Path) -> Digits:
    train, test = read_split(folder, "train"), read_split(folder, "t10k")
    return _normalised(f"{folder}, 28x28 padded to 32x32", _padded(*train), _padded(*test))


def _padded(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    margin = (SIDE - images.shape[-1]) // 2
    return F.pad(images.unsqueeze(1).float(), [margin] * 4), labels.long()


def _normalised(source: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Digits:
    """Shift and scale by the training images alone: the test images are not known yet."""
    mean, deviation = train[0].mean(), train[0].std()
    if len(train[0]) < 2 or deviation == 0:
        raise NnlrError(
            f"{source}: cannot train on {len(train[0])} image(s) with pixels that vary by "
            f"{float(deviation):g}.\n  Fix: pass at least two images that show something."
        )
    return Digits(
        source=source,
        train_images=(train[0] - mean) / deviation,
        train_labels=train[1],
        test_images=(test[0] - mean) / deviation,
        test_labels=test[1],
    )
