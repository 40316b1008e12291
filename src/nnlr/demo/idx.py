"""MNIST's files: four arrays of unsigned bytes in the IDX format, plain or gzipped.

An IDX file begins with four bytes, ``00 00 TT DD``: the type of its values (``08`` for
unsigned bytes) and the number of its axes. Then come the axes' lengths, as big-endian
32-bit integers, and the values.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, Final

import torch
from torch import Tensor

from nnlr.errors import NnlrError

SIDE: Final = 28
CLASSES: Final = 10

_IMAGES: Final = 3  # axes: image, row, column
_LABELS: Final = 1
_KIND: Final = {_IMAGES: "images", _LABELS: "labels"}
_BYTE: Final = 0x08
_TYPES: Final = {
    0x08: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
_AGAIN: Final = "Download it again."
_BLOCK: Final = 1 << 20


def read_split(folder: Path, prefix: str) -> tuple[Tensor, Tensor]:
    """Read the images and labels of one split.

    Args:
        folder: Where the files are.
        prefix: ``"train"`` or ``"t10k"``, MNIST's name for the test images.

    Returns:
        Images of shape ``(n, 28, 28)`` and labels of shape ``(n,)``, both uint8.

    Raises:
        NnlrError: If a file is missing, damaged or something else.
    """
    images_path = _find(folder, prefix, _IMAGES)
    labels_path = _find(folder, prefix, _LABELS)
    images = read_idx(images_path, _IMAGES)
    labels = read_idx(labels_path, _LABELS)
    if len(images) != len(labels):
        raise _bad(
            labels_path,
            f"has {len(labels):,} labels",
            f"{len(images):,}, one for each image in {images_path.name}",
            "Take both files from the same data set.",
        )
    if int(labels.max()) >= CLASSES:
        raise _bad(
            labels_path,
            f"holds the label {int(labels.max())}",
            f"digits, 0 to {CLASSES - 1}",
            "The demo's network knows ten classes.",
        )
    return images, labels


def read_idx(path: Path, axes: int) -> Tensor:
    """Read one IDX file of unsigned bytes, plain or gzipped.

    Args:
        path: The file; whether it is gzipped is seen from its first bytes.
        axes: 3 for images of 28 x 28, 1 for labels.

    Raises:
        NnlrError: If the file cannot be read, or is not what it should be.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not zipped:
                return _parse(path, raw, axes)
            with gzip.open(raw) as unzipped:
                return _parse(path, unzipped, axes)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _bad(path, f"is damaged ({error})", "a whole gzip file", _AGAIN) from error
    except OSError as error:
        raise NnlrError(f"{path}: cannot be read: {error.strerror}.", path=path) from error


def _find(folder: Path, prefix: str, axes: int) -> Path:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise NnlrError(
            f"{folder}: {what}; expected a folder with MNIST's four files.\n"
            "  Fix: pass the folder that holds train-images-idx3-ubyte (or .gz) as --data.",
            path=folder,
        )
    names = [
        f"{prefix}-{_KIND[axes]}{separator}idx{axes}-ubyte{suffix}"
        for separator in "-."
        for suffix in ("", ".gz")
    ]
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise NnlrError(
            f"{folder}: has no {names[0]}; looked for {', '.join(names)}.\n"
            "  Fix: put MNIST's four files there: images and labels of train and t10k.",
            path=folder,
        )
    return found[0]


def _parse(path: Path, stream: BinaryIO | gzip.GzipFile, axes: int) -> Tensor:
    kind = _KIND[axes]
    magic = stream.read(4)
    wanted = f"an IDX file of {kind}, which begins with 00 00 08 {axes:02x}"
    if len(magic) < 4 or magic[:2] != b"\0\0":
        begins = f"begins with {magic.hex(' ')}" if magic else "is empty"
        raise _bad(path, begins, wanted, "Pass MNIST's own files.")
    if magic[2] != _BYTE:
        holds = _TYPES.get(magic[2], "values of an unknown type")
        raise _bad(
            path,
            f"holds {holds} (type byte {magic[2]:02x})",
            "unsigned bytes (08)",
            "Pass MNIST's own files.",
        )
    if magic[3] != axes:
        raise _bad(
            path,
            f"has {magic[3]} {'axis' if magic[3] == 1 else 'axes'}",
            f"{axes}, as {kind} have",
            "Perhaps images and labels are swapped.",
        )
    header = stream.read(4 * axes)
    if len(header) < 4 * axes:
        raise _bad(path, "ends in its header", wanted, _AGAIN)
    shape = [int.from_bytes(header[at : at + 4], "big") for at in range(0, 4 * axes, 4)]
    if shape[1:] not in ([], [SIDE, SIDE]):
        raise _bad(
            path,
            f"holds images of {shape[1]}x{shape[2]}",
            f"{SIDE}x{SIDE}",
            "Scale the images to MNIST's size.",
        )
    if shape[0] == 0:
        raise _bad(path, f"holds no {kind}", "at least one", _AGAIN)
    size = math.prod(shape)
    values = _read(stream, size + 1)  # one more, to see a file that goes on
    if len(values) != size:
        found = f"only {len(values):,} of them" if len(values) < size else "more"
        raise _bad(path, f"holds {found}", f"{size:,} bytes for {shape[0]:,} {kind}", _AGAIN)
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)


def _read(stream: BinaryIO | gzip.GzipFile, most: int) -> bytearray:
    """Read so many bytes, or as many as there are: a header may promise terabytes."""
    values = bytearray()
    while block := stream.read(min(_BLOCK, most - len(values))):
        values += block
    return values


def _bad(path: Path, found: str, expected: str, fix: str) -> NnlrError:
    return NnlrError(f"{path}: {found}; expected {expected}.\n  Fix: {fix}", path=path)
