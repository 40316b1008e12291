"""FreezeOut: how much time does it save, and what does that cost?

A convolutional network of ten layers learns scikit-learn's digits: 600 to train on, the others to
test. Four arms: a cosine for all layers; FreezeOut as published (t_0 0.8, cubic, scaled) and from
t_0 0.5; and a cosine over fewer steps, which saves time without any scheme. Each has its rate from
the same five, chosen on seeds 0 to 2. The figures are of seeds 10 to 19 at that rate, where the
arms take turns step by step and each step is timed.

    python benchmarks/evidence/freeze_out_cost.py                              what is committed
    python benchmarks/evidence/freeze_out_cost.py --small --cells again.csv    run a part
"""

import itertools
import time
from functools import cache
from statistics import fmean, median

import torch
from _cells import arguments, run, select, spread, table
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

import nnlr

STEPS, BATCH, WIDTH, LAYERS = 150, 60, 16, 10
TRAINED_ON = 600
RATES = (0.02, 0.05, 0.1, 0.2, 0.5)
TUNING, FRESH = range(3), range(10, 20)
SHORTER = 0.8
ARMS = {
    "cosine": (None, 1.0),
    "freeze_out(0.8)": (nnlr.freeze_out(0.8), 1.0),
    "freeze_out(0.5)": (nnlr.freeze_out(0.5), 1.0),
    f"cosine, {SHORTER:.0%} of the steps": (None, SHORTER),
}


def network():
    """Ten layers; the images are made half as large after the fourth and the seventh."""
    net = nn.Sequential()
    channels = 1
    for at in range(LAYERS - 1):
        stride = 2 if at in {4, 7} else 1
        conv = nn.Conv2d(channels, WIDTH, 3, stride, padding=1, bias=False)
        net.append(nn.Sequential(conv, nn.BatchNorm2d(WIDTH), nn.ReLU()))
        channels = WIDTH
    net.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10)))
    return net


class Training:
    """One arm at work: a step at a time."""

    def __init__(self, arm, rate, seed):
        scheme, share = ARMS[arm]
        torch.manual_seed(seed)
        self.net, self.steps = network(), round(share * STEPS)
        schemes = [] if scheme is None else [scheme]
        plan = nnlr.resolve(self.net, *schemes, lr=rate, weight_decay=5e-4)
        self.optimizer = plan.optimizer(nnlr.optim.SGD, momentum=0.9)
        self.scheduler = None
        if scheme is None:
            self.scheduler = nnlr.schedule(self.optimizer, CosineAnnealingLR, T_max=self.steps)
        else:
            nnlr.attach(self.optimizer, plan, total_steps=self.steps)
        self.seconds = 0.0

    def step(self, images, labels):
        """Train on a batch."""
        start = time.process_time()
        loss = F.cross_entropy(self.net(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self.seconds += time.process_time() - start


def train(rates, seed):
    """Train some arms side by side on the same batches: seconds and percent right, by arm."""
    data = load_digits()
    images = torch.from_numpy(data.images).float().unsqueeze(1) / 8 - 1
    labels = torch.from_numpy(data.target)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    seen, unseen = order[:TRAINED_ON], order[TRAINED_ON:]
    trainings = {arm: Training(arm, rate, seed) for arm, rate in rates.items()}
    for step in range(STEPS):
        batch = seen[torch.randperm(len(seen), generator=generator)[:BATCH]]
        for training in trainings.values():
            if step < training.steps:
                training.step(images[batch], labels[batch])
    results = {}
    for arm, training in trainings.items():
        training.net.eval()
        with torch.no_grad():
            right = training.net(images[unseen]).argmax(1) == labels[unseen]
        results[arm] = (round(training.seconds, 3), round(100 * right.double().mean().item(), 2))
    return results


def tuning_cell(arm, rate, seed):
    """One arm, for the choice of its rate."""
    seconds, right = train({arm: rate}, seed)[arm]
    return {"seconds": seconds, "right": right}


def best(rows, arm, seeds):
    """The rate with the highest mean accuracy."""
    rows = [row for row in select(rows, arm=arm) if row["seed"] in seeds]
    return max(RATES, key=lambda rate: fmean(row["right"] for row in select(rows, rate=rate)))


def final(rows, tuning=TUNING, fresh=FRESH):
    """Of each arm at its best rate, by seed: cells, time saved in percent, points of accuracy."""
    first = None
    for arm in ARMS:
        of_arm = select(rows, arm=arm, rate=best(rows, arm, tuning))
        of_arm = [select(of_arm, seed=seed)[0] for seed in fresh]
        first = first or of_arm
        pairs = list(zip(of_arm, first, strict=True))
        saved = [100 * (1 - own["seconds"] / one["seconds"]) for own, one in pairs]
        yield arm, of_arm, saved, [own["right"] - one["right"] for own, one in pairs]


def report(rows, tuning=TUNING, fresh=FRESH):
    """A line for each arm: rate, seconds and the part of them saved, accuracy and difference."""
    lines = []
    for arm, cells, saved, difference in final(rows, tuning, fresh):
        seconds = f"{median(row['seconds'] for row in cells):.2f}"
        right = spread([row["right"] for row in cells], 1)
        time = f"{median(saved):.0f} ({min(saved):.0f} to {max(saved):.0f})"
        compared = (time, spread(difference)) if any(saved) else ("", "")
        lines.append((arm, cells[0]["rate"], seconds, compared[0], right, compared[1]))
    header = ("", "best rate", "seconds", "saved, %", "accuracy, %", "difference, points")
    return table(header, lines)


def main():
    """Tune, measure with fresh seeds, print."""
    args = arguments(__doc__, __file__)
    tuning, fresh = (TUNING[:1], FRESH[:3]) if args.small else (TUNING, FRESH)
    keys = ("arm", "rate", "seed")
    grid = itertools.product(ARMS, RATES, tuning)
    rows = run(args.cells, [dict(zip(keys, cell, strict=True)) for cell in grid], tuning_cell)
    rates = {arm: best(rows, arm, tuning) for arm in ARMS}

    @cache
    def side_by_side(seed):
        return train(rates, seed)

    def final_cell(arm, rate, seed):
        seconds, right = side_by_side(seed)[arm]
        return {"seconds": seconds, "right": right}

    wanted = [{"arm": arm, "rate": rates[arm], "seed": seed} for seed in fresh for arm in ARMS]
    rows = run(args.cells, wanted, final_cell)
    print(report(rows, tuning, fresh))


if __name__ == "__main__":
    main()
