"""What nnlr.report.Monitor costs of a training step: forward, backward and AdamW.

Three copies of a model take turns in a round: one without a monitor, one whose monitor does not
read (a step off cadence), one whose monitor reads at every step. The share at a cadence of 50 is
(reading + 49 * off cadence) / 50, over a step without. CPU time of this process. What the hooks
take off cadence is too little to be seen beside a step, and is timed alone as well.

    python benchmarks/monitor.py            # three minutes on an idle core
"""

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch
from _timing import interleaved, machine, summary
from torch import nn
from torch.nn import functional as F

import nnlr
from nnlr.report import Monitor

EVERY = 50  # the default


def perceptron() -> tuple[nn.Module, torch.Tensor]:
    """Six small tensors, and a batch of 256 rows."""
    layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(*layers), torch.randn(256, 64)


def vit(name: str, batch: int) -> tuple[nn.Module, torch.Tensor]:
    """A ViT of timm, 152 tensors, and a batch of images."""
    return timm.create_model(name, num_classes=10), torch.randn(batch, 3, 224, 224)


CASES = {
    "perceptron 9k, batch 256": (perceptron, 400),
    "ViT-Ti 5.5M, batch 4": (lambda: vit("vit_tiny_patch16_224", 4), 12),
    "ViT-B 86M, batch 2": (lambda: vit("vit_base_patch16_224", 2), 4),
}


def step_of(make: Callable, every: int | None) -> tuple[Callable[[], None], Monitor | None]:
    """A training step, watched at a cadence or not at all."""
    torch.manual_seed(0)
    model, x = make()
    labels = torch.zeros(len(x), dtype=torch.long)
    plan = nnlr.resolve(model, nnlr.no_weight_decay(), lr=1e-4, weight_decay=0.05)
    optimizer = plan.optimizer(nnlr.optim.AdamW)
    monitor = None if every is None else Monitor(plan, optimizer, every=every)

    def step() -> None:
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # a first step is always read
    return step, monitor


def hooks_alone(monitor: Monitor, count: int = 100_000) -> float:
    """Microseconds of both hooks of a step that is not read."""
    start = time.process_time()
    for _ in range(count):
        monitor._before(None, (), {})
        monitor._after(None, (), {})
    return (time.process_time() - start) / count * 1e6


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    print(machine())
    for name in parser.parse_args().cases:
        make, rounds = CASES[name]
        steps = {"none": None, "off": 10**9, "reading": 1}
        pairs = {task: step_of(make, every) for task, every in steps.items()}
        times = interleaved(
            {task: pair[0] for task, pair in pairs.items()}, rounds, time.process_time
        )
        shares = [
            ((reading + (EVERY - 1) * none) / EVERY / none - 1) * 100
            for none, reading in zip(times["none"], times["reading"], strict=True)
        ]
        off = [a / b for a, b in zip(times["off"], times["none"], strict=True)]
        monitor = pairs["off"][1]
        hooks = statistics.median(hooks_alone(monitor, 20_000) for _ in range(5))
        step = statistics.median(times["none"])
        print(
            f"{name}: step {summary(times['none'])} ms, read {summary(times['reading'])} ms, "
            f"off cadence / none {summary(off)}, hooks alone {hooks:.2f} us "
            f"({hooks / step / 10:.3f} %), at {EVERY}: {summary(shares)} %"
        )


if __name__ == "__main__":
    main()
