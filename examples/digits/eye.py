"""A new eye for a trained reader: the example's network, where layer-wise rates gain.

A network that reads digits gets another camera, which delivers three channels of another kind
instead of one. Its first layer has to be new; all others know their work. Two labelled images of
each digit must do.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from train import count_right

import nnlr

# How fast the trained layers learn, beside the new ones at the base rate.
ARMS = {"one rate": 1.0, "layer-wise": 0.1, "new layer only": 0.0}
OPTIMIZERS = {"adamw": (torch.optim.AdamW, {}), "sgd": (torch.optim.SGD, {"momentum": 0.9})}
RATES = (2e-4, 5e-4, 2e-3, 5e-3, 2e-2)  # of the demo, with AdamW
STEPS, WEIGHT_DECAY = 40, 1e-4
PER_DIGIT, UNSEEN = 2, 400


@dataclass(frozen=True)
class Task:
    """A trained network with a new first layer, and what its new camera saw."""

    net: nn.Sequential
    images: Tensor  # to learn from, shape (20, 3, 32, 32)
    labels: Tensor
    unseen: Tensor  # up to 400 others, to test it on
    answers: Tensor


def prepare(net, images, labels, seed):
    """Give a trained network a new eye, and show it images of one channel that are new to it."""
    draw = torch.Generator().manual_seed(seed)
    images, labels = images.cpu(), labels.cpu()
    order = torch.randperm(len(labels), generator=draw)
    few = torch.cat([order[labels[order] == digit][:PER_DIGIT] for digit in range(10)])
    others = order[~torch.isin(order, few)][:UNSEEN]
    mix, _ = torch.linalg.qr(torch.randn(3, 3, generator=draw))
    parts = (camera(images[few], mix), labels[few], camera(images[others], mix), labels[others])
    device = next(net.parameters()).device
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay
        torch.default_generator.manual_seed(seed)
        net = with_new_eye(net).to(device)
    return Task(net, *(part.to(device) for part in parts))


def camera(images, mix):
    """What the new camera delivers: negative, blurred and edges, in mixed channels."""
    negative = -images
    blurred = F.avg_pool2d(images, 5, stride=1, padding=2)
    edges = F.max_pool2d(images, 3, 1, padding=1) + F.max_pool2d(negative, 3, 1, padding=1)
    return torch.einsum("nchw,dc->ndhw", torch.cat([negative, blurred, edges], dim=1), mix)


def with_new_eye(net):
    """A copy of the network whose first layer is new, and takes three channels."""
    net = copy.deepcopy(net)
    net.conv1 = nn.Conv2d(3, 32, kernel_size=5, padding=2)
    net.bn1 = nn.BatchNorm2d(32)
    return net


def declare(net, slow):
    """Let the trained layers learn at a share of the base rate, and the new ones at all of it."""
    for name in ("weight", "bias"):
        nnlr.learning_rate(net, name, slow)  # of every layer
        nnlr.learning_rate(net.conv1, name, 1)
        nnlr.learning_rate(net.bn1, name, 1)
    return net


def fine_tune(task, slow, optimizer, lr):
    """Teach a copy of the network its new eye, and count the unseen images that it reads."""
    net = declare(copy.deepcopy(task.net), slow)
    plan = nnlr.resolve(net, lr=lr, weight_decay=WEIGHT_DECAY)
    cls, settings = OPTIMIZERS[optimizer]
    optimizer = plan.optimizer(cls, **settings)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    scheduler = nnlr.schedule(optimizer, cosine, T_max=STEPS)
    net.train()
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.nll_loss(net(task.images), task.labels).backward()
        optimizer.step()
        scheduler.step()
    return count_right(net, task.unseen, task.answers)
