"""How long a training step takes while FreezeOut freezes a network from below.

A chain of ten equal convolutions with batch norm, and a head; SGD with momentum, forward and
backward pass and step, on random images. The networks stand at the moments of a run in which 0,
2, 4, ... of the ten are frozen, and take turns within a round. With ``freeze`` the same layers are
frozen by a plan that does not move: what attach costs on top.

    python benchmarks/freeze_out_time.py      # a minute
"""

import statistics
import time
from collections.abc import Callable

import torch
from _timing import interleaved, machine, ratios, summary
from torch import nn

import nnlr

ROUNDS = 31
BLOCKS = 10
WIDTH = 32
IMAGES = torch.randn(16, 3, 16, 16)
LABELS = torch.arange(16) % 10
LAYERS = {f"{at}.*": at for at in range(BLOCKS + 1)}
TOTAL = 1000


def network() -> nn.Sequential:
    """Ten convolutions with batch norm, and a head."""
    torch.manual_seed(0)
    widths = [3, *[WIDTH] * BLOCKS]
    blocks = [
        nn.Sequential(nn.Conv2d(before, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU())
        for before in widths[:-1]
    ]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10))
    return nn.Sequential(*blocks, head)


def training(frozen: int, *, moves: bool) -> Callable[[], None]:
    """A training step of a network of which so many layers are frozen."""
    net = network()
    scheme = nnlr.freeze_out(0.5, "linear", indexer=LAYERS)
    if not moves:
        scheme = nnlr.freeze(below=frozen, groups=LAYERS) if frozen else nnlr.rule("*")
    plan = nnlr.resolve(net, scheme, lr=1e-4, weight_decay=1e-4)
    optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
    if moves:
        attached = nnlr.attach(optimizer, plan, total_steps=TOTAL)
        while sum(unit.mult == 0 for unit in attached.units) < frozen:
            optimizer.step()

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(IMAGES), LABELS).backward()
        optimizer.step()

    return step


def main() -> None:
    """Print medians and spreads: milliseconds of CPU time of a training step."""
    print(machine())
    tasks = {}
    for frozen in range(0, BLOCKS + 1, 2):
        tasks[f"freeze_out, {frozen:2} of {BLOCKS}"] = training(frozen, moves=True)
        tasks[f"freeze,     {frozen:2} of {BLOCKS}"] = training(frozen, moves=False)
    times = interleaved(tasks, ROUNDS, time.process_time)
    first = times[next(iter(times))]
    for name, values in times.items():
        ratio = ratios(values, first)
        low, high = statistics.quantiles(ratio, n=10)[0], statistics.quantiles(ratio, n=10)[-1]
        print(
            f"{name}: {summary(values)} ms, "
            f"{statistics.median(ratio):.2f} ({low:.2f} to {high:.2f}) of none frozen"
        )


if __name__ == "__main__":
    main()
