"""A small network, moving plans of it, and a reference that computes every rate by hand."""

import math

import pytest
import torch
from torch import nn

import nnlr

LAYERS = {f"{at}.*": at for at in range(4)}
BASE, DECAY, TOTAL = 0.1, 0.05, 20


def half_cosine(t, layer):
    """To 0, the earlier the lower the layer."""
    return max(0.0, math.cos(t * math.pi / 2 * (1 + layer.below)))


def blink(t):
    """0 and 1 in turns of two steps."""
    return float(t.step // 2 % 2)


def network():
    """Four layers, the same at each call."""
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])


def plan_of(net, *schemes, lr=BASE, weight_decay=DECAY):
    """A plan by these schemes."""
    return nnlr.resolve(net, *schemes, lr=lr, weight_decay=weight_decay)


def backward(net, step, optimizer=None):
    """Gradients of a loss whose data depend on the step."""
    net.zero_grad()
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
    net(inputs).square().sum().backward()


def train(net, optimizer, attached, steps, *schedulers):
    """Some steps."""
    for _ in range(steps):
        backward(net, attached.progress.step)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def same_weights(one, other):
    """Whether two networks are equal to the last bit."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def rates(optimizer, key="lr"):
    """A setting by the first parameter of each group."""
    return {group["param_names"][0]: float(group[key]) for group in optimizer.param_groups}


def close(values):
    """The same numbers, computed in another order."""
    return pytest.approx(values, rel=1e-6, abs=1e-12)
