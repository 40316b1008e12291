"""What nnlr.attach costs of a training step: forward, backward and nnlr.optim.AdamW.

Three copies of a network take turns in a round: one to which nothing is attached, one whose move
is at work and has nothing to do in the step, and one whose multipliers all move at each step. Each
layer is a unit, hence a group. A schedule stands in all three. What the two hooks take when nothing
is due is too little to be seen beside a step, and is timed alone as well. CPU time of this process.

    python benchmarks/attach.py            # two minutes on an idle core
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from _timing import interleaved, machine, ratios, summary
from torch import nn
from torch.optim.lr_scheduler import ConstantLR

import nnlr
from nnlr._rows.units import Unit

# Groups, width of a layer, rows of a batch, rounds.
CASES = {"28 groups of 256k": (28, 512, 64, 40), "200 groups of 65k": (200, 256, 64, 20)}


class Still(nnlr.Move):
    """It moves nothing after the start."""

    def due(self, now: nnlr.Progress, units: Sequence[Unit]) -> bool:
        """Never."""
        return False

    def mults(self, now: nnlr.Progress, units: Sequence[Unit]) -> Sequence[float]:
        """All 1."""
        return [1.0] * len(units)


def step_of(groups: int, width: int, rows: int, move: object) -> tuple[Callable[[], None], object]:
    """A training step, and what is attached."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(width, width) for _ in range(groups)])
    layers = {f"{at}.*": at for at in range(groups)}
    scheme = nnlr.layer_decay(0.99, indexer=layers)
    plan = nnlr.resolve(model, scheme if move is None else scheme.at(move), lr=1e-4, weight_decay=0)
    optimizer = plan.optimizer(nnlr.optim.AdamW)
    attached = None if move is None else nnlr.attach(optimizer, plan, total_steps=10**9)
    schedule = nnlr.schedule(optimizer, ConstantLR, factor=1.0)
    inputs = torch.randn(rows, width)

    def step() -> None:
        model(inputs).square().mean().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    return step, attached


def hooks_alone(attached: object, count: int = 2000) -> float:
    """Microseconds of both hooks of a step."""
    start = time.process_time()
    for _ in range(count):
        attached._before(attached.optimizer, (attached.optimizer,), {})
        attached._after()
    return (time.process_time() - start) / count * 1e6


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    print(machine())
    for name in parser.parse_args().cases:
        *sizes, rounds = CASES[name]
        moves = {"none": None, "nothing due": Still(), "all move": lambda t, layer: 1 - t}
        made = {kind: step_of(*sizes, move) for kind, move in moves.items()}
        steps = {kind: step for kind, (step, _) in made.items()}
        times = interleaved(steps, rounds, time.process_time)
        print(f"{name}: a step takes {summary(times['none'])} ms")
        for kind in ("nothing due", "all move"):
            share = [100 * (each - 1) for each in ratios(times[kind], times["none"])]
            alone = hooks_alone(made[kind][1])
            of_step = 100 * alone / 1e3 / statistics.median(times["none"])
            print(f"  {kind}: {summary(share)} % more; hooks {alone:.0f} us, {of_step:.2f} %")


if __name__ == "__main__":
    main()
