"""How long a step of nnlr.optim.Mixed takes beside those of the optimizers that it is of.

1,000 tensors, half of them matrices, with gradients: the matrices to the first class, the rest to
the second, 14 groups of each. ``separate`` steps an optimizer of each class, one after the other.
Both step the same parameters and gradients, each with its own state, and take turns in a round.

    python benchmarks/mixed.py            # two minutes on an idle core
"""

import argparse
import time
from functools import partial

import torch
from _timing import interleaved, machine, ratios, summary
from torch import nn

import nnlr

SGD = partial(torch.optim.SGD, momentum=0.9)
PAIRS = {
    "torch SGD, torch AdamW": (SGD, torch.optim.AdamW),
    "torch Muon, torch AdamW": (torch.optim.Muon, torch.optim.AdamW),
    "nnlr SGD, nnlr AdamW": (partial(nnlr.optim.SGD, momentum=0.9), nnlr.optim.AdamW),
    "torch Muon, nnlr AdamW": (torch.optim.Muon, nnlr.optim.AdamW),
}
GROUPS = 14


def groups(number: int, side: int) -> tuple[list[dict], list[dict]]:
    """Groups of matrices, and groups of vectors."""
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(side, side)) for _ in range(number // 2)]
    params += [nn.Parameter(torch.randn(side)) for _ in range(number - number // 2)]
    for param in params:
        param.grad = torch.randn_like(param)
    parts = []
    for share in (params[: number // 2], params[number // 2 :]):
        rates = [1e-6 * (1 + at) for at in range(GROUPS)]
        parts.append([{"params": share[at::GROUPS], "lr": rates[at]} for at in range(GROUPS)])
    return parts[0], parts[1]


def main() -> None:
    """Print a row for each pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, default=1000)
    parser.add_argument("--side", type=int, default=32, help="of the matrices")
    parser.add_argument("--rounds", type=int, default=61)
    options = parser.parse_args()
    print(machine())
    for name, classes in PAIRS.items():
        parts = groups(options.tensors, options.side)
        separate = [
            cls([dict(group) for group in part]) for cls, part in zip(classes, parts, strict=True)
        ]
        named = [
            {**group, "algorithm": algorithm}
            for algorithm, part in zip(("first", "second"), parts, strict=True)
            for group in part
        ]
        mixed = nnlr.optim.Mixed(named, dict(zip(("first", "second"), classes, strict=True)))

        def one_after_the_other(optimizers: list[torch.optim.Optimizer] = separate) -> None:
            for optimizer in optimizers:
                optimizer.step()

        tasks = {"separate": one_after_the_other, "Mixed": mixed.step}
        times = interleaved(tasks, options.rounds, time.process_time)
        ratio = summary(ratios(times["Mixed"], times["separate"]))
        apart, together = summary(times["separate"]), summary(times["Mixed"])
        print(f"{name:<26} separate {apart} ms, Mixed {together} ms, ratio {ratio}")


if __name__ == "__main__":
    main()
