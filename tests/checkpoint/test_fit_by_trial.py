"""What an optimizer would save says which saved state fits it; odd classes are tried too."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr.checkpoint._made import Maker


class Odd(torch.optim.Optimizer):
    """Keeps a part that is ``None``, and one of no shape of the parameter."""

    def __init__(self, params, lr=0.1, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def made(self, tensor):
        return {"mean": torch.zeros_like(tensor), "extra": None}

    def step(self):
        for group in self.param_groups:
            for tensor in group["params"]:
                if not self.state[tensor]:
                    self.state[tensor].update(self.made(tensor))
                self.state[tensor].get("mean", torch.zeros(())).add_(1)
                tensor.data.sub_(tensor.grad, alpha=group["lr"])


class ByValue(Odd):
    """Refuses gradients of 0, and looks at values: neither meta tensors nor zeros will do."""

    def made(self, tensor):
        assert float(tensor.grad.norm()) > 0, "no gradient"
        return {"mean": torch.zeros(3, 5)}


class Packed(Odd):
    """Saves its state in another form than it holds it."""

    def state_dict(self):
        saved = super().state_dict()
        state = {key: {"packed": {"mean": part["mean"]}} for key, part in saved["state"].items()}
        return {**saved, "state": state}

    def load_state_dict(self, state_dict):
        state = {key: dict(part["packed"]) for key, part in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": state})


@pytest.mark.parametrize("cls", [Odd, ByValue, Packed])
@pytest.mark.filterwarnings("ignore::nnlr.NnlrWarning")
def test_state_of_odd_classes_goes_on_by_name(cls):
    """After a load under other groups, and after a regroup."""

    def planned(net, pattern):
        return nnlr.resolve(net, nnlr.rule(pattern, lr_mult=0.5), lr=0.1, weight_decay=0)

    net, other = nn.Linear(4, 3), nn.Linear(4, 3)
    optimizer = planned(net, "bias").optimizer(cls)
    for count, (_, param) in enumerate(net.named_parameters(), start=1):
        param.grad = torch.full_like(param, count)
    optimizer.step()
    for count, (_, param) in enumerate(net.named_parameters(), start=1):
        optimizer.state[param]["mean"].fill_(count)
    plan = planned(other, "weight")
    resumed = plan.optimizer(cls)
    resumed.load_state_dict(optimizer.state_dict())
    assert [1.0, 2.0] == [resumed.state[p]["mean"].mean().item() for p in other.parameters()]
    nnlr.regroup(optimizer, planned(net, "weight"))
    assert [1.0, 2.0] == [optimizer.state[p]["mean"].mean().item() for p in net.parameters()]


def test_state_of_another_class_is_dropped_where_only_a_small_step_can_be_tried():
    """Of a large tensor of a class that looks at values."""
    net = nn.Linear(2048, 1024, bias=False)
    plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
    other = plan.optimizer(torch.optim.SGD, momentum=0.9)
    net.weight.grad = torch.ones_like(net.weight)
    other.step()
    optimizer = plan.optimizer(ByValue)
    with pytest.warns(nnlr.NnlrWarning, match="that SGD saved does not fit ByValue"):
        optimizer.load_state_dict(other.state_dict())
    assert not optimizer.state.get(net.weight)


class Needy(torch.optim.SGD):
    """It has to be told what its groups say too."""

    def __init__(self, params, *, dampening, **settings):
        super().__init__(params, dampening=dampening, **settings)


class Handing(Needy):
    """It hands all of its arguments on."""

    def __init__(self, params, **settings):
        super().__init__(params, **settings)


@pytest.mark.parametrize("cls", [Needy, Handing])
def test_arguments_that_a_class_hands_on_are_told_to_it(cls):
    """So that a step of it can be tried, which tells that a saved state is torn."""
    net = nn.Linear(2, 1)
    optimizer = cls(net.named_parameters(), lr=0.1, momentum=0.9, dampening=0.1)
    maker = Maker(optimizer, packed=False)
    made = maker.made(optimizer.param_groups[0], net.weight)
    assert ["momentum_buffer"] == list(made)
