"""Several classes stepped one after the other, and the same ones in one optimizer."""

from functools import partial

import torch
from torch import nn

import nnlr

ADAMW, MUON, SGD = torch.optim.AdamW, torch.optim.Muon, partial(torch.optim.SGD, momentum=0.9)
OUR_ADAMW, OUR_SGD = nnlr.optim.AdamW, partial(nnlr.optim.SGD, momentum=0.9, weight_decay=0.1)

# The first of each takes the matrices.
SETS = {
    "sgd-adamw": (SGD, ADAMW),
    "muon-adamw": (MUON, ADAMW),
    "muon-our_adamw": (MUON, OUR_ADAMW),
    "our_sgd-our_adamw": (OUR_SGD, OUR_ADAMW),
    "muon-sgd": (MUON, SGD),
    "adam-nadam": (nnlr.optim.Adam, torch.optim.NAdam),
    "adafactor-adamw": (torch.optim.Adafactor, partial(ADAMW, amsgrad=True)),
    "rmsprop-radam": (partial(torch.optim.RMSprop, centered=True), torch.optim.RAdam),
    "adagrad-adamax": (torch.optim.Adagrad, torch.optim.Adamax),
    "asgd-rprop": (torch.optim.ASGD, torch.optim.Rprop),
    "adadelta-adam": (torch.optim.Adadelta, partial(torch.optim.Adam, weight_decay=0.1)),
    "foreach-fused": (partial(ADAMW, foreach=True), partial(ADAMW, fused=True)),
    "muon-adamw-sgd": (partial(MUON, nesterov=False), ADAMW, SGD),
    "sgd-adafactor-nadam": (OUR_SGD, torch.optim.Adafactor, torch.optim.NAdam),
    "adamw-adamw-rmsprop": (partial(ADAMW, lr=0.1), OUR_ADAMW, torch.optim.RMSprop),
}
SHAPES = [(3, 4), (5, 3), (4, 4), (2, 6), (4,), (7,), (3,), (2,), (5,)]
NAMES = ("first", "second", "third")


def parameters():
    """Four matrices and five vectors, the same at every call."""
    source = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=source)) for shape in SHAPES]


def groups_of(params, number, lr=None):
    """For each of so many classes its groups: two each, with rates of their own."""
    vectors = params[4:]
    shares = [params[:4], *(vectors[at :: number - 1] for at in range(number - 1))]
    rates = [lr or (lambda rate: rate)] * 2
    return [
        [
            {"params": share[:2], "lr": rates[0](0.02 / (1 + at))},
            {"params": share[2:], "lr": rates[1](0.01), "weight_decay": 0.05},
        ]
        for at, share in enumerate(shares)
    ]


def separate(classes, params, **how):
    """An optimizer of each class."""
    parts = groups_of(params, len(classes), **how)
    return [cls(_known(cls, groups)) for cls, groups in zip(classes, parts, strict=True)]


def together(classes, params, **how):
    """The same in one optimizer, groups of the classes in turn."""
    parts = groups_of(params, len(classes), **how)
    named = [
        [{**group, "algorithm": name} for group in _known(cls, groups)]
        for name, cls, groups in zip(NAMES, classes, parts, strict=False)
    ]
    groups = [group for turn in zip(*named, strict=True) for group in turn]
    return nnlr.optim.Mixed(groups, dict(zip(NAMES, classes, strict=False)))


def _known(cls, groups):
    """Without a decay where the class has none."""
    if getattr(cls, "func", cls) is torch.optim.Rprop:
        return [{k: v for k, v in group.items() if k != "weight_decay"} for group in groups]
    return groups


def give_gradients(step, params):
    """New gradients; the second tensor's come late, and the last never has one."""
    source = torch.Generator().manual_seed(100 + step)
    for at, param in enumerate(params):
        grad = torch.randn(param.shape, generator=source)
        none = at == len(params) - 1 or (at == 1 and step < 3)
        param.grad = None if none else grad


def train(params, optimizers, steps, after=lambda step: None):
    """Step one optimizer, or several one after the other."""
    for step in steps:
        give_gradients(step, params)
        for optimizer in optimizers:
            optimizer.step()
        after(step)


def same(params, others):
    """Whether two lists of tensors are equal to the last bit."""
    return all(torch.equal(one, other) for one, other in zip(params, others, strict=True))


def same_state(apart, mixed, params, others):
    """Whether each parameter has the state that its own optimizer has, to the last bit."""
    states = {param: state for optimizer in apart for param, state in optimizer.state.items()}
    assert len(states) == len(mixed.state)
    for param, other in zip(params, others, strict=True):
        one, two = states.get(param, {}), mixed.state.get(other, {})
        assert one.keys() == two.keys()
        assert all(
            torch.equal(one[key], two[key]) if torch.is_tensor(one[key]) else one[key] == two[key]
            for key in one
        )
    return True
