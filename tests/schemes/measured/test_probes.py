"""Probes of gradients, weights and optimizer state."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from nnlr.schemes._measured.probes import PROBES

# The code of surgical fine-tuning on the same batches: the mean over them.
RGN = {"conv1.weight": 1.9930542194350607, "fc.weight": 0.614723685101404}
RGN |= {"fc.bias": 1.0983236828342875}
SNR = {"conv1.weight": 1.0424516439437865, "fc.weight": 0.6516770243644714}
SNR |= {"fc.bias": 0.6666664838790893}


class Net(nn.Module):
    """A convolution, a batch norm and a linear layer, with weights by a formula."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 3)
        for at, p in enumerate(self.parameters()):
            waves = 0.3 * torch.sin(torch.arange(p.numel(), dtype=torch.float64) ** 1.5 + at + 1)
            p.data = (waves + (at == 2)).reshape(p.shape).float()

    def forward(self, x):
        return self.fc(self.bn1(self.conv1(x)).relu().flatten(1))


def unit(optimizer=None, **tensors):
    """A unit of tensors as far as probes look at it."""
    return SimpleNamespace(
        names=list(tensors), tensors=list(tensors.values()), optimizer=optimizer or Idle()
    )


class Idle:
    """An optimizer that has not stepped."""

    state: ClassVar = {}


def batches(net):
    """The loss of five batches."""
    for b in range(5):
        waves = torch.sin(torch.arange(512, dtype=torch.float64) ** 1.5 * 0.7 + b)
        yield cross_entropy(net(waves.float().reshape(8, 1, 8, 8)), torch.arange(8) % 3)


def averaged(probe):
    """The mean of a probe over five batches, by tensor."""
    net, sums = Net(), {}
    for loss in batches(net):
        net.zero_grad()
        loss.backward()
        for name, parameter in net.named_parameters():
            value = float(PROBES[probe]()(unit(**{name: parameter})))
            sums[name] = sums.get(name, 0) + value / 5
    return sums


@pytest.mark.parametrize(("probe", "reference"), [("rgn", RGN), ("snr", SNR)])
def test_equals_the_reference(probe, reference):
    """Relative gradient norm and signal to noise as the published code has them."""
    values = averaged(probe)
    assert {name: values[name] for name in reference} == pytest.approx(reference, rel=1e-4)


def with_grad(values, grad=None):
    """A parameter with a gradient."""
    parameter = nn.Parameter(torch.tensor(values))
    parameter.grad = None if grad is None else torch.tensor(grad)
    return parameter


def test_norms_are_over_all_tensors_of_a_unit():
    """A bias of zeros beside a weight does no harm; a tensor without gradient is left out."""
    weight, bias = with_grad([[3.0], [4.0]], [[6.0], [0.0]]), with_grad([0.0], [8.0])
    idle = with_grad([100.0])
    both = unit(weight=weight, bias=bias, unused=idle)
    assert PROBES["rgn"]()(both) == 2.0
    assert PROBES["grad_norm"]()(both) == 10.0
    assert PROBES["weight_norm"]()(unit(weight=weight, bias=bias)) == 5.0
    assert PROBES["rgn"]()(unit(bias=bias)).isinf()


def test_what_has_no_statistic():
    """Without a gradient, without a second row, before the first step: none."""
    idle, scalar, row = with_grad([1.0]), with_grad(1.0, 1.0), with_grad([[1.0]], [[2.0]])
    for name in ("rgn", "snr", "grad_norm", "update"):
        assert PROBES[name]()(unit(unused=idle)) is None
    assert PROBES["snr"]()(unit(scalar=scalar, row=row)) is None


def test_half_precision_is_summed_in_float32():
    """70,000 squares of 2 overflow float16; their norm does not."""
    weight = nn.Parameter(torch.full((70_000,), 2.0, dtype=torch.float16))
    assert float(PROBES["weight_norm"]()(unit(w=weight))) == pytest.approx(2 * 70_000**0.5)


def test_update_reads_the_state_of_the_optimizer():
    """Adam's direction, or momentum, relative to the weights."""
    weight = with_grad([3.0, 4.0], [0.5, -2.0])
    for cls, norm in ((torch.optim.Adam, 2**0.5), (torch.optim.SGD, 4.25**0.5)):
        settings = {"momentum": 0.9} if cls is torch.optim.SGD else {"betas": (0.0, 0.0)}
        optimizer = cls([weight], lr=0.0, **settings)
        optimizer.step()
        value = PROBES["update"]()(unit(optimizer, w=weight))
        assert float(value) == pytest.approx(norm / 5)


@pytest.mark.parametrize("scale", [1.0, 1e-2])
def test_signal_to_noise_has_a_least_value(scale):
    """However noisy a gradient of n rows is, it is (n - 1) / n, unless it is about 1e-4."""
    torch.manual_seed(0)
    for rows in (2, 20, 50):
        weight = nn.Parameter(torch.zeros(rows, 30))
        weight.grad = scale * torch.randn(rows, 30)
        assert float(PROBES["snr"]()(unit(w=weight))) > 0.999 * (rows - 1) / rows
        weight.grad *= 1e-4 / scale
        assert float(PROBES["snr"]()(unit(w=weight))) < 0.95
