"""Does the best learning rate stay put? The standard parametrization against muP.

    python examples/mup_lr_transfer.py [--out DIR]

Trains a three-layer perceptron on scikit-learn's digits at widths from 64 to 512, each at
eight learning rates, prints where the best one is, and draws the curves. Needs
scikit-learn and matplotlib.
"""

import argparse
import tempfile
from collections import OrderedDict
from pathlib import Path
from statistics import fmean

import torch
from torch import nn
from torch.nn import functional as F

import nnlr

try:
    import matplotlib as _  # noqa: F401  for the picture, at the end
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(f"{error}. Fix: pip install scikit-learn matplotlib") from None

WIDTHS = (64, 128, 256, 512)
LRS = [2.0**octave for octave in range(-10, -2)]
STEPS = 60
BATCH = 256


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


def standard(width, lr):
    """One learning rate for everything."""
    model = network(width)
    return model, torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0)


def mup(width, lr):
    """The same rate at the base width, and muP's multiples of it elsewhere."""
    model = network(width)
    plan = nnlr.resolve(model, nnlr.mup(BASE), lr=lr, weight_decay=0)
    nnlr.apply_init(model, plan)
    return model, plan.optimizer(torch.optim.AdamW)


def digits():
    """All images and labels, shape ``(1797, 64)`` and ``(1797,)``."""
    data = load_digits()
    images = torch.from_numpy(data.data).float()
    images = (images - images.mean()) / images.std()
    return images, torch.from_numpy(data.target)


def sweeps(widths=WIDTHS, lrs=LRS, seeds=range(3), steps=STEPS):
    """Both parametrizations, swept."""
    images, labels = digits()

    def trained(prepare):
        def train(width, lr):
            model, optimizer = prepare(width, lr)
            losses = []
            for _ in range(steps):
                batch = torch.randint(len(images), (BATCH,))
                loss = F.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return fmean(losses[-steps // 4 :])  # less noise than the last one has

        return train

    parametrizations = {"standard parametrization": standard, "muP": mup}
    return [
        nnlr.report.lr_sweep(trained(prepare), widths, lrs, seeds=seeds, label=label, progress=True)
        for label, prepare in parametrizations.items()
    ]


def main():
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for the picture")
    folder = parser.parse_args().out or Path(tempfile.mkdtemp(prefix="nnlr-"))
    folder.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)  # the same sums on every machine; quick enough
    found = sweeps()
    print(*found, sep="\n\n")
    picture = folder / "mup_lr_transfer.png"
    found[0].plot(picture, *found[1:])
    print(f"\npicture: {picture}")


if __name__ == "__main__":
    main()
