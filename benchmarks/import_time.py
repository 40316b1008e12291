"""What ``import nnlr`` adds to ``import torch``, in fresh interpreters. Target: at most 8 %.

Each interpreter imports torch, then nnlr, and prints how long each took, in CPU seconds: a busy
machine makes them longer, but the time of other processes does not count.

Importing torch leaves Python's garbage collector about to go through all of torch's objects once,
which takes 90 ms and falls to whatever is imported next. So nnlr is timed twice: after that
collection, and with it.
"""

import os
import subprocess
import sys

from _timing import machine, ratios, summary

ROUNDS = 15
CODE = """
import gc, time
start = time.process_time()
import torch
torch_time = time.process_time() - start
{before}
start = time.process_time()
import nnlr
nnlr_time = time.process_time() - start
start = time.process_time()
nnlr.resolve(torch.nn.Linear(1, 1), nnlr.rule("*"), lr=1, weight_decay=0)
print(torch_time * 1e3, nnlr_time * 1e3, (time.process_time() - start) * 1e3)
"""
VARIANTS = {"after the collection": "gc.collect()", "with the collection": ""}
STEPS = ("import torch", "import nnlr", "resolve a first plan")


def milliseconds(before: str) -> list[float]:
    """The CPU time of every step, in a new interpreter that may write byte code."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", CODE.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [float(value) for value in done.stdout.split()]


def main() -> None:
    """Print the medians, and the share of nnlr."""
    print(machine())
    runs: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}
    milliseconds("")  # writes the byte code, fills the disk's cache
    for _ in range(ROUNDS):
        for name, before in VARIANTS.items():
            runs[name].append(milliseconds(before))
    for name, rounds in runs.items():
        print(name)
        columns = [list(column) for column in zip(*rounds, strict=True)]
        for step, values in zip(STEPS, columns, strict=True):
            print(f"  {step:<24}{summary(values)} ms of CPU")
        share = [100 * ratio for ratio in ratios(columns[1], columns[0])]
        print(f"  {'nnlr adds':<24}{summary(share)} % to torch")


if __name__ == "__main__":
    main()
