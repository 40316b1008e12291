"""Does the best rate stay put over width and depth? AdamW beside AdamW with hyperball updates.

A residual perceptron reads eight letters of the text of Python's manual (in the standard library)
and learns to tell the next: 120 steps of 128 places each, warm-up and linear decay, loss on 2,000
places at the end. The rate that is swept is that of the matrices; embedding and norms have 0.003 in
both arms. Nine rates at each of five widths (16-fold) and four depths (8-fold).

    python benchmarks/evidence/hyperball_transfer.py                              what is committed
    python benchmarks/evidence/hyperball_transfer.py --small --cells again.csv    run a part
"""

import itertools
import sysconfig
from functools import cache
from pathlib import Path
from statistics import fmean

import torch
from _cells import arguments, run, select, spread, table
from torch import nn
from torch.nn import functional as F

import nnlr

WIDTHS, DEPTHS = (32, 64, 128, 256, 512), (1, 2, 4, 8)
WIDE, DEEP = [(width, 2) for width in WIDTHS], [(64, depth) for depth in DEPTHS]
SIZES = list(dict.fromkeys(WIDE + DEEP))
OCTAVES = {"AdamW": range(-11, -2), "hyperball": range(-9, 0)}  # log2 of the rate
SEEDS = range(10, 20)
STEPS, WARM, BATCH = 120, 12, 128
LETTERS, CONTEXT = 128, 8
MATRICES = nnlr.ndim(min=2) & ~nnlr.glob("embedding.*")


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.up = nn.Linear(width, width, bias=False)
        self.down = nn.Linear(width, width, bias=False)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Reader(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, 16)
        self.input = nn.Linear(CONTEXT * 16, width, bias=False)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, LETTERS, bias=False)

    def forward(self, letters):
        x = self.input(self.embedding(letters).flatten(1))
        return self.head(self.norm(self.blocks(x)))


@cache
def manual():
    """The letters of the manual, as numbers below 128."""
    path = Path(sysconfig.get_path("stdlib"), "pydoc_data", "topics.py")
    return torch.tensor([min(ord(letter), 127) for letter in path.read_text(encoding="utf-8")])


def loss_at(model, places):
    """Nats per letter at some places of the text."""
    rows = manual()[places[:, None] + torch.arange(CONTEXT + 1)]
    return F.cross_entropy(model(rows[:, :-1]), rows[:, -1])


def course(step):
    """Warm-up, then a straight line to 0."""
    return min((step + 1) / WARM, (STEPS - step) / (STEPS - WARM))


def final_loss(arm, width, depth, octave, seed):
    """Train once."""
    torch.manual_seed(seed)
    model = Reader(width, depth)
    scheme = nnlr.rule(~MATRICES, lr=0.003, wd_mult=0)
    decay = {"AdamW": 0.1, "hyperball": 0}[arm]
    plan = nnlr.resolve(model, scheme, lr=2.0**octave, weight_decay=decay)
    optimizer = plan.optimizer(nnlr.optim.AdamW, betas=(0.9, 0.95))
    if arm == "hyperball":
        nnlr.relative(optimizer, "hyperball", select=MATRICES)
    scheduler = nnlr.schedule(optimizer, torch.optim.lr_scheduler.LambdaLR, lr_lambda=course)
    last = len(manual()) - CONTEXT
    for _ in range(STEPS):
        loss = loss_at(model, torch.randint(last, (BATCH,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        loss = loss_at(model, torch.arange(0, last, last // 2000))
    return {"loss": round(loss.item(), 5)}


def losses_of(rows, arm, size, seed):
    """Loss by rate."""
    width, depth = size
    chosen = select(rows, arm=arm, width=width, depth=depth, seed=seed)
    return {row["octave"]: row["loss"] for row in chosen}


def carried(rows, arm, size, first, seeds):
    """By seed: best rate, octaves from that of the first size, lowest loss, and with that rate."""
    for seed in seeds:
        losses, before = (losses_of(rows, arm, each, seed) for each in (size, first))
        rate, there = (min(each, key=each.__getitem__) for each in (losses, before))
        yield rate, rate - there, losses[rate], losses[there]


def report(rows, seeds=SEEDS):
    """A line for each arm and size: best rates, drift from the smallest, losses."""
    lines = []
    for arm, sizes in itertools.product(OCTAVES, (WIDE, DEEP)):
        for size in sizes:
            of_seeds = carried(rows, arm, size, sizes[0], seeds)
            rates, drift, lowest, kept = (list(each) for each in zip(*of_seeds, strict=True))
            each = f"{fmean(rates):.1f} ({min(rates)} to {max(rates)})"
            lines.append((arm, *size, each, spread(drift, 1), spread(lowest), spread(kept)))
    header = ("", "width", "blocks", "best log2 of the rate", "drift, octaves")
    return table((*header, "lowest loss", "loss at the smallest's rate"), lines)


def main():
    """Train what is lacking, print."""
    args = arguments(__doc__, __file__)
    seeds = SEEDS[:1] if args.small else SEEDS
    keys = ("seed", "arm", "width", "depth", "octave")
    wanted = [
        dict(zip(keys, (seed, arm, width, depth, octave), strict=True))
        for seed, arm in itertools.product(seeds, OCTAVES)
        for width, depth in SIZES
        for octave in OCTAVES[arm]
    ]
    print(report(run(args.cells, wanted, final_loss), seeds))


if __name__ == "__main__":
    main()
