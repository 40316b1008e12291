"""What ``import nnlr`` adds to ``import torch``, in fresh interpreters. Target: 50 ms."""

import subprocess
import sys

from _timing import machine, summary

ROUNDS = 9
CODE = """
import time, torch
start = time.perf_counter()
{what}
print((time.perf_counter() - start) * 1e3)
"""
TASKS = {
    "import nnlr": "import nnlr",
    "import nnlr and first use": (
        "import nnlr; nnlr.resolve(torch.nn.Linear(1, 1), nnlr.rule('*'), lr=1, weight_decay=0)"
    ),
}


def milliseconds(what: str) -> float:
    """Time it in a new interpreter that has imported torch."""
    code = CODE.format(what=what)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print the medians."""
    print(machine())
    times: dict[str, list[float]] = {name: [] for name in TASKS}
    for what in TASKS.values():
        milliseconds(what)  # write the byte code
    for _ in range(ROUNDS):
        for name, what in TASKS.items():
            times[name].append(milliseconds(what))
    for name, values in times.items():
        print(f"  {name:<28}{summary(values)} ms")


if __name__ == "__main__":
    main()
