"""LoRA+ over width: does a faster B save steps, and more of them in wider models?

A linear teacher differs from the frozen weight by a matrix of rank 4; an adapter of rank 4 learns
the difference with AdamW at a constant rate, from fresh inputs. Counted are the steps until the
loss is a hundredth of what it was. For each width and ratio the rate is the best of the same
thirteen, chosen on seeds 0 to 2; the figures are of seeds 10 to 19 at that rate.

    python benchmarks/evidence/lora_plus_width.py                              what is committed
    python benchmarks/evidence/lora_plus_width.py --small --cells again.csv    run a part
"""

import itertools
import math
from statistics import fmean

import torch
from _cells import arguments, run, select, spread, table
from torch import nn

import nnlr

WIDTHS = (64, 128, 256, 512, 1024)
RATIOS = (1, 4, 16)
OCTAVES = [half / 2 for half in range(-18, -5)]  # log2 of the rate of A
TUNING, FRESH = range(3), range(10, 20)
RANK, BATCH, LIMIT = 4, 64, 400


def adapter(width):
    """The two matrices: A such that its outputs have variance 1, B zero."""
    model = nn.Sequential()
    model.lora_A = nn.Linear(width, RANK, bias=False)
    model.lora_B = nn.Linear(RANK, width, bias=False)
    nn.init.normal_(model.lora_A.weight, std=width**-0.5)
    nn.init.zeros_(model.lora_B.weight)
    return model


def steps_to_a_hundredth(width, ratio, octave, seed):
    """Steps until the loss is below 1 % of the first; ``LIMIT`` if that never happens."""
    torch.manual_seed(seed)
    inner = torch.randn(RANK, width) * width**-0.5
    outer = torch.randn(width, RANK) * RANK**-0.5
    model = adapter(width)
    plan = nnlr.resolve(model, nnlr.lora_plus(ratio), lr=2.0**octave, weight_decay=0)
    optimizer = plan.optimizer(nnlr.optim.AdamW)
    goal = None
    for step in range(LIMIT):
        inputs = torch.randn(BATCH, width)
        loss = (model(inputs) - inputs @ inner.T @ outer.T).square().mean()
        value = loss.item()
        goal = value / 100 if goal is None else goal
        if value < goal:
            return {"steps": step}
        if not math.isfinite(value):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"steps": LIMIT}


def best(rows, width, ratio, seeds):
    """The rate with the fewest steps, as a mean over seeds."""
    rows = [row for row in select(rows, width=width, ratio=ratio) if row["seed"] in seeds]
    steps = {octave: steps_of(rows, octave=octave) for octave in sorted({*OCTAVES})}
    return min(steps, key=lambda octave: fmean(steps[octave].values()))


def steps_of(rows, **settings):
    """Steps by seed."""
    return {row["seed"]: row["steps"] for row in select(rows, **settings)}


def report(rows, widths=WIDTHS, tuning=TUNING, fresh=FRESH):
    """A line for each width: steps at the best rate of each ratio, and how many fewer they are."""
    header = ["width", *(f"B x {ratio}" for ratio in RATIOS)]
    header += [f"x {ratio}: fewer steps, %" for ratio in RATIOS[1:]]
    lines = []
    for width in widths:
        steps = {}
        for ratio in RATIOS:
            octave = best(rows, width, ratio, tuning)
            by_seed = steps_of(rows, width=width, ratio=ratio, octave=octave)
            steps[ratio] = [by_seed[seed] for seed in fresh]
        fewer = [
            [100 * (1 - own / one) for own, one in zip(steps[ratio], steps[1], strict=True)]
            for ratio in RATIOS[1:]
        ]
        lines.append([width, *(spread(values, 1) for values in (*steps.values(), *fewer))])
    return table(header, lines)


def main():
    """Tune, measure with fresh seeds, print."""
    args = arguments(__doc__, __file__)
    widths = (64, 1024) if args.small else WIDTHS
    tuning, fresh = (TUNING[:1], FRESH[:3]) if args.small else (TUNING, FRESH)
    keys = ("width", "ratio", "octave", "seed")
    grid = itertools.product(widths, RATIOS, OCTAVES, tuning)
    cells = [dict(zip(keys, values, strict=True)) for values in grid]
    rows = run(args.cells, cells, steps_to_a_hundredth)
    cells = [
        dict(zip(keys, (width, ratio, best(rows, width, ratio, tuning), seed), strict=True))
        for width, ratio, seed in itertools.product(widths, RATIOS, fresh)
    ]
    rows = run(args.cells, cells, steps_to_a_hundredth)
    print(report(rows, widths, tuning, fresh))


if __name__ == "__main__":
    main()
