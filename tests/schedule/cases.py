"""Schedulers of torch and transformers with arguments that hurt, and small runs of them."""

import io

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

BASE = 1e-3
MULTS = (1.0, 0.1, 0.01, 0.0)
STEPS = 40


def grow(epoch):
    """A factor that goes up and down."""
    return 1 + (epoch % 5) / 4


def chained(opt):
    """Two schedulers that multiply."""
    return lrs.ChainedScheduler([lrs.ConstantLR(opt), lrs.ExponentialLR(opt, 0.9)])


def sequential(opt):
    """Warm-up, then a cosine with a floor."""
    parts = [
        lrs.LinearLR(opt, 0.1, total_iters=5),
        lrs.CosineAnnealingLR(opt, 30, 1e-5),
    ]
    return lrs.SequentialLR(opt, parts, milestones=[5])


# Every scheduler of torch, with the arguments that hurt: floors, peaks, cycled momentum.
TORCH = {
    "LambdaLR": [(lrs.LambdaLR, {"lr_lambda": grow})],
    "MultiplicativeLR": [(lrs.MultiplicativeLR, {"lr_lambda": lambda epoch: 0.9})],
    "StepLR": [(lrs.StepLR, {"step_size": 7})],
    "MultiStepLR": [(lrs.MultiStepLR, {"milestones": [5, 9]})],
    "ConstantLR": [(lrs.ConstantLR, {})],
    "LinearLR": [(lrs.LinearLR, {})],
    "ExponentialLR": [(lrs.ExponentialLR, {"gamma": 0.9})],
    "SequentialLR": [(sequential, {})],
    "CosineAnnealingLR": [
        (lrs.CosineAnnealingLR, {"T_max": 30}),
        (lrs.CosineAnnealingLR, {"T_max": 30, "eta_min": 1e-4}),
    ],
    "ChainedScheduler": [(chained, {})],
    "ReduceLROnPlateau": [
        (lrs.ReduceLROnPlateau, {"patience": 2}),
        (lrs.ReduceLROnPlateau, {"patience": 2, "min_lr": 1e-4}),
    ],
    "CyclicLR": [
        (lrs.CyclicLR, {"base_lr": 1e-4, "max_lr": 1e-2, "step_size_up": 6}),
    ],
    "CosineAnnealingWarmRestarts": [
        (lrs.CosineAnnealingWarmRestarts, {"T_0": 7, "eta_min": 1e-5}),
    ],
    "OneCycleLR": [(lrs.OneCycleLR, {"max_lr": 1e-2, "total_steps": STEPS + 1})],
    "PolynomialLR": [(lrs.PolynomialLR, {"total_iters": 30})],
    "LRScheduler": [],  # the base class schedules nothing
}
CASES = [
    pytest.param(*case, id=f"{name}-{i}")
    for name, cases in TORCH.items()
    for i, case in enumerate(cases)
]


def transformers_cases():
    """Every scheduler of transformers, with a floor where it takes one."""
    settings = {
        "cosine_with_min_lr": {"min_lr": 1e-4},
        "cosine_warmup_with_min_lr": {"min_lr": 1e-4},
        "warmup_stable_decay": {"num_decay_steps": 10},
        "reduce_lr_on_plateau": {"min_lr": 1e-4, "patience": 2},
        "greedy": {"min_lr": 1e-5, "max_lr": 1e-2, "patience": 2},
    }
    transformers = pytest.importorskip("transformers")
    for kind in transformers.SchedulerType:
        yield kind, settings.get(kind.value)


def parameters():
    """The same four tensors every time."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2, generator=generator)) for _ in MULTS]


def grouped(cls, tensors, **settings):
    """An optimizer as nnlr builds it: true rates, multipliers beside them."""
    groups = [
        {"params": [tensor], "lr": BASE * mult, "lr_mult": mult}
        for tensor, mult in zip(tensors, MULTS, strict=True)
    ]
    return cls(groups, lr=BASE, **settings)


def gradients(tensors, step):
    """Deterministic gradients, as if from a loss."""
    for position, tensor in enumerate(tensors):
        generator = torch.Generator().manual_seed(1000 * position + step)
        tensor.grad = torch.randn(tensor.shape, generator=generator)


def metric(step):
    """A validation loss that stops falling."""
    return max(1.0 - step / 10, 0.5)


def advance(scheduler, step):
    """Step a scheduler of either kind."""
    takes = isinstance(scheduler, lrs.ReduceLROnPlateau) or hasattr(scheduler, "is_better")
    scheduler.step(metric(step)) if takes else scheduler.step()


def run(scheduler, steps, start=0):
    """Steps of optimizer and scheduler."""
    for step in range(start, start + steps):
        gradients([g["params"][0] for g in scheduler.optimizer.param_groups], step)
        scheduler.optimizer.step()
        advance(scheduler, step)


def saved(thing):
    """A state as trainers save and load it."""
    buffer = io.BytesIO()
    torch.save(thing.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
