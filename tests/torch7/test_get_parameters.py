"""nnlr.torch7.get_parameters: parameters and gradients as two vectors."""

import copy
import gc
import io
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from nnlr.errors import NnlrError, NnlrWarning
from nnlr.torch7 import get_parameters
from nnlr.torch7._get_parameters import _Vectors


def small_net():
    """Two linear layers, 2 -> 3 -> 1: 13 parameters."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def backward(net, features=2):
    net(torch.linspace(-1, 1, 4 * features).reshape(4, features)).square().sum().backward()


def plain_gradients(net):
    """The gradients of one backward, from a copy that nnlr has not touched."""
    twin = copy.deepcopy(net)
    backward(twin)
    return torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in twin.parameters()]
    )


class TestGetParameters:
    def test_vectors_have_the_order_of_parameters_to_vector(self):
        """Each parameter, flattened, at the place plan.vectors() expects it."""
        net = small_net()
        expected = parameters_to_vector(net.parameters()).detach().clone()
        flat, flat_grad = get_parameters(net)
        assert torch.equal(expected, flat)
        assert torch.equal(torch.zeros(13), flat_grad)
        assert not flat.requires_grad

    def test_changing_flat_in_place_moves_the_parameters(self):
        """The parameters are views of flat."""
        net = small_net()
        flat, _ = get_parameters(net)
        flat.copy_(torch.arange(13.0))
        assert torch.equal(torch.arange(6.0).reshape(3, 2), net[0].weight)
        assert torch.equal(torch.tensor([12.0]), net[2].bias)

    def test_stepping_the_parameters_moves_flat(self):
        """An ordinary optimizer and the vector see the same memory."""
        net = small_net()
        flat, _ = get_parameters(net)
        backward(net)
        torch.optim.SGD(net.parameters(), lr=0.1).step()
        assert torch.equal(parameters_to_vector(net.parameters()), flat)

    def test_backward_accumulates_into_flat_grad(self):
        """Two backwards add up, as in the .grad of a plain module."""
        net = small_net()
        expected = plain_gradients(net)
        _, flat_grad = get_parameters(net)
        backward(net)
        torch.testing.assert_close(expected, flat_grad)
        backward(net)
        torch.testing.assert_close(2 * expected, flat_grad)

    def test_the_parameter_objects_stay(self):
        """An optimizer made before the call still trains the module."""
        net = small_net()
        before = list(net.parameters())
        get_parameters(net)
        assert all(a is b for a, b in zip(before, net.parameters(), strict=True))

    def test_existing_gradients_are_kept_and_missing_ones_become_zero(self):
        """Half of the module has been through a backward already."""
        net = small_net()
        net[2].requires_grad_(False)
        expected = plain_gradients(net)
        backward(net)
        net[2].requires_grad_(True)
        _, flat_grad = get_parameters(net)
        assert torch.equal(expected, flat_grad)
        assert torch.equal(torch.zeros(1, 3), net[2].weight.grad)

    def test_tied_tensors_appear_once(self):
        """One tensor under two names has one place and one, summed, gradient."""
        net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        net[1].weight = net[0].weight
        expected = plain_gradients(net)
        flat, flat_grad = get_parameters(net)
        backward(net)
        assert flat.shape == (4,)
        torch.testing.assert_close(expected, flat_grad)
        assert net[0].weight is net[1].weight

    def test_a_shared_module_appears_once(self):
        """The same submodule in two places is not flattened twice."""
        layer = nn.Linear(2, 2)
        net = nn.Sequential(layer, nn.ReLU(), layer)
        expected = parameters_to_vector(net.parameters()).detach().clone()
        flat, _ = get_parameters(net)
        assert torch.equal(expected, flat)

    def test_channels_last_parameters_keep_their_values(self):
        """The vector holds them row by row, whatever their layout in memory was."""
        net = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
        assert not net.weight.is_contiguous()
        before = net.weight.detach().clone()
        backward_input = torch.ones(1, 2, 4, 4)
        net(backward_input).sum().backward()
        gradient = net.weight.grad.clone()
        flat, flat_grad = get_parameters(net)
        assert torch.equal(before, net.weight)
        assert torch.equal(before.reshape(-1), flat[:24])
        assert torch.equal(gradient.reshape(-1), flat_grad[:24])

    def test_scalar_and_empty_parameters_have_their_places(self):
        """A 0-dim parameter takes one element, an empty one none."""
        net = nn.ParameterList([torch.tensor(2.0), torch.empty(0, 3), torch.ones(2)])
        flat, flat_grad = get_parameters(net)
        (net[0] * net[2]).sum().backward()
        assert torch.equal(torch.tensor([2.0, 1.0, 1.0]), flat)
        assert torch.equal(torch.tensor([2.0, 2.0, 2.0]), flat_grad)

    def test_a_parametrised_weight_is_flattened_by_its_originals(self):
        """Weight norm's magnitude and direction are the parameters."""
        net = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
        expected = plain_gradients(net)
        flat, flat_grad = get_parameters(net)
        backward(net)
        assert torch.equal(parameters_to_vector(net.parameters()), flat)
        torch.testing.assert_close(expected, flat_grad)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
    def test_vectors_have_the_dtype_of_the_parameters(self, dtype):
        """Any dtype that has gradients, complex included."""
        net = nn.Linear(2, 1, dtype=dtype)
        flat, flat_grad = get_parameters(net)
        net(torch.ones(1, 2, dtype=dtype)).abs().sum().backward()
        assert (dtype, dtype) == (flat.dtype, flat_grad.dtype)
        assert torch.equal(net.weight.grad.reshape(-1), flat_grad[:2])
        assert flat_grad.abs().min() > 0

    def test_a_module_without_parameters_gives_two_empty_vectors(self):
        """As plan.vectors() does for a ReLU."""
        flat, flat_grad = get_parameters(nn.ReLU())
        assert (flat.shape, flat_grad.shape) == ((0,), (0,))

    def test_sparse_gradients_arrive_dense(self):
        """An Embedding(sparse=True) accumulates into the vector all the same."""
        net = nn.Embedding(4, 2, sparse=True)
        net(torch.tensor([3])).sum().backward()
        _, flat_grad = get_parameters(net)  # a sparse gradient that exists
        assert torch.equal(torch.tensor([0.0] * 6 + [1.0] * 2), flat_grad)
        net(torch.tensor([0])).sum().backward()  # one that is accumulated
        assert torch.equal(torch.tensor([1.0] * 2 + [0.0] * 4 + [1.0] * 2), flat_grad)
        net.zero_grad()
        net(torch.tensor([1])).sum().backward()  # one that is fresh
        assert torch.equal(torch.tensor([0.0] * 2 + [1.0] * 2 + [0.0] * 4), flat_grad)


class TestGradientsStayInTheVector:
    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_zero_grad_does_not_detach_flat_grad(self, set_to_none):
        """After zero_grad and a backward, flat_grad holds that backward alone."""
        net = small_net()
        expected = plain_gradients(net)
        _, flat_grad = get_parameters(net)
        for _ in range(3):
            net.zero_grad(set_to_none=set_to_none)
            backward(net)
            torch.testing.assert_close(expected, flat_grad)
        for parameter in net.parameters():
            parameter.grad.fill_(7)
        assert torch.equal(torch.full((13,), 7.0), flat_grad)

    def test_a_parameter_that_backward_does_not_reach_gets_zero(self):
        """No stale gradient survives zero_grad(set_to_none=True)."""
        net = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        _, flat_grad = get_parameters(net)
        (net["a"](torch.ones(2)) + net["b"](torch.ones(2))).backward()
        assert torch.equal(torch.ones(6), flat_grad)
        optimizer.zero_grad(set_to_none=True)
        net["a"](torch.ones(2)).backward()
        assert torch.equal(torch.tensor([1.0] * 3 + [0.0] * 3), flat_grad)
        net["b"](torch.ones(2)).backward()
        assert torch.equal(torch.ones(6), flat_grad)

    def test_zeroing_flat_grad_clears_every_gradient(self):
        """Torch7's own way."""
        net = small_net()
        _, flat_grad = get_parameters(net)
        backward(net)
        flat_grad.zero_()
        assert all(not p.grad.any() for p in net.parameters())

    def test_a_gradient_replaced_by_hand_comes_back(self):
        """A .grad that somebody assigned is added to, then copied in."""
        net = nn.Linear(2, 1, bias=False)
        _, flat_grad = get_parameters(net)
        net.weight.grad = torch.tensor([[10.0, 20.0]])
        net(torch.ones(2)).backward()
        assert torch.equal(torch.tensor([11.0, 21.0]), flat_grad)

    def test_create_graph_leaves_flat_grad_true(self):
        """Autograd then replaces .grad instead of adding in place."""
        net = nn.Linear(2, 1, bias=False)
        _, flat_grad = get_parameters(net)
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of the cycle it makes
                net(torch.ones(2)).backward(create_graph=True)
        assert torch.equal(torch.tensor([2.0, 2.0]), flat_grad)
        assert not flat_grad.requires_grad

    def test_a_frozen_parameter_keeps_grad_none_and_a_zero_place(self):
        """So that torch optimizers with weight decay still leave it alone."""
        net = small_net()
        net[0].requires_grad_(False)
        before = net[0].weight.detach().clone()
        _, flat_grad = get_parameters(net)
        assert net[0].weight.grad is None
        for _ in range(2):
            net.zero_grad()
            backward(net)
            torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1).step()
        assert net[0].weight.grad is None
        assert not net[0].weight.requires_grad
        assert torch.equal(before, net[0].weight)
        assert torch.equal(torch.zeros(9), flat_grad[:9])
        assert flat_grad[9:].any()

    def test_a_parameter_unfrozen_later_joins_flat_grad(self):
        """Frozen parameters are guarded from the start."""
        net = small_net()
        net[0].requires_grad_(False)
        _, flat_grad = get_parameters(net)
        net[0].requires_grad_(True)
        expected = plain_gradients(net)
        backward(net)
        torch.testing.assert_close(expected, flat_grad)

    def test_a_parameter_locked_later_leaves_no_gradient_behind(self):
        """As plan.lock() does it: requires_grad off, .grad None."""
        net = small_net()
        _, flat_grad = get_parameters(net)
        backward(net)
        net[0].requires_grad_(False)
        net.zero_grad()
        backward(net)
        assert torch.equal(torch.zeros(9), flat_grad[:9])
        assert net[0].weight.grad is None

    def test_calling_twice_leaves_one_hook_and_new_vectors(self):
        """The later vectors are the true ones, values and gradients kept."""
        net = small_net()
        old, old_grad = get_parameters(net)
        backward(net)
        new, new_grad = get_parameters(net)
        assert torch.equal(old, new)
        assert torch.equal(old_grad, new_grad)
        assert all(len(p._post_accumulate_grad_hooks) == 1 for p in net.parameters())
        new.zero_()
        assert all(not p.any() for p in net.parameters())

    def test_a_later_call_on_a_submodule_takes_its_parameters_over(self):
        """The first vectors go on with the rest, and do not fight over the others."""
        net = small_net()
        _, all_grad = get_parameters(net)
        head, head_grad = get_parameters(net[2])
        expected = plain_gradients(net)
        for _ in range(2):
            net.zero_grad()
            backward(net)
        torch.testing.assert_close(expected[9:], head_grad)
        torch.testing.assert_close(expected[:9], all_grad[:9])
        head.zero_()
        assert not net[2].weight.any()
        head_grad.zero_()
        assert not net[2].weight.grad.any()

    def test_parameters_that_left_the_module_are_let_alone(self):
        """One replaced, one gone with its module: the rest is still re-attached."""
        net = small_net()
        _, flat_grad = get_parameters(net)
        del net[2]
        net[0].bias = nn.Parameter(torch.zeros(3))
        net.zero_grad()
        backward(net)
        assert torch.equal(net[0].weight.grad.reshape(-1), flat_grad[:6])
        assert flat_grad[:6].any()
        assert net[0].bias.grad.any()
        assert torch.equal(torch.zeros(7), flat_grad[6:])

    @pytest.mark.parametrize("through", ["cast", "data"])
    def test_memory_that_was_exchanged_is_reported_once(self, through):
        """A vector that no longer moves the module is never silent."""
        net = nn.Linear(2, 1, bias=False)
        _, flat_grad = get_parameters(net)
        backward(net)
        if through == "cast":
            net.to(torch.float64)
        else:
            net.weight.data = net.weight.data.clone()
        loss = net(torch.ones(2, dtype=net.weight.dtype))
        with pytest.warns(NnlrWarning, match="'weight' no longer lies in the vector"):
            loss.backward(retain_graph=True)
        loss.backward()  # and not again: a warning would be an error here
        assert flat_grad.dtype == torch.float32

    def test_calling_again_after_a_cast_is_silent(self):
        """The fix that the warning names."""
        net = small_net()
        get_parameters(net)
        net.double()
        flat, flat_grad = get_parameters(net)
        net(torch.ones(2, dtype=torch.float64)).backward()
        assert flat.dtype == torch.float64
        assert flat_grad.any()


class TestCopies:
    def test_a_deep_copy_is_an_ordinary_module(self):
        """It has its own memory and no hook; the original keeps its vectors."""
        net = small_net()
        flat, flat_grad = get_parameters(net)
        twin = copy.deepcopy(net)
        flat.zero_()
        backward(twin)
        assert all(p.any() for p in twin.parameters())
        assert not flat_grad.any()
        twin_flat, _ = get_parameters(twin)
        assert torch.equal(parameters_to_vector(twin.parameters()), twin_flat)

    def test_a_saved_module_loads_as_an_ordinary_module(self):
        """torch.save of the whole module carries no hook and nothing of nnlr."""
        net = small_net()
        flat, _ = get_parameters(net)
        file = io.BytesIO()
        torch.save(net, file)
        assert b"nnlr.torch7" not in file.getvalue()
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        assert torch.equal(flat, parameters_to_vector(loaded.parameters()))
        expected = plain_gradients(loaded)
        backward(loaded)
        assert torch.equal(loaded[0].weight.grad.reshape(-1), expected[:6])
        _, loaded_grad = get_parameters(loaded)
        torch.testing.assert_close(expected, loaded_grad)

    def test_parameters_and_state_dict_load_with_weights_only(self):
        """Nothing in them needs more trust than tensors do."""
        net = small_net()
        get_parameters(net)
        file = io.BytesIO()
        torch.save((list(net.parameters()), net.state_dict()), file)
        file.seek(0)
        parameters, state = torch.load(file, weights_only=True)
        assert torch.equal(net[0].weight, parameters[0])
        assert torch.equal(net[2].bias, state["2.bias"])

    def test_load_state_dict_fills_the_vector(self):
        """Values are copied in place, so the views hold."""
        net, other = small_net(), small_net()
        nn.init.ones_(other[0].weight)
        flat, _ = get_parameters(net)
        net.load_state_dict(other.state_dict())
        assert torch.equal(torch.ones(6), flat[:6])

    @pytest.mark.no_cover  # what goes through all objects takes ten times as long measured
    def test_a_dropped_module_frees_its_vectors_at_once(self):
        """No reference cycle keeps the memory until the garbage collector comes."""

        def count():
            return sum(type(thing) is _Vectors for thing in gc.get_objects())

        gc.collect()
        gc.disable()
        try:
            before = count()
            net = small_net()
            _, flat_grad = get_parameters(net)
            backward(net)
            parameter = weakref.ref(net[0].weight)
            assert before + 1 == count()
            del net
            assert parameter() is None
            assert before == count()
            assert flat_grad.any()
        finally:
            gc.enable()


def shared_memory():
    net = nn.ParameterDict({"a": torch.zeros(4), "b": torch.zeros(2)})
    net["b"].data = net["a"].data[1:3]
    return net


def with_parameter(tensor, **kwargs):
    net = small_net()
    net.register_parameter("odd", nn.Parameter(tensor, **kwargs))
    return net


class Wrapped(torch.Tensor):
    """A tensor subclass, as sharded and quantised tensors are."""


BAD_MODULES = {
    "mixed dtypes": (
        lambda: with_parameter(torch.zeros(1, dtype=torch.float64)),
        r"one dtype, found torch.float64: odd; torch.float32: 0.weight, 0.bias",
    ),
    "meta": (
        lambda: with_parameter(torch.zeros(1, device="meta")),
        "'odd': it is on the meta device and has no values; use module.to_empty",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)),
        "'1.weight': it is not initialised yet; run one forward",
    ),
    "subclass": (
        lambda: with_parameter(torch.zeros(2).as_subclass(Wrapped)),
        r"'odd': it is a Wrapped \(sharded, quantised or wrapped\)",
    ),
    "sparse": (
        lambda: with_parameter(torch.zeros(2, 2).to_sparse()),
        "'odd': its layout is torch.sparse_coo; make it dense",
    ),
    "integers": (
        lambda: with_parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False),
        "'odd': its dtype torch.int8 has no gradient",
    ),
    "overlap": (shared_memory, "'a' and 'b': they overlap in memory"),
}


class TestModulesThatCannotBeFlattened:
    @pytest.mark.parametrize("case", BAD_MODULES)
    def test_an_unsuitable_module_is_refused_and_left_alone(self, case):
        """The message names the parameter and the way out; nothing is half done."""
        build, message = BAD_MODULES[case]
        net = build()
        before = [(p, p.requires_grad, p.grad) for p in net.parameters()]
        with pytest.raises(NnlrError, match=message):
            get_parameters(net)
        after = [(p, p.requires_grad, p.grad) for p in net.parameters()]
        assert all(
            p is q and flag == now and gradient is new
            for (p, flag, gradient), (q, now, new) in zip(before, after, strict=True)
        )
        assert not any(p._post_accumulate_grad_hooks for p in net.parameters())

    def test_devices_that_differ_are_listed(self):
        """Seen on a machine with one device through tensors that claim another."""

        class Elsewhere(nn.Parameter):
            device = torch.device("cuda:0")

        net = small_net()
        net.odd = Elsewhere(torch.zeros(1))
        with pytest.raises(NnlrError, match=r"one device, found cuda:0: odd; cpu: 0\.w"):
            get_parameters(net)

    def test_a_sharded_parameter_is_refused(self, tmp_path):
        """A DTensor's place in a vector would differ from rank to rank."""
        from torch.distributed import destroy_process_group, init_process_group
        from torch.distributed.tensor import distribute_module, init_device_mesh

        init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
        try:
            net = distribute_module(small_net(), init_device_mesh("cpu", (1,)))
            with pytest.raises(NnlrError, match=r"'0\.weight': it is a DTensor"):
                get_parameters(net)
        finally:
            destroy_process_group()

    def test_something_else_than_a_module_is_refused(self):
        """The likely mistake is passing the parameters."""
        net = small_net()
        with pytest.raises(NnlrError, match=r"needs a torch\.nn\.Module, got gen"):
            get_parameters(net.parameters())
