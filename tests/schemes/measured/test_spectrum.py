"""The spectrum's exponent: the reference's numbers, and matrices without a tail."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import nnlr
from nnlr._apply.locate import locate
from nnlr.errors import ConfigError
from nnlr.schemes._measured.probes import Alpha
from nnlr.schemes._measured.spectrum import alpha_of, sides


class Net(nn.Module):
    """Convolutions and linear layers of several sizes."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 32, 3, stride=2), nn.BatchNorm2d(32)
        self.fc1, self.fc2 = nn.Linear(64, 96), nn.Linear(96, 80)
        self.small, self.fc3 = nn.Linear(80, 20), nn.Linear(20, 10)


def filled(net):
    """The network with weights by a formula; each matrix has a decay of its own along its rows."""
    for at, p in enumerate(net.parameters()):
        if p.ndim > 1:
            waves = torch.sin(torch.arange(p.numel(), dtype=torch.float64) ** 1.5 + at)
            rows = torch.arange(1, len(p) + 1, dtype=torch.float64) ** (-0.07 * at)
            p.data = (waves.reshape(p.shape) * rows.reshape(-1, *[1] * (p.ndim - 1))).float()
    return net


# What TempBalance's own estimator gives for these weights (singular values in float32).
REFERENCE = {
    "conv1": 4.428570747375488,
    "conv2": 2.4554312229156494,
    "conv3": 1.7296063899993896,
    "fc1": 1.566274642944336,
    "fc2": 1.4856326580047607,
    "small": 1.5325995683670044,
    "fc3": 1.5960133075714111,
}


def test_equals_the_reference():
    """The exponents of TempBalance and AlphaDecay to 5 digits, though not by singular values."""
    for name, module in filled(Net()).named_children():
        if name in REFERENCE:
            role = "conv" if isinstance(module, nn.Conv2d) else "matrix"
            assert alpha_of(module.weight, role, name) == pytest.approx(REFERENCE[name], rel=1e-5)


def test_scale_and_layout_do_not_count():
    """A weight times a constant, transposed, or as a stack of slices has the same exponent."""
    weight = filled(Net()).conv2.weight
    expected = alpha_of(weight, "conv", "w")
    stack = weight.flatten(2).permute(2, 0, 1)
    scaled = [weight * scale for scale in (math.sqrt(0.5), 1e-30, 1e30)]
    for other in (*scaled, weight.double() * 1e200, weight.transpose(0, 1)):
        assert alpha_of(other, "conv", "w") == pytest.approx(expected, rel=1e-5)
    assert alpha_of(stack, "matrix", "w") == pytest.approx(expected, rel=1e-5)
    assert alpha_of(weight.bfloat16(), "conv", "w") == pytest.approx(expected, rel=1e-2)
    flat = nn.Linear(8, 60).weight
    assert alpha_of(flat, "conv", "w") == alpha_of(flat, "matrix", "w")


def test_a_heavy_tail_keeps_its_digits():
    """Where the median eigenvalue is 1e-7 of the largest, singular values are taken."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64)).Q
    values = torch.logspace(0, -7, 60, dtype=torch.float64)
    weight = (basis * values) @ basis.mT
    logs = values.square().log().sort().values[30:]
    expected = 1 + 30 / float(logs.sum() - 30 * logs[0])
    assert alpha_of(weight.float(), "matrix", "w") == pytest.approx(expected, rel=1e-3)


def test_matrices_without_a_tail_have_no_exponent():
    """Zeros, and an orthogonal matrix, where the reference divides by round-off."""
    assert alpha_of(torch.zeros(60, 60), "matrix", "w") is None
    assert alpha_of(nn.init.orthogonal_(torch.empty(60, 80)), "matrix", "w") is None


def test_of_a_matrix_of_low_rank_the_zeros_are_left_out():
    """Where more than half of the eigenvalues are 0, the others are the spectrum."""
    torch.manual_seed(0)
    left, right = torch.randn(64, 12), torch.randn(12, 64)
    values = torch.linalg.svdvals((left @ right).double())[:12].square().log().sort().values
    expected = 1 + 6 / float(values[6:].sum() - 6 * values[6])
    assert alpha_of(left @ right, "matrix", "w") == pytest.approx(expected, rel=1e-4)


def test_weights_that_are_not_finite_are_refused():
    """With the name of the tensor."""
    weight = torch.eye(4)
    weight[0, 0] = math.nan
    with pytest.raises(ConfigError, match=r"'fc\.weight' are not all finite"):
        alpha_of(weight, "matrix", "fc.weight")


def test_what_is_left_out_and_why():
    """Small and large matrices, and what is no matrix, by numbers that can be changed."""
    measured = Alpha(50, 100)
    assert measured.why_not((64, 64), "matrix") is None
    assert measured.why_not((8, 8, 3, 3), "conv") is None
    assert measured.why_not((49, 64), "head") == "fewer than 50 eigenvalues"
    assert measured.why_not((101, 200), "matrix") == "a shorter side above 100"
    assert measured.why_not((101, 200), "embedding") == ""
    assert measured.why_not((64,), "matrix") == ""
    assert sides((4, 1, 3), "conv") == (3, 4, 1)


def test_a_unit_of_several_matrices_has_their_mean():
    """Biases do not count; a unit without a matrix has none."""
    net = nn.Sequential(filled(Net()).fc1, nn.LayerNorm(96), filled(Net()).fc2)
    plan = nnlr.resolve(net, nnlr.assign("alpha", "sqrt", every=1), lr=0.1, weight_decay=0)
    located = locate(plan.rows, net)
    mean = (REFERENCE["fc1"] + REFERENCE["fc2"]) / 2
    assert Alpha()(SimpleNamespace(params=located)) == pytest.approx(mean, rel=1e-5)
    assert Alpha(min_eigenvalues=100)(SimpleNamespace(params=located)) is None
