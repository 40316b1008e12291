"""Runs what ``plan.to_code`` writes, and compares it with the optimizer of the plan."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import SGD


class Heavy(SGD):
    """An optimizer of another package than torch."""


class Outer:
    """Has an optimizer in it."""

    class Heavy(SGD):
        """One that is imported with what it is in."""


class Small:
    """Stands for a model: its names, with tensors of a few elements."""

    def __init__(self, model):
        generator = torch.Generator().manual_seed(0)
        self.params = {}
        for name, param in model.named_parameters():
            shape = [min(size, 3) for size in param.shape]
            tensor = torch.randn(shape, generator=generator)
            self.params[name] = nn.Parameter(tensor, requires_grad=param.requires_grad)

    def named_parameters(self):
        """As a module has it."""
        yield from self.params.items()

    def train(self, *optimizers):
        """Three steps with gradients that are the same for every run."""
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            for param in self.params.values():
                grad = torch.randn(param.shape, generator=generator)
                param.grad = grad if param.requires_grad else None
            for optimizer in optimizers:
                optimizer.step()


def run(text):
    """What the code defines."""
    namespace = {}
    exec(text, namespace)  # noqa: S102 - that is what it is for
    return namespace


def groups_of(groups, names):
    """Groups as numbers and names."""
    notes = {"params", "param_names", "name", "lr_mult", "wd_mult", "algorithm", "origin", "fused"}
    return [
        (
            {key: value for key, value in group.items() if key not in notes},
            [names[id(param)] for param in group["params"]],
        )
        for group in groups
    ]


def compare(plan, model, cls, **settings):
    """Compare the groups of code and plan, their order, and weights after three steps."""
    text = plan.to_code(cls, model=model, **settings)
    functions = run(text)
    by_code, by_plan = Small(model), Small(model)
    canonical = dict(zip(by_plan.params, (row.name for row in plan), strict=True))
    stage = {canonical[name]: param for name, param in by_plan.params.items()}
    optimizer = plan.optimizer(cls, model=stage, partial=True, init="done", **settings)
    names = {id(param): name for name, param in by_plan.params.items()}
    planned = groups_of(optimizer.param_groups, names)
    names = {id(param): name for name, param in by_code.params.items()}
    if isinstance(cls, Mapping):
        made = functions["make_optimizers"](by_code)
        optimizers = list(made.values())
    else:
        optimizers = [functions["make_optimizer"](by_code)]
    written = [group for each in optimizers for group in groups_of(each.param_groups, names)]
    assert planned == written, text
    frozen = {name: param.requires_grad for name, param in by_plan.params.items()}
    assert frozen == {name: param.requires_grad for name, param in by_code.params.items()}, text
    by_plan.train(optimizer)
    by_code.train(*optimizers)
    for name, param in by_plan.params.items():
        assert torch.equal(param, by_code.params[name]), (name, text)
    return text
