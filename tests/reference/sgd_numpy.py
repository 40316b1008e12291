"""Torch7's ``optim.sgd`` written out element by element, as a twin for tests.

It follows the published formula, in the scalar form, and shares nothing with nnlr: a
Python loop over elements, no vectorised arithmetic, its own reading of the defaults.
"""

import numpy as np


def sgd_numpy(gradient, start, steps, **config):
    """Return ``x`` after each of ``steps`` steps, one row each.

    Args:
        gradient: Maps ``x`` (n,) to the gradient (n,), NumPy in and out.
        start: The first ``x`` (n,).
        steps: How many steps.
        **config: The settings of ``optim.sgd`` in snake case; vectors are arrays (n,).
    """
    x = [float(value) for value in start]
    velocity = None
    rates = config.get("learning_rates")
    decays = config.get("weight_decays")
    base = config.get("learning_rate", 0.001 if rates is None else 1.0)
    annealing = config.get("learning_rate_decay", 0.0)
    mu = config.get("momentum", 0.0)
    tau = config.get("dampening", mu)

    rows = []
    for step in range(steps):
        slope = [float(value) for value in gradient(np.array(x))]
        previous = velocity
        velocity = []
        for i in range(len(x)):
            decay = config.get("weight_decay", 0.0) if decays is None else decays[i]
            g = slope[i] + float(decay) * x[i]
            v = g if previous is None else mu * previous[i] + (1.0 - tau) * g
            velocity.append(v)
            if mu == 0.0:
                direction = g
            elif config.get("nesterov", False):
                direction = g + mu * v
            else:
                direction = v
            rate = 1.0 if rates is None else float(rates[i])
            x[i] -= base / (1.0 + step * annealing) * rate * direction
        rows.append(list(x))
    return np.array(rows)
