"""How long it takes to load an optimizer's state, and to step a schedule, with 28 groups.

A ViT-B with layer decay (28 groups, 152 tensors) after one step of AdamW. Loading by name is
``optimizer.load_state_dict`` of an optimizer that a plan built, and ``fit_state``; beside it is
torch's own on the same groups. A schedule's step is that of ``nnlr.schedule``, beside torch's
scheduler of the same class with a rate for each group.
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from _timing import interleaved, machine, ratios, summary
from _vit_b import vit_b
from torch.optim import lr_scheduler as lrs

import nnlr

ROUNDS = 101
STEPS = 30  # of a schedule, in one task
LONG = 10**7  # steps of a course
COURSES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "OneCycleLR": (lrs.OneCycleLR, {"max_lr": 1e-3, "total_steps": LONG}),
    "CosineAnnealingLR": (lrs.CosineAnnealingLR, {"T_max": LONG}),
    "LambdaLR": (lrs.LambdaLR, {"lr_lambda": lambda step: 1 / (1 + step)}),
}


def main() -> None:
    """Print medians and spreads: milliseconds of a load, microseconds of a step."""
    print(machine())
    _model, plan = vit_b()  # the plan remembers it weakly
    ours = plan.optimizer(torch.optim.AdamW)
    torchs = torch.optim.AdamW([dict(group) for group in plan.param_groups()], lr=1e-3)
    ours.step()
    torchs.step()
    state, torchs_state = ours.state_dict(), torchs.state_dict()
    loads = {
        "torch's load_state_dict": lambda: torchs.load_state_dict(torchs_state),
        "ours": lambda: ours.load_state_dict(state),
        "fit_state": lambda: nnlr.checkpoint.fit_state(state, ours),
    }
    for name, times in interleaved(loads, ROUNDS, time.process_time).items():
        print(f"{name:38} {summary(times)} ms")
    for name, (course, settings) in COURSES.items():
        theirs = copy.copy(settings)
        if "max_lr" in settings:  # a list, as torch wants it for rates that differ
            theirs["max_lr"] = [group["lr_mult"] * 1e-3 for group in ours.param_groups]
        steps = {
            f"{name} of torch": course(torchs, **theirs).step,
            f"{name} of nnlr.schedule": nnlr.schedule(ours, course, **settings).step,
        }
        ours.step()
        torchs.step()
        tasks = {
            key: lambda step=step: [step() for _ in range(STEPS)] for key, step in steps.items()
        }
        both = interleaved(tasks, ROUNDS, time.process_time)
        for key, times in both.items():
            print(f"{key:38} {summary([each * 1e3 / STEPS for each in times])} us")
        print(f"{'ratio':38} {summary(ratios(*reversed(both.values())))}")


if __name__ == "__main__":
    main()
