"""Plain twins of optimizers that keep several algorithms in one, by their published layout.

The numbers of a step are shared with the classes below, one algorithm each, so that training
that goes on in a Mixed optimizer of these can be compared to the last bit.
"""

import torch
from torch.optim import Optimizer


def orthogonal(matrix):
    """A few steps towards the nearest orthogonal matrix."""
    x = matrix / matrix.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@torch.no_grad()
def muon_step(p, buffer, *, lr, momentum, weight_decay, sums=False):
    """Momentum averages gradients, or sums them as dion does; then Newton and Schulz."""
    if sums:
        buffer.mul_(momentum).add_(p.grad)
        update = p.grad + momentum * buffer
    else:
        buffer.lerp_(p.grad, 1 - momentum)
        update = p.grad.lerp(buffer, momentum)
    p.mul_(1 - lr * weight_decay).add_(orthogonal(update), alpha=-lr)


@torch.no_grad()
def adam_step(p, mean, square, step, *, lr, betas, eps, weight_decay):
    """AdamW, with the bias corrected outside of the root."""
    mean.lerp_(p.grad, 1 - betas[0])
    square.lerp_(p.grad.square(), 1 - betas[1])
    root = (square / (1 - betas[1] ** step)).sqrt() + eps
    p.mul_(1 - lr * weight_decay).add_(mean / (1 - betas[0] ** step) / root, alpha=-lr)


def muon_group(group):
    return {key: group[key] for key in ("lr", "momentum", "weight_decay")}


def adam_group(group):
    return {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}


class Muon(Optimizer):
    """One algorithm, in torch's layout."""

    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state.setdefault("momentum_buffer", torch.zeros_like(p))
                muon_step(p, state["momentum_buffer"], **muon_group(group))


class Adam(Optimizer):
    """One algorithm, in torch's layout."""

    def __init__(self, params, lr=3e-4, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state |= {"step": torch.tensor(0.0)}
                    state |= {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
                state["step"] += 1
                moments = state["exp_avg"], state["exp_avg_sq"]
                adam_step(p, *moments, state["step"].item(), **adam_group(group))


def counted_adam_step(p, state, group):
    """A step of Adam that counts in an ``int``."""
    if not state:
        state |= {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        state["step"] = 0
    state["step"] += 1
    adam_step(p, state["exp_avg"], state["exp_avg_sq"], state["step"], **adam_group(group))


class MuonWithAuxAdam(Optimizer):
    """``use_muon`` in each group; steps are counted in an ``int``."""

    def __init__(self, groups):
        super().__init__(groups, {})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if group["use_muon"]:
                    state.setdefault("momentum_buffer", torch.zeros_like(p))
                    muon_step(p, state["momentum_buffer"], **muon_group(group))
                    continue
                counted_adam_step(p, state, group)


class MuonAdamW(MuonWithAuxAdam):
    """nanochat's: ``kind``, and one stack of buffers for a group of one shape."""

    def step(self, closure=None):
        for group in self.param_groups:
            first = self.state[group["params"][0]]
            for at, p in enumerate(group["params"]):
                state = self.state[p] if group["kind"] == "adamw" else first
                if group["kind"] == "muon":
                    stack = torch.zeros(len(group["params"]), *p.shape, dtype=p.dtype)
                    buffer = state.setdefault("momentum_buffer", stack)[at]
                    state.setdefault("second_momentum_buffer", stack[..., :1].clone())
                    muon_step(p, buffer, **muon_group(group))
                    continue
                counted_adam_step(p, state, group)


class DionMuon(Optimizer):
    """``algorithm`` in each group, which counts its steps; Muon sums gradients."""

    def __init__(self, groups, lr=0.01, mu=0.95, betas=(0.9, 0.95)):
        defaults = {"lr": lr, "mu": mu, "beta1": betas[0], "beta2": betas[1], "step": 0}
        defaults |= {"algorithm": "muon", "weight_decay": 0.01, "epsilon": 1e-8}
        super().__init__(groups, {**defaults, "nesterov": True})

    def step(self, closure=None):
        for group in self.param_groups:
            group["step"] += 1
            rates = {key: group[key] for key in ("lr", "weight_decay")}
            for p in group["params"]:
                state = self.state[p]
                mean = state.setdefault("momentum", torch.zeros_like(p))
                if group["algorithm"] == "muon":
                    muon_step(p, mean, momentum=group["mu"], sums=True, **rates)
                elif group["algorithm"] == "lion":
                    lion_step(p, mean, beta1=group["beta1"], beta2=group["beta2"], **rates)
                else:
                    square = state.setdefault("variance", torch.zeros_like(p))
                    betas = group["beta1"], group["beta2"]
                    eps = group["epsilon"]
                    adam_step(p, mean, square, group["step"], betas=betas, eps=eps, **rates)


@torch.no_grad()
def lion_step(p, mean, *, beta1, beta2, lr, weight_decay):
    """The sign of a mean."""
    update = torch.sign(mean.lerp(p.grad, 1 - beta1))
    p.mul_(1 - lr * weight_decay).add_(update, alpha=-lr)
    mean.lerp_(p.grad, 1 - beta2)


class Lion(Optimizer):
    """One algorithm, in the layout of its usual classes."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                beta1, beta2 = group["betas"]
                rates = {key: group[key] for key in ("lr", "weight_decay")}
                lion_step(p, mean, beta1=beta1, beta2=beta2, **rates)
