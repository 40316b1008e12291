"""What nnlr.relative adds to a step, beside the step alone and timm's own LAMB and LARS.

A ViT-B with layer decay (152 tensors in 28 groups), and 1,000 small matrices in one group, with
gradients. Every task has parameters and state of its own; they take turns in a round.

    python benchmarks/relative.py            # five minutes on an idle core
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import timm.optim
import torch
from _timing import interleaved, machine, ratios, summary
from _vit_b import vit_b
from torch import nn

import nnlr

ADAMW = partial(torch.optim.AdamW, foreach=True)
SGD = partial(torch.optim.SGD, momentum=0.9, foreach=True)


def copied(groups: list[dict]) -> list[dict]:
    """The same groups with parameters of their own."""
    return [{**group, "params": [_copy(param) for param in group["params"]]} for group in groups]


def _copy(param: torch.Tensor) -> nn.Parameter:
    twin = nn.Parameter(param.detach().clone())
    twin.grad = torch.full_like(twin, 1e-3)
    return twin


def small() -> list[dict]:
    """A thousand matrices 32 x 32."""
    torch.manual_seed(0)
    return [{"params": [torch.randn(32, 32) for _ in range(1000)], "lr": 1e-3, "weight_decay": 0.1}]


def large() -> list[dict]:
    """Groups of a ViT-B."""
    model, plan = vit_b()
    keys = {"lr", "weight_decay"}
    groups = plan.param_groups(model)
    return [
        {"params": [tensor for _, tensor in group["params"]], **{k: group[k] for k in keys}}
        for group in groups
    ]


def tasks(groups: list[dict]) -> dict[str, Callable[[], object]]:
    """A step of each optimizer."""

    def step(cls: Callable, kind: str | None = None, decay: bool = True) -> Callable[[], object]:
        own = copied(groups)
        if not decay:
            own = [{**group, "weight_decay": 0.0} for group in own]
        optimizer = cls(own)
        if kind is not None:
            nnlr.relative(optimizer, kind)
        return optimizer.step

    lamb = partial(timm.optim.Lamb, max_grad_norm=None)
    return {
        "torch AdamW": step(ADAMW),
        "torch AdamW, lamb": step(ADAMW, "lamb"),
        "timm Lamb": step(lamb),
        "torch AdamW, relative": step(ADAMW, "relative"),
        "torch AdamW, hyperball": step(ADAMW, "hyperball", decay=False),
        "nnlr AdamW": step(nnlr.optim.AdamW),
        "nnlr AdamW, hyperball": step(nnlr.optim.AdamW, "hyperball", decay=False),
        "torch SGD": step(SGD),
        "torch SGD, lars": step(SGD, "lars"),
        "timm Lars": step(partial(timm.optim.Lars, momentum=0.9)),
    }


def main() -> None:
    """Print a row for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    print(machine())
    for name, groups in (("1,000 matrices 32 x 32", small()), ("ViT-B", large())):
        times = interleaved(tasks(groups), options.rounds, time.process_time)
        for task, values in times.items():
            base = "torch SGD" if "SGD" in task or "Lars" in task else "torch AdamW"
            ratio = summary(ratios(values, times[base]))
            print(f"{name:<24} {task:<24} {summary(values)} ms, ratio {ratio}")


if __name__ == "__main__":
    main()
