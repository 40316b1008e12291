"""Caffe's convention: numbers, selection, and its solver step by step."""

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError, PatternError
from nnlr.testing import SchemeLaws
from tests import zoo


def mults(model, scheme, **settings):
    """(lr_mult, wd_mult) of every parameter by name."""
    plan = nnlr.resolve(model, scheme, lr=0.01, weight_decay=5e-4, **settings)
    return {row.name: (row.lr_mult, row.wd_mult) for row in plan}


def alexnet(width=4):
    """Convolution, norm, fc7 and a new fc8."""
    return nn.ModuleDict(
        {
            "conv1": nn.Conv2d(1, width, 3),
            "bn1": nn.BatchNorm2d(width),
            "fc7": nn.Linear(width, width),
            "fc8_flickr": nn.Linear(width, 2),
        }
    )


@pytest.mark.no_cover
class TestCaffeLaws(SchemeLaws):
    def schemes(self):
        return [
            nnlr.caffe(),
            nnlr.caffe(bias_lr_mult=0, bias_wd_mult=1),
            nnlr.caffe(head="0.*", head_mult=3, biases="*.weight"),
        ]


class TestNumbers:
    def test_weights_and_biases(self):
        """1 and 1 for weights, 2 and 0 for biases; norms are left at 1 and 1."""
        assert {
            "conv1.weight": (1, 1),
            "conv1.bias": (2, 0),
            "bn1.weight": (1, 1),
            "bn1.bias": (1, 1),
            "fc7.weight": (1, 1),
            "fc7.bias": (2, 0),
            "fc8_flickr.weight": (1, 1),
            "fc8_flickr.bias": (2, 0),
        } == mults(alexnet(), nnlr.caffe())

    def test_a_new_head(self):
        """10 and 20 for the weights and biases of the layer that is new."""
        actual = mults(alexnet(), nnlr.caffe(head="fc8_flickr.*"))
        assert (10, 1) == actual["fc8_flickr.weight"]
        assert (20, 0) == actual["fc8_flickr.bias"]
        assert (2, 0) == actual["fc7.bias"]

    def test_own_numbers(self):
        """Each of them is an argument."""
        scheme = nnlr.caffe(bias_lr_mult=3, bias_wd_mult=0.5, head="fc8*", head_mult=0.5)
        actual = mults(alexnet(), scheme)
        assert (3, 0.5) == actual["fc7.bias"]
        assert (0.5, 1) == actual["fc8_flickr.weight"]
        assert (1.5, 0.5) == actual["fc8_flickr.bias"]

    def test_frozen_layers_are_freeze(self):
        """Caffe's (0, 0) for both blobs is a lock: nothing moves, nothing decays."""
        plan = nnlr.resolve(
            alexnet(), nnlr.caffe() * nnlr.freeze("conv1.*"), lr=0.01, weight_decay=5e-4
        )
        assert ["conv1.weight", "conv1.bias"] == [r.name for r in plan if r.locked]

    def test_norm_shifts_may_count(self):
        """What counts as a bias is an argument."""
        scheme = nnlr.caffe(biases=nnlr.role("bias") | "bn*.bias")
        actual = mults(alexnet(), scheme)
        assert (2, 0) == actual["bn1.bias"] == actual["fc7.bias"]
        assert (1, 1) == actual["bn1.weight"]

    def test_biases_of_every_kind(self):
        """Attention and recurrent layers have biases too; position tables are none."""
        attention = mults(zoo.attention(), nnlr.caffe())
        assert (2, 0) == attention["in_proj_bias"] == attention["bias_k"]
        assert (1, 1) == attention["in_proj_weight"]
        assert (2, 0) == mults(zoo.lstm(), nnlr.caffe())["bias_ih_l0"]
        vision = mults(zoo.raw_parameters(), nnlr.caffe())
        assert (1, 1) == vision["vision.relative_position_bias_table"]

    def test_a_role_given_by_the_user_counts(self):
        """resolve(roles=...) decides as for every scheme by role."""
        actual = mults(alexnet(), nnlr.caffe(), roles={"bn1.bias": "bias"})
        assert (2, 0) == actual["bn1.bias"]

    def test_a_model_without_biases(self):
        """The recipe itself may have nothing to do."""
        net = nn.Linear(2, 2, bias=False)
        assert {"weight": (1, 1)} == mults(net, nnlr.caffe())


class TestSolver:
    def test_steps_are_those_of_caffes_sgd(self):
        """100 steps of torch's SGD equal Caffe's update, whose rate is inside the momentum."""
        lr, decay, momentum = 0.01, 5e-4, 0.9
        net = alexnet().double()
        scheme = nnlr.caffe(head="fc8_flickr.*")
        plan = nnlr.resolve(net, scheme, lr=lr, weight_decay=decay)
        optimizer = plan.optimizer(torch.optim.SGD, momentum=momentum)
        local = {}
        for name, tensor in net.named_parameters():
            mult = 10 if name.startswith("fc8") else 1
            bias = name.endswith("bias") and not name.startswith("bn")
            rates = (lr * mult * (2 if bias else 1), 0 if bias else decay)
            local[name] = (*rates, tensor.detach().clone(), torch.zeros_like(tensor))
        for _ in range(100):
            for name, tensor in net.named_parameters():
                tensor.grad = torch.randn_like(tensor)
                rate, lam, weight, history = local[name]
                history.mul_(momentum).add_(rate * (tensor.grad + lam * weight))
                weight.sub_(history)
            optimizer.step()
        for name, tensor in net.named_parameters():
            torch.testing.assert_close(tensor.detach(), local[name][2], rtol=1e-12, atol=1e-12)


class TestTrace:
    def test_why(self):
        """The trace says what a parameter counted as."""
        plan = nnlr.resolve(alexnet(), nnlr.caffe(head="fc8*"), lr=0.01, weight_decay=5e-4)
        whys = [row.trace[0].factor.why if row.trace else "" for row in plan]
        assert [
            "",
            "a bias",
            "",
            "",
            "",
            "a bias",
            "the head",
            "a bias of the head",
        ] == whys

    @pytest.mark.parametrize(
        ("scheme", "text"),
        [
            (nnlr.caffe(), "caffe()"),
            (nnlr.caffe(head="fc.*"), "caffe(head='fc.*')"),
            (
                nnlr.caffe(bias_lr_mult=3, biases=nnlr.role("norm")),
                "caffe(bias_lr_mult=3.0, biases=role('norm'))",
            ),
        ],
    )
    def test_repr_is_the_call(self, scheme, text):
        """A scheme prints as it was written."""
        assert text == repr(scheme)


class TestErrors:
    @pytest.mark.parametrize("name", ["bias_lr_mult", "bias_wd_mult", "head_mult"])
    @pytest.mark.parametrize("value", [-1, float("inf"), True, "2"])
    def test_numbers_have_a_range(self, name, value):
        """Finite and not negative; refused at the call."""
        with pytest.raises(NnlrError, match=f"{name} must be a finite number >= 0"):
            nnlr.caffe(**{name: value})

    def test_a_rate_for_a_head_needs_a_head(self):
        """It would do nothing, without a word."""
        with pytest.raises(ConfigError, match="head_mult=5 is for a head: say which"):
            nnlr.caffe(head_mult=5)

    @pytest.mark.parametrize("name", ["head", "biases"])
    def test_selectors(self, name):
        """They are selectors, and must match something."""
        with pytest.raises(NnlrError, match=f"{name} needs a selector"):
            nnlr.caffe(**{name: 3})
        with pytest.raises(PatternError, match=f"{name}='fc9.*' matches no parameter of"):
            mults(alexnet(), nnlr.caffe(**{name: "fc9.*"}))
