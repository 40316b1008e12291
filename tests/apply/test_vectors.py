"""Vectors: a rate and a decay for every element of the flattened parameters."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

import nnlr
from nnlr.torch7 import get_parameters, sgd


def resolved(model, *schemes, lr=0.5, weight_decay=0.25):
    return nnlr.resolve(model, *schemes, lr=lr, weight_decay=weight_decay)


class TestLayout:
    """The vectors line up with parameters_to_vector(model.parameters())."""

    def test_each_element_has_its_parameters_rates(self):
        """Multiplier times base, in the order of parameters()."""
        net = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 2))
        scheme = nnlr.rule("0.*", lr_mult=0.5) * nnlr.rule("*.bias", wd_mult=0)
        lrs, decays = resolved(net, scheme).vectors()
        assert [0.25] * 3 + [0.5] * 4 == lrs.tolist()
        assert [0.25] * 2 + [0.0] + [0.25] * 2 + [0.0] * 2 == decays.tolist()

    def test_tied_tensors_appear_once(self):
        """At their first place, as in parameters()."""
        net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
        net[1].weight = net[0].weight
        scheme = nnlr.rule("0.weight", lr_mult=0.5)
        lrs, _ = resolved(net, scheme).vectors()
        assert parameters_to_vector(net.parameters()).shape == lrs.shape
        assert [0.25] * 4 + [0.5] * 2 == lrs.tolist()

    def test_frozen_and_locked_elements_are_zero_in_both(self):
        """They are in the vector, because they are in parameters()."""
        net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        net[0].weight.requires_grad_(False)
        lrs, decays = resolved(net, nnlr.rule("1.weight", lr_mult=0)).vectors()
        assert [0.0, 0.5, 0.0, 0.5] == lrs.tolist()
        assert [0.0, 0.25, 0.0, 0.25] == decays.tolist()
        assert net[1].weight.requires_grad

    def test_the_order_is_that_of_the_model_given(self):
        """A mapping in another order than the one resolved is flattened as it is."""
        one = {"a": nn.Parameter(torch.ones(1)), "b": nn.Parameter(torch.ones(2))}
        plan = resolved(one, nnlr.rule("a", lr_mult=0.5))
        assert [0.25, 0.5, 0.5] == plan.vectors()[0].tolist()
        turned = dict(reversed(one.items()))
        assert [0.5, 0.5, 0.25] == plan.vectors(turned)[0].tolist()

    def test_scalars_and_many_axes_are_flattened_too(self):
        """A 0-dim parameter is one element."""
        net = nn.ParameterDict({"s": torch.ones(()), "t": torch.ones(2, 1, 3)})
        lrs, _ = resolved(net, nnlr.rule("s", lr_mult=2)).vectors()
        assert [1.0] + [0.5] * 6 == lrs.tolist()

    def test_a_model_without_parameters_has_empty_vectors(self):
        """Two of them, of shape (0,)."""
        model = nn.ReLU()
        lrs, decays = resolved(model).vectors()
        assert ((0,), (0,)) == (lrs.shape, decays.shape)

    def test_the_vectors_are_contiguous_and_independent(self):
        """Writing into one, or one element, changes nothing else."""
        layer = nn.Linear(2, 2)
        lrs, decays = resolved(layer).vectors()
        assert lrs.is_contiguous()
        assert decays.is_contiguous()
        lrs[0] = 7.0
        assert [0.5] * 5 == lrs[1:].tolist()
        assert [0.25] * 6 == decays.tolist()


class TestTypes:
    """Default float type, on the parameters' device."""

    def test_the_dtype_is_the_default_whatever_the_parameters_have(self):
        """Half-precision parameters keep exact rates."""
        layer = nn.Linear(1, 1).half()
        assert [torch.float32] * 2 == [v.dtype for v in resolved(layer).vectors()]

    def test_a_double_default_gives_unrounded_rates(self):
        """0.1 * 0.3 to the last bit."""
        layer = nn.Linear(1, 1)
        torch.set_default_dtype(torch.float64)
        try:
            lrs, _ = resolved(layer, nnlr.rule("*", lr_mult=0.3), lr=0.1).vectors()
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.float64 == lrs.dtype
        assert [0.1 * 0.3] * 2 == lrs.tolist()

    def test_they_are_on_the_parameters_device(self):
        """The meta device stands for any other."""
        layer = nn.Linear(2, 2, device="meta")
        assert ["meta"] * 2 == [v.device.type for v in resolved(layer).vectors()]

    def test_parameters_on_several_devices_are_refused(self):
        """One vector cannot be on both."""
        net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, device="meta"))
        with pytest.raises(
            nnlr.NnlrError, match=r"on several devices \(cpu, meta\), so one vector"
        ):
            resolved(net).vectors()


def small_net():
    """The Lua way: conv 1 locked, conv 2 slow with an undecayed bias, the rest plain."""
    locked = nn.Conv2d(1, 3, 3)
    nnlr.learning_rate(locked, "weight", 0)
    nnlr.learning_rate(locked, "bias", 0)
    slow = nn.Conv2d(3, 4, 3)
    nnlr.learning_rate(slow, "weight", 0.1)
    nnlr.learning_rate(slow, "bias", 0.2)
    nnlr.weight_decay(slow, "bias", 0)
    head = nn.Linear(16, 5)
    nnlr.weight_decay(head, "bias", 0)
    return nn.Sequential(locked, nn.ReLU(), nn.MaxPool2d(2), slow, nn.Tanh(), nn.Flatten(), head)


class TestTraining:
    """Training with the vectors equals torch.optim.SGD on the plan's groups."""

    @pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
    @pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
    @pytest.mark.no_cover
    def test_fifty_steps_are_equal_to_round_off(self, momentum, nesterov, weight_decay):
        """Torch7's dampening is the momentum, except that nesterov wants none."""
        dampening = 0.0 if nesterov else momentum
        grouped = small_net()
        flat_net = copy.deepcopy(grouped)
        start = parameters_to_vector(grouped.parameters()).detach().clone()
        plan = resolved(grouped, lr=0.05, weight_decay=weight_decay)
        optimizer = plan.optimizer(
            torch.optim.SGD, momentum=momentum, dampening=dampening, nesterov=nesterov
        )
        lrs, decays = resolved(flat_net, lr=0.05, weight_decay=weight_decay).vectors()
        flat, flat_grad = get_parameters(flat_net)
        config = {
            "learning_rates": lrs,
            "weight_decays": decays,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
        }

        for _ in range(50):
            images, labels = (
                torch.randn(8, 1, 10, 10),
                torch.randint(5, (8,)),
            )

            def loss_of(net, images=images, labels=labels):
                return nn.functional.cross_entropy(net(images), labels)

            optimizer.zero_grad()
            loss_of(grouped).backward()
            optimizer.step()

            def evaluate(_, loss_of=loss_of):
                flat_grad.zero_()
                loss = loss_of(flat_net)
                loss.backward()
                return loss, flat_grad

            sgd(evaluate, flat, config)

        other = parameters_to_vector(grouped.parameters()).detach()
        locked = plan["0.weight"].numel + plan["0.bias"].numel
        assert torch.equal(start[:locked], flat[:locked])
        assert torch.equal(start[:locked], other[:locked])
        assert (other[locked:] - start[locked:]).abs().min() > 1e-7
        torch.testing.assert_close(other, flat.detach(), rtol=1e-5, atol=1e-6)
