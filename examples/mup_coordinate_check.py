"""Do activations move alike at every width? The standard parametrization against muP.

    python examples/mup_coordinate_check.py [--out DIR]

Trains a three-layer perceptron on scikit-learn's digits for a few steps at widths from 64 to
1024, prints how much every layer's output changes, and draws it. Needs scikit-learn
and matplotlib.
"""

import argparse
import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import nnlr

try:
    import matplotlib as _  # noqa: F401  for the picture, at the end
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(f"{error}. Fix: pip install scikit-learn matplotlib") from None

WIDTHS = (64, 128, 256, 512, 1024)
LR = 0.01


def network(width):
    """A perceptron with two hidden layers, initialised as torch does it."""
    layers = {
        "input": nn.Linear(64, width),
        "relu1": nn.ReLU(),
        "hidden": nn.Linear(width, width),
        "relu2": nn.ReLU(),
        "readout": nn.Linear(width, 10),
    }
    return nn.Sequential(OrderedDict(layers))


with torch.device("meta"):  # shapes are all that muP needs of it
    BASE = network(64)


def standard(width):
    """One learning rate for everything."""
    model = network(width)
    return model, torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0)


def mup(width):
    """The same rate at the base width, and muP's multiples of it elsewhere."""
    model = network(width)
    plan = nnlr.resolve(model, nnlr.mup(BASE), lr=LR, weight_decay=0)
    nnlr.apply_init(model, plan)
    return model, plan.optimizer(torch.optim.AdamW)


def digits(count=256):
    """The first images and labels, shape ``(count, 64)`` and ``(count,)``."""
    data = load_digits()
    images = torch.from_numpy(data.data[:count]).float()
    images = (images - images.mean()) / images.std()
    return images, torch.from_numpy(data.target[:count])


def checks(widths=WIDTHS, seeds=range(5)):
    """Both parametrizations, checked."""
    images, labels = digits()

    def loss(model):
        return F.cross_entropy(model(images), labels)

    parametrizations = {"standard parametrization": standard, "muP": mup}
    return [
        nnlr.report.coordinate_check(
            prepare,
            widths,
            loss,
            seeds=seeds,
            modules=["input", "hidden", "readout"],
            label=label,
            progress=True,
        )
        for label, prepare in parametrizations.items()
    ]


def main():
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for the picture")
    folder = parser.parse_args().out or Path(tempfile.mkdtemp(prefix="nnlr-"))
    folder.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)  # the same sums on every machine; quick enough
    found = checks()
    print(*found, sep="\n\n")
    picture = folder / "mup_coordinate_check.png"
    found[0].plot(picture, *found[1:])
    print(f"\npicture: {picture}")


if __name__ == "__main__":
    main()
