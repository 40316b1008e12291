"""SGD, Adam and AdamW written out by hand, as twins for tests.

The published formulas in float64, parameter by parameter, with no line of torch.optim or
nnlr: NumPy arrays in, NumPy arrays out. Each optimizer is a generator that is sent one
dictionary of gradients per step, and keeps what it needs in its own variables.
"""

import numpy as np


def sgd(
    x,
    lr,
    *,
    momentum=0.0,
    dampening=0.0,
    nesterov=False,
    weight_decay=0.0,
    maximize=False,
):
    """Yield ``x`` after each step; send ``(gradient, lr)``."""
    x = np.array(x, dtype=np.float64)
    velocity = None
    while True:
        gradient, lr = yield x.copy()
        g = (-gradient if maximize else gradient) + weight_decay * x
        if momentum:
            first = velocity is None
            velocity = g if first else momentum * velocity + (1 - dampening) * g
            g = g + momentum * velocity if nesterov else velocity
        x = x - lr * g


def adam(
    x,
    lr,
    *,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    maximize=False,
    decoupled=False,
):
    """Yield ``x`` after each step; send ``(gradient, lr)``."""
    x = np.array(x, dtype=np.float64)
    first, second, largest = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    step = 0
    while True:
        gradient, lr = yield x.copy()
        step += 1
        g = -gradient if maximize else gradient
        if decoupled:
            x = x * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * x
        first = betas[0] * first + (1 - betas[0]) * g
        second = betas[1] * second + (1 - betas[1]) * g * g
        largest = np.maximum(largest, second)
        scale = (largest if amsgrad else second) / (1 - betas[1] ** step)
        x = x - lr * (first / (1 - betas[0] ** step)) / (np.sqrt(scale) + eps)


def adamw(x, lr, *, weight_decay=0.01, **settings):
    """Yield ``x`` after each step; send ``(gradient, lr)``."""
    return adam(x, lr, weight_decay=weight_decay, decoupled=True, **settings)
