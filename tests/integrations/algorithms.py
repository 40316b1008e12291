"""A plan of two algorithms, and what it means in plain torch: two optimizers, two schedulers."""

from functools import partial

import torch

import nnlr

CLASSES = {"muon": torch.optim.Muon, "adamw": partial(torch.optim.AdamW, betas=(0.9, 0.95))}
# FSDP2 has parts of matrices, of which torch's Muon needs the whole.
SHARDED = {"muon": partial(torch.optim.SGD, momentum=0.9), "adamw": torch.optim.AdamW}
BASES, DECAY = {"muon": 0.02, "adamw": 3e-3}, 0.1


def plan_of(model):
    """Matrices to the one, the rest to the other."""
    return nnlr.resolve(model, nnlr.route("muon", "adamw"), lr=BASES, weight_decay=DECAY)


def one_of(model, classes=CLASSES, **settings):
    """One optimizer."""
    return plan_of(model).optimizer(classes, **settings)


def several_of(model, matrices, classes=CLASSES):
    """Two optimizers; the names of the matrices are written out."""
    named = dict(model.named_parameters())
    parts = {"muon": [named.pop(name) for name in matrices], "adamw": list(named.values())}
    return [cls(parts[name], lr=BASES[name], weight_decay=DECAY) for name, cls in classes.items()]


def step_all(optimizers, schedulers=()):
    """Step each, one after the other, and drop the gradients."""
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    for scheduler in schedulers:
        scheduler.step()
