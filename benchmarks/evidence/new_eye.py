"""A trained reader with a new first layer: one rate for all layers, or slow old layers.

    python benchmarks/evidence/new_eye.py                           the tables, from the cells here
    python benchmarks/evidence/new_eye.py --seeds 100 101 --cells again.csv     run what lacks

What is trained is examples/digits/eye.py. One seed is a split of the digits, a reader trained on
its training part, a camera, a new layer and twenty labelled images; then 48 runs, each arm at the
same eight rates with each optimizer. It takes a minute of one core.
"""

from argparse import Namespace
from pathlib import Path
from textwrap import wrap

import torch
from _digits import data, eye, network, train
from _paired import append, best, command, cross_fitted, interval, missing, points, tables

import nnlr

CELLS = Path(__file__).with_suffix(".csv")
SEEDS = range(100, 110)  # the rates and the task were settled on seeds 0, 1 and 2
RATES = {
    "adamw": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2),
    "sgd": (5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1),
}
NAMES = {"adamw": "AdamW", "sgd": "SGD"}
ARMS = eye.ARMS
UNIFORM, LAYERED, ALONE = ARMS


def run(seed, path):
    """Train a reader, give it a new eye, and run the cells of the seed that the file lacks."""
    cells = missing(path, seed, RATES, ARMS)
    if not cells:
        return
    digits = data.load(None, seed)
    torch.manual_seed(seed)
    net = network.network()
    recipe = train.RECIPES["sgd"]
    plan = nnlr.resolve(net, lr=recipe.lr, weight_decay=recipe.weight_decay)
    options = Namespace(optimizer="sgd", seed=seed, epochs=6, batch_size=64)
    reader = train.train(net, plan, digits, options, lambda: None)
    task = eye.prepare(net, digits.test_images, digits.test_labels, seed)
    for optimizer, arm, rate in cells:
        right = eye.fine_tune(task, ARMS[arm], optimizer, rate)
        cell = {"seed": seed, "reader": f"{reader.accuracy:.4f}", "optimizer": optimizer}
        cell |= {"arm": arm, "lr": f"{rate:g}", "right": right, "tested": len(task.answers)}
        append(path, cell)
    print(f"seed {seed}: {len(cells)} cells", flush=True)


def report(cells):
    """All of it as Markdown tables: each arm at each rate, and the paired differences."""
    lines = []
    for optimizer, arms in tables(cells, RATES, ARMS).items():
        seeds = arms[UNIFORM].shape[1]
        tops = [best(table) for table in arms.values()]
        lines += [f"{NAMES[optimizer]}, % of the unseen images, {seeds} seeds:", ""]
        lines += ["| rate | " + " | ".join(arms) + f" | {LAYERED} less {UNIFORM} |"]
        lines += ["|---:|" + "---|" * (len(arms) + 1)]
        for at, rate in enumerate(RATES[optimizer]):
            row = [points(table[at]) for table in arms.values()]
            row = [
                f"**{text}**" if at == top else text for text, top in zip(row, tops, strict=True)
            ]
            row.append(points(arms[LAYERED][at] - arms[UNIFORM][at], sign="+"))
            lines.append(f"| {rate:g} | " + " | ".join(row) + " |")
        lines += [
            "",
            "| difference | at the best rates | cross-fitted | mean over all rates | gains |",
        ]
        lines += ["|---|---|---|---|---|"]
        for first, second in ((LAYERED, UNIFORM), (ALONE, UNIFORM), (ALONE, LAYERED)):
            one, other = arms[first], arms[second]
            gain = one[best(one)] - other[best(other)]
            row = [gain, cross_fitted(one, other), (one - other).mean(axis=0)]
            row = [points(values, sign="+") for values in row]
            row.append(f"{(gain > 0).sum()} of {seeds} seeds")
            lines.append(f"| {first} less {second} | " + " | ".join(row) + " |")
        lines.append("")
    return "\n".join(lines).rstrip()


def summary(cells):
    """What came out, in 80 columns: each arm at its best rate, and where one rate is better."""
    results = tables(cells, RATES, ARMS)
    lines = [f"{'':8}{UNIFORM:15}{LAYERED:29}{ALONE}"]
    worse = []
    for optimizer, arms in results.items():
        tops = {arm: table[best(table)] for arm, table in arms.items()}
        row = [f"{NAMES[optimizer]:8}{points(tops[UNIFORM]):15}"]
        for arm in (LAYERED, ALONE):
            mean, half = interval(tops[arm] - tops[UNIFORM])
            tie = "*" if abs(mean) < half else ""
            row.append(f"{f'{points(tops[arm])} ({mean:+.1f} ± {half:.1f}){tie}':29}")
            swept = zip(RATES[optimizer], arms[arm] - arms[UNIFORM], strict=True)
            losses = [f"{points(gain)} at {rate:g}" for rate, gain in swept if is_loss(gain)]
            if losses:
                worse.append(f"{NAMES[optimizer]} {arm} {', '.join(losses)}")
        lines.append("".join(row).rstrip())
    lines.append("* a tie: the difference lies within its 95 % interval")
    return [*lines, *wrap(f"At low rates one rate is better: {'; '.join(worse)}.", 80)]


def is_loss(gain):
    """Whether a gain is below 0, all of its interval."""
    mean, half = interval(gain)
    return mean + half < 0


if __name__ == "__main__":
    command(__doc__, CELLS, run, report)
