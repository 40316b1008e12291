"""How long ``nnlr.check(plan, optimizer, scheduler)`` takes for a ViT-B with layer decay.

CPU time; 152 tensors in 28 groups, with gradients. Before a step, and after one, when it looks
at the optimizer's state and the gradients too. A copy of a plain scheduler is run; one of
``nnlr.schedule`` needs none. Target: at most 40 ms each.
"""

import time

import torch
from _timing import interleaved, machine, summary
from _vit_b import vit_b
from torch.optim.lr_scheduler import CosineAnnealingLR

import nnlr

ROUNDS = 15
LENGTHS = (300, 1000, 100_000)  # of the schedule, in steps


def main() -> None:
    """Print a table: milliseconds of each call."""
    print(machine())
    _model, plan = vit_b()  # the plan remembers it weakly
    tasks = {}
    for steps in LENGTHS:
        for kind in ("torch's", "ours"):
            for when in ("before a step", "after a step"):
                optimizer = plan.optimizer(torch.optim.AdamW)
                if kind == "ours":
                    scheduler = nnlr.schedule(optimizer, CosineAnnealingLR, T_max=steps)
                else:
                    scheduler = CosineAnnealingLR(optimizer, steps)
                if when == "after a step":
                    optimizer.step()

                def task(optimizer: object = optimizer, scheduler: object = scheduler) -> object:
                    return nnlr.check(plan, optimizer, scheduler)

                tasks[f"{steps:,} steps of {kind}, {when}"] = task
    for name, times in interleaved(tasks, ROUNDS, time.process_time).items():
        print(f"{name:38} {summary(times)} ms")


if __name__ == "__main__":
    main()
