"""The images: scikit-learn's handwritten digits, or MNIST's four files.

MNIST's files are in the IDX format, plain or gzipped. An IDX file begins with four bytes, ``00 00
TT DD``: the type of its values (``08`` for unsigned bytes) and the number of its axes. Then come
the axes' lengths, as big-endian 32-bit integers, and the values.
"""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nnlr import NnlrError

KINDS = {3: "images", 1: "labels"}  # by the number of axes; those of images: image, row, column
OWN_FILES = "Pass MNIST's own files."
AGAIN = "Download it again."


@dataclass(frozen=True)
class Digits:
    """Images of shape ``(n, 1, 32, 32)`` with labels from 0 to 9, for training and testing."""

    source: str  # where they come from, in words
    train_images: Tensor  # float32, mean 0 and standard deviation 1
    train_labels: Tensor  # int64
    test_images: Tensor  # with the training images' mean and deviation taken
    test_labels: Tensor


def load(folder, seed, device="cpu"):
    """Load MNIST's files from a folder, or split scikit-learn's digits by a seed."""
    if folder is None:
        source = "scikit-learn's digits, 8x8 enlarged to 32x32"
        train, test = scikit_learn_digits(seed)
    else:
        source = f"{folder}, 28x28 padded to 32x32"
        train, test = read_split(folder, "train"), read_split(folder, "t10k")
    # By the training images alone: the test images are not known yet.
    mean, deviation = train[0].mean(), train[0].std()
    if len(train[0]) < 2 or deviation == 0:
        raise NnlrError(
            f"{source}: cannot train on {len(train[0])} image(s) with pixels that vary by "
            f"{float(deviation):g}.\n  Fix: pass at least two images that show something."
        )
    train, test = (((images - mean) / deviation, labels) for images, labels in (train, test))
    return Digits(source, *(tensor.to(device) for tensor in (*train, *test)))


def scikit_learn_digits(seed):
    """Four fifths of the 1,797 digits for training, one for testing, each with its labels."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise NnlrError(
            "The demo's data needs scikit-learn, which is not installed.\n"
            "  Fix: pip install scikit-learn. Or pass MNIST's files with --data DIR."
        ) from error
    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    small = torch.from_numpy(digits.images).float().unsqueeze(1)  # (1797, 1, 8, 8)
    images = F.interpolate(small, scale_factor=4, mode="nearest")
    parts = train_test_split(
        range(len(labels)), test_size=0.2, stratify=digits.target, random_state=seed
    )
    return [(images[part], labels[part]) for part in parts]


def read_split(folder, prefix):
    """The images, padded to 32 x 32, and the labels of ``"train"`` or of ``"t10k"``, the test."""
    images_path, labels_path = (find_file(folder, prefix, axes) for axes in KINDS)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise bad_file(
            labels_path,
            f"has {len(labels):,} labels",
            f"{len(images):,}, one for each image in {images_path.name}",
            "Take both files from the same data set.",
        )
    if (label := int(labels.max())) > 9:
        fix = "The demo's network knows ten classes."
        raise bad_file(labels_path, f"holds the label {label}", "digits, 0 to 9", fix)
    return F.pad(images.unsqueeze(1).float(), [2] * 4), labels.long()


def find_file(folder, prefix, axes):
    """The path of one of MNIST's files, which has four usual spellings."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise NnlrError(
            f"{folder}: {what}; expected a folder with MNIST's four files.\n"
            "  Fix: pass the folder that holds train-images-idx3-ubyte (or .gz) as --data."
        )
    stem = f"{prefix}-{KINDS[axes]}"
    names = [f"{stem}{dot}idx{axes}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise NnlrError(
        f"{folder}: has no {names[0]}; looked for {', '.join(names)}.\n"
        "  Fix: put MNIST's four files there: images and labels of train and t10k."
    )


def read_idx(path, axes):
    """Read images (3 axes, 28 x 28) or labels (1 axis) from an IDX file, plain or gzipped."""
    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise bad_file(path, f"is damaged ({error})", "a whole gzip file", AGAIN) from error
    except OSError as error:
        raise NnlrError(f"{path}: cannot be read: {error.strerror}.") from error

    kind, end = KINDS[axes], 4 + 4 * axes
    magic, values = content[:4], content[end:]
    expected = f"an IDX file of {kind}, which begins with 00 00 08 {axes:02x}"
    if len(magic) < 4 or magic[:2] != b"\0\0":
        begins = f"begins with {magic.hex(' ')}" if magic else "is empty"
        raise bad_file(path, begins, expected, OWN_FILES)
    if magic[2] != 0x08:
        holds = f"holds values of another type ({magic[2]:02x})"
        raise bad_file(path, holds, "unsigned bytes (08)", OWN_FILES)
    if magic[3] != axes:
        has = f"has {magic[3]} {'axis' if magic[3] == 1 else 'axes'}"
        fix = "Perhaps images and labels are swapped."
        raise bad_file(path, has, f"{axes}, as {kind} have", fix)
    if len(content) < end:
        raise bad_file(path, "ends in its header", expected, AGAIN)
    count, *sides = (int.from_bytes(content[at : at + 4], "big") for at in range(4, end, 4))
    if sides not in ([], [28, 28]):
        holds = f"holds images of {sides[0]}x{sides[1]}"
        raise bad_file(path, holds, "28x28", "Scale the images to MNIST's size.")
    if count == 0:
        raise bad_file(path, f"holds no {kind}", "at least one", AGAIN)
    size = count * math.prod(sides)
    if len(values) != size:
        holds = f"only {len(values):,} of them" if len(values) < size else "more"
        raise bad_file(path, f"holds {holds}", f"{size:,} bytes for {count:,} {kind}", AGAIN)
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).reshape(count, *sides)


def bad_file(path, what, expected, fix):
    """The error for a file that is not what it should be."""
    return NnlrError(f"{path}: {what}; expected {expected}.\n  Fix: {fix}")
