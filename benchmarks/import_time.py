"""What ``import nnlr`` adds to ``import torch``, in fresh interpreters. Target: at most 8 %.

Each interpreter imports torch, then nnlr, and says how long each took, in CPU seconds: a busy
machine makes them longer, but does not count the time in which another process ran.
"""

import os
import subprocess
import sys

from _timing import machine, ratios, summary

ROUNDS = 15
CODE = """
import time
start = time.process_time()
import torch
middle = time.process_time()
import nnlr
end = time.process_time()
plan = nnlr.resolve(torch.nn.Linear(1, 1), nnlr.rule("*"), lr=1, weight_decay=0)
print((middle - start) * 1e3, (end - middle) * 1e3, (time.process_time() - end) * 1e3)
"""
STEPS = ("import torch", "import nnlr", "resolve a first plan")


def milliseconds() -> list[float]:
    """The CPU time of every step, in a new interpreter."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return [float(value) for value in done.stdout.split()]


def main() -> None:
    """Print the medians, and the share of nnlr."""
    print(machine())
    milliseconds()  # writes the byte code, fills the disk's cache
    times = dict(
        zip(STEPS, zip(*(milliseconds() for _ in range(ROUNDS)), strict=True), strict=True)
    )
    for step, values in times.items():
        print(f"  {step:<24}{summary(list(values))} ms of CPU")
    share = [100 * ratio for ratio in ratios(times["import nnlr"], times["import torch"])]
    print(f"  nnlr adds               {summary(share)} % to torch")


if __name__ == "__main__":
    main()
