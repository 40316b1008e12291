"""One training run, through a torch optimizer or in Torch7's way."""

import math
import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F

import nnlr


@dataclass(frozen=True)
class Recipe:
    """Base rates and settings of one way to train."""

    label: str  # what it is, in words
    lr: float
    weight_decay: float
    settings: dict  # further arguments of the optimizer


# Torch7's dampening is the momentum unless given, and torch's is 0.
RECIPES = {
    "sgd": Recipe("torch.optim.SGD", 0.1, 1e-4, {"momentum": 0.9, "dampening": 0.9}),
    "adamw": Recipe("torch.optim.AdamW", 1e-3, 1e-2, {}),
    "torch7": Recipe("nnlr.torch7.sgd", 0.1, 1e-4, {"momentum": 0.9, "dampening": 0.9}),
}


@dataclass(frozen=True)
class Run:
    """What came out of a training run."""

    losses: list  # mean training loss of each epoch
    right: int  # test images whose digit was recognised at the end
    tested: int  # test images
    seconds: float  # wall time of the training
    gradients: int  # numbers of the network that have a gradient
    state: int  # numbers of the network that have a state in the optimizer, such as a momentum

    @property
    def accuracy(self):
        """Share of the test images whose digit was recognised, 0 to 1."""
        return self.right / self.tested


def train(net, plan, data, options, tick):
    """Train a network in place at the rates of a plan, and test it.

    The batches depend on ``options.seed`` alone; ``tick`` is called after every step.
    """
    step, state = stepper(net, plan, options.optimizer)
    begin = time.perf_counter()  # the first optimizer of a process imports much
    order = torch.Generator().manual_seed(options.seed)
    losses = []
    net.train()
    for epoch in range(1, options.epochs + 1):
        total = torch.zeros((), device=data.train_images.device)
        for batch in batches(len(data.train_labels), options.batch_size, order):
            loss = step(data.train_images[batch], data.train_labels[batch])
            total += loss * len(batch)
            tick()
        losses.append(float(total) / len(data.train_labels))
        if not math.isfinite(losses[-1]):
            raise nnlr.NnlrError(
                f"The training loss became {losses[-1]} in epoch {epoch}: training diverged."
            )
    seconds = round(time.perf_counter() - begin, 3)
    right = count_right(net, data.test_images, data.test_labels)
    gradients = sum(p.numel() for p in net.parameters() if p.grad is not None)
    return Run(losses, right, len(data.test_labels), seconds, gradients, state())


def batch_count(images, size):
    """How many steps an epoch has."""
    return max(1, images // size)


def batches(images, size, order):
    """The indices of the images, shuffled and split into the batches of one epoch.

    They have ``size`` images or a few more: batch norm cannot use a small batch at the end.
    """
    shuffled = torch.randperm(images, generator=order)
    return torch.tensor_split(shuffled, batch_count(images, size))


@torch.no_grad()
def count_right(net, images, labels):
    """Count the images whose digit a network recognises."""
    net.eval()
    right = 0
    for part in torch.split(torch.arange(len(labels)), 1000):
        right += int((net(images[part]).argmax(dim=1) == labels[part]).sum())
    return right


def stepper(net, plan, method):
    """Two functions: one trains on a batch and returns the loss before the step, one counts.

    It counts the numbers of the network for which there is a state.
    """
    settings = RECIPES[method].settings
    if method == "torch7":
        # Torch7's way: all parameters in one vector, beside one of rates and one of decays.
        params, grad_params = nnlr.torch7.get_parameters(net)
        rates, decays = plan.vectors()
        config = {"learning_rates": rates, "weight_decays": decays, **settings}
    else:
        cls = torch.optim.AdamW if method == "adamw" else torch.optim.SGD
        optimizer = plan.optimizer(cls, **settings)

    def torch7_step(images, labels):
        def feval(_):
            grad_params.zero_()
            loss = F.nll_loss(net(images), labels)
            loss.backward()
            return loss, grad_params

        return nnlr.torch7.sgd(feval, params, config)[1][0]

    def step(images, labels):
        optimizer.zero_grad()
        loss = F.nll_loss(net(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def state():
        if method == "torch7":
            return config["momentum_buffer"].numel()
        return sum(param.numel() for param in optimizer.state)

    return (torch7_step if method == "torch7" else step), state
