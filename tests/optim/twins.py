"""Two optimizers side by side: torch's and ours, on equal parameters and gradients."""

import torch
from torch import nn

import nnlr

NAMES = ["SGD", "Adam", "AdamW"]
SHAPES = [(3, 4), (5,), (), (0, 3), (7, 2, 2), (33, 17)]
# A momentum for SGD: without it there is no state to get wrong.
USUAL = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
    "Adam": {"lr": 0.01, "weight_decay": 0.1},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1},
}


def classes(name):
    """Torch's class and ours."""
    return getattr(torch.optim, name), getattr(nnlr.optim, name)


def parameters(shapes=SHAPES, dtype=torch.float32, device="cpu"):
    """The same values at every call; the last two lie in memory otherwise than usual."""
    source = torch.Generator().manual_seed(1)
    made = [torch.randn(shape, generator=source) for shape in shapes]
    made.append(torch.randn(6, 4, generator=source).t())
    made.append(torch.randn(2, 3, 4, 5, generator=source).to(memory_format=torch.channels_last))
    return [nn.Parameter(each.to(device, dtype)) for each in made]


def thirds(params, **rates):
    """Three groups; the second has a rate of its own, the first and third share theirs."""
    return [
        {"params": params[:2], **rates},
        {"params": params[2:5], "lr": 0.02, "weight_decay": 0.0},
        {"params": params[5:], **rates},
    ]


def give_gradients(step, *sides, skip=lambda step, at: False):
    """The same new gradients for the parameters of every side."""
    source = torch.Generator().manual_seed(100 + step)
    for at, same in enumerate(zip(*sides, strict=True)):
        grad = torch.randn(same[0].shape, generator=source)
        for param in same:
            if skip(step, at):
                param.grad = None
            else:
                param.grad = torch.empty_like(param).copy_(grad)


def change_rates(step, *optimizers):
    """New rates at every step: of all groups, of one only, and the same for all."""
    for optimizer in optimizers:
        for position, group in enumerate(optimizer.param_groups):
            rate = 0.02 / (1 + step + (position if step % 3 else 0))
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def train(sides, optimizers, steps, *, start=0, **settings):
    """Step all optimizers on the same gradients, with changing rates."""
    for step in range(start, start + steps):
        change_rates(step, *optimizers)
        give_gradients(step, *sides, **settings)
        for optimizer in optimizers:
            optimizer.step()


def assert_equal(expected, actual):
    """Parameters are the same to the last bit."""
    for one, other in zip(expected, actual, strict=True):
        assert torch.equal(one, other)


def assert_same_state(expected, actual):
    """What two optimizers keep is the same to the last bit, parameter by parameter."""
    one, other = expected.state_dict(), actual.state_dict()
    assert one["state"].keys() == other["state"].keys()
    for key, kept in one["state"].items():
        assert kept.keys() == other["state"][key].keys()
        for name, value in kept.items():
            assert torch.equal(value, other["state"][key][name]), (key, name)


def pair(name, settings=None, torchs=None):
    """Parameters and optimizers of both kinds, in three groups; torch's is fused."""
    theirs, ours = parameters(), parameters()
    settings = USUAL[name] if settings is None else settings
    torch_class, our_class = classes(name)
    expected = torch_class(thirds(theirs), **settings, **(torchs or {"fused": True}))
    return (theirs, ours), (expected, our_class(thirds(ours), **settings))
