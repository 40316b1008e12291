"""A small network, and its training in one process by plain torch: the reference."""

import torch

from tests import helpers

# For each parameter (learning rate, weight decay), or None where it is locked.
RATES = {
    "0.weight": None,
    "0.bias": None,
    "1.weight": (0.001, 0.1),
    "1.bias": (0.001, 0.0),
    "3.weight": (0.01, 0.1),
    "3.bias": (0.01, 0.0),
}


def network(hidden=7):
    """By default of sizes that 2 and 3 processes do not divide evenly."""
    return helpers.network(4, hidden, 5, 3)


def batch(step, rank=0, world=1):
    """Rows that one of ``world`` processes sees of the 12 that all see at a step."""
    source = torch.Generator().manual_seed(step)
    return torch.randn(12, 4, generator=source).chunk(world)[rank]


def loss_of(model, inputs):
    return model(inputs).square().mean()


class ByHand:
    """Plain torch, one group for each parameter."""

    def __init__(self, cls=torch.optim.AdamW, rates=RATES, max_norm=None, hidden=7, **settings):
        self.net, self.cls, self.settings = network(hidden), cls, settings
        self.max_norm, self.norms = max_norm, []
        self.optimizer = self._optimizer(rates)

    def _optimizer(self, rates):
        groups = []
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(rates[name] is not None)
            parameter.grad = None
            if rates[name] is not None:
                lr, decay = rates[name]
                groups.append({"params": [parameter], "lr": lr, "weight_decay": decay})
        return self.cls(groups, lr=1.0, **self.settings)

    def change(self, rates):
        """Go on at other rates; what is trained still keeps its state."""
        state = self.optimizer.state
        self.optimizer = self._optimizer(rates)
        for group in self.optimizer.param_groups:
            (parameter,) = group["params"]
            if parameter in state:
                self.optimizer.state[parameter] = state[parameter]

    def train(self, *steps):
        for step in steps:
            self.optimizer.zero_grad()
            loss_of(self.net, batch(step)).backward()
            if self.max_norm is not None:
                trained = [p for p in self.net.parameters() if p.grad is not None]
                norm = torch.cat([p.grad.flatten() for p in trained]).norm()
                self.norms.append(norm)
                for parameter in trained:
                    parameter.grad *= min(1.0, self.max_norm / (norm + 1e-6))
            self.optimizer.step()
        return self
