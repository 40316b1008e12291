"""The example network at the rates that its layers declare, and at one rate: the same accuracy?

    python benchmarks/evidence/locked_layer.py                      the table, from the cells here
    python benchmarks/evidence/locked_layer.py --seeds 100 --cells again.csv        run what lacks

What is trained is examples/digits: the first convolution locked and the second slow, or all alike,
from the same weights and on the same batches. One seed is 6 runs, in a minute of one core.
"""

from argparse import Namespace
from pathlib import Path

import torch
from _digits import data, network, train
from _paired import append, best, command, cross_fitted, missing, points, tables

import nnlr

CELLS = Path(__file__).with_suffix(".csv")
SEEDS = range(100, 110)
RATES = {"sgd": (0.03, 0.1, 0.3)}  # around the example's own, 0.1
DECLARED, UNIFORM = ARMS = ("declared rates", "one rate for all")


def run(seed, path):
    """Train the cells of a seed that the file lacks."""
    digits = data.load(None, seed)
    for optimizer, arm, rate in missing(path, seed, RATES, ARMS):
        torch.manual_seed(seed)
        net = network.network()
        source = net if arm == DECLARED else dict(net.named_parameters())
        decay = train.RECIPES[optimizer].weight_decay
        plan = nnlr.resolve(source, lr=rate, weight_decay=decay)
        options = Namespace(optimizer=optimizer, seed=seed, epochs=6, batch_size=64)
        out = train.train(net, plan, digits, options, lambda: None)
        cell = {"seed": seed, "optimizer": optimizer, "arm": arm, "lr": f"{rate:g}"}
        append(path, cell | {"right": out.right, "tested": out.tested})
    print(f"seed {seed} is complete", flush=True)


def report(cells):
    """A Markdown table: each arm at each rate, and the paired differences."""
    first, second = tables(cells, RATES, ARMS)["sgd"].values()
    words = [f"{rate:g}" for rate in RATES["sgd"]]
    pairs = list(zip(words, first, second, strict=True))
    pairs.append(("the best of each", first[best(first)], second[best(second)]))
    lines = [f"| rate | {DECLARED} | {UNIFORM} | difference |", "|---|---|---|---|"]
    for which, one, other in pairs:
        row = [points(one, 2), points(other, 2), points(one - other, 2, "+")]
        lines.append(f"| {which} | " + " | ".join(row) + " |")
    lines.append(f"| cross-fitted | | | {points(cross_fitted(first, second), 2, '+')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command(__doc__, CELLS, run, report)
