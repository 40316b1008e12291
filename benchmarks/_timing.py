"""What the benchmarks share: interleaved timing and a word on the machine."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(
    tasks: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds of every task in every round; the tasks take turns within a round.

    The machine's speed drifts, so only what ran in the same round is compared. Where others
    work on it too, ``clock=time.process_time`` counts the CPU time of this process alone.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()  # once unmeasured, to fill caches
    for _ in range(rounds):
        for name, task in tasks.items():
            start = clock()
            result = task()
            times[name].append((clock() - start) * 1e3)
            del result
    return times


def summary(values: list[float]) -> str:
    """Median and spread: ``12.3 (11.9 to 14.0)``."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.3g} ({low:.3g} to {high:.3g})"


def ratios(values: list[float], reference: list[float]) -> list[float]:
    """The ratio of two tasks, round by round."""
    return [value / base for value, base in zip(values, reference, strict=True)]


def machine() -> str:
    """One line on the machine and the versions."""
    return (
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
