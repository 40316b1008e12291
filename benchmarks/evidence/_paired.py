"""What the evidence scripts share: cells in a file, paired intervals, rates chosen without bias.

A cell is one training run: a seed, an optimizer, an arm, a rate, and what came out. A table is an
array of one arm's results, a row for each rate and a column for each seed; larger is better.
"""

import argparse
import csv
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student


def read(path):
    """The cells of a CSV file as dicts of text; none if there is no file."""
    if not Path(path).exists():
        return []
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def append(path, cell):
    """Add a cell to a CSV file, so that a run that was stopped goes on where it was."""
    new = not Path(path).exists()
    with Path(path).open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, cell, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(cell)


def missing(path, seed, rates, arms):
    """The cells of a seed that a file lacks: optimizer, arm and rate of each."""
    there = {(cell["seed"], cell["optimizer"], cell["arm"], cell["lr"]) for cell in read(path)}
    return [
        (optimizer, arm, rate)
        for optimizer in rates
        for rate in rates[optimizer]
        for arm in arms
        if (str(seed), optimizer, arm, f"{rate:g}") not in there
    ]


def tables(cells, rates, arms):
    """The tables of accuracy in percent by optimizer and arm, of seeds all of whose cells ran."""
    share = {
        (cell["optimizer"], cell["arm"], cell["lr"], cell["seed"]): 100
        * int(cell["right"])
        / int(cell["tested"])
        for cell in cells
    }
    sweeps = {name: [f"{rate:g}" for rate in swept] for name, swept in rates.items()}
    wanted = [(name, arm, rate) for name in rates for arm in arms for rate in sweeps[name]]
    seeds = sorted({cell["seed"] for cell in cells}, key=int)
    seeds = [seed for seed in seeds if all((*key, seed) in share for key in wanted)]
    if len(seeds) < 2:
        raise SystemExit("A table needs two seeds, all of whose cells ran. Fix: pass --seeds.")
    return {
        name: {
            arm: np.array([[share[name, arm, rate, seed] for seed in seeds] for rate in sweep])
            for arm in arms
        }
        for name, sweep in sweeps.items()
    }


def interval(values):
    """The mean over seeds, and half the width of its 95 % interval (Student's t)."""
    values = np.asarray(values, dtype=float)
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / sqrt(len(values))
    return float(values.mean()), float(half)


def best(table):
    """The row of the rate whose mean over the seeds is highest."""
    return int(np.asarray(table).mean(axis=1).argmax())


def cross_fitted(first, second):
    """The differences first - second, seed by seed, at rates that the seed had no part in choosing.

    Each arm's rate is the best on one half of the seeds, and scored on the other half; in turns.
    """
    halves = np.array_split(np.arange(first.shape[1]), 2)
    differences = np.empty(first.shape[1])
    for chosen_on, scored_on in (halves, halves[::-1]):
        one, other = (table[best(table[:, chosen_on])] for table in (first, second))
        differences[scored_on] = (one - other)[scored_on]
    return differences


def points(values, digits=1, sign=""):
    """The mean of values and half of its interval, as text: ``95.1 ± 1.1``."""
    mean, half = interval(values)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


def command(doc, path, run, report):
    """Run the seeds that the command line asks for, and print the tables of all cells."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="seeds to run")
    parser.add_argument("--cells", type=Path, default=path, help="file of the cells (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on every machine
    for seed in options.seeds:
        run(seed, options.cells)
    print(report(read(options.cells)))
