"""Does the best rate stay put over width? The standard parametrization and muP, with spread.

The setting of ``examples/mup_lr_transfer.py``: a perceptron with two hidden layers on
scikit-learn's digits, 60 steps of AdamW, mean loss of the last 15, eight rates at each width. That
example was chosen on seeds 0 to 2; these are seeds 10 to 19.

    python benchmarks/evidence/mup_transfer.py                              what is committed
    python benchmarks/evidence/mup_transfer.py --small --cells again.csv    run a part
"""

import itertools
import math
import sys
from pathlib import Path
from statistics import fmean, median

import torch
from _cells import arguments, run, select, spread, table
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from mup_lr_transfer import BATCH, LRS, STEPS, WIDTHS, digits, mup, standard

ARMS = {"standard": standard, "muP": mup}
SEEDS = range(10, 20)
OCTAVES = [round(math.log2(lr)) for lr in LRS]
IMAGES, LABELS = digits()


def final_loss(arm, width, octave, seed):
    """Train once."""
    torch.manual_seed(seed)
    model, optimizer = ARMS[arm](width, 2.0**octave)
    losses = []
    for _ in range(STEPS):
        batch = torch.randint(len(IMAGES), (BATCH,))
        loss = F.cross_entropy(model(IMAGES[batch]), LABELS[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"loss": round(fmean(losses[-STEPS // 4 :]), 6)}


def losses_of(rows, **settings):
    """Loss by rate of one arm, width and seed."""
    return {row["octave"]: row["loss"] for row in select(rows, **settings)}


def carried(rows, arm, width, seeds):
    """By seed: the best rate, octaves from that of the narrowest, and what keeping that costs."""
    narrow = [best(losses_of(rows, arm=arm, width=WIDTHS[0], seed=seed)) for seed in seeds]
    losses = [losses_of(rows, arm=arm, width=width, seed=seed) for seed in seeds]
    rates = list(map(best, losses))
    drift = [rate - first for rate, first in zip(rates, narrow, strict=True)]
    pairs = zip(losses, narrow, strict=True)
    return rates, drift, [of_seed[first] / min(of_seed.values()) for of_seed, first in pairs]


def best(losses):
    """The rate with the lowest loss."""
    return min(losses, key=losses.__getitem__)


def report(rows, seeds=SEEDS):
    """A line for each arm and width: best rates, drift, and what carrying the rate over costs."""
    lines = []
    for arm, width in itertools.product(ARMS, WIDTHS):
        rates, drift, costs = carried(rows, arm, width, seeds)
        each = f"{median(rates):g} ({min(rates)} to {max(rates)})"
        lines.append((arm, width, each, spread(drift, 1), spread(costs)))
    header = ("", "width", "best log2 of the rate", "drift, octaves", "loss at 64's rate / lowest")
    return table(header, lines)


def main():
    """Train what is lacking, print."""
    args = arguments(__doc__, __file__)
    seeds = SEEDS[:2] if args.small else SEEDS
    keys = ("arm", "width", "octave", "seed")
    cells = [
        dict(zip(keys, (arm, width, octave, seed), strict=True))
        for seed, arm, width, octave in itertools.product(seeds, ARMS, WIDTHS, OCTAVES)
    ]
    rows = run(args.cells, cells, final_loss)
    print(report(rows, seeds))


if __name__ == "__main__":
    main()
