"""nnlr.torch7: flattened parameters, and SGD on one vector."""

import copy
import gc
import io
import runpy
import warnings
import weakref
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from nnlr.errors import NnlrError, NnlrWarning
from nnlr.torch7 import get_parameters, sgd
from nnlr.torch7._get_parameters import _Vectors

_TWIN = Path(__file__).parents[1] / "reference" / "sgd_numpy.py"
sgd_numpy = runpy.run_path(str(_TWIN))["sgd_numpy"]

BAD_NUMBERS = [-0.1, float("nan"), float("inf"), True, "0.1", torch.tensor(0.1)]


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


# --- sgd ---------------------------------------------------------------------------

N = 6
_RNG = np.random.default_rng(0)
CURVATURE = _RNG.uniform(0.5, 2.0, N)
CENTRE = _RNG.normal(size=N)
START = _RNG.normal(size=N)
DECAYS = np.array([0.0, 0.1, 0.01, 0.0, 0.3, 0.05])
RATES = np.array([0.1, 0.0, 0.05, 0.2, 0.1, 0.01])

MOMENTA = {
    "plain": {},
    "dampened": {"momentum": 0.9},
    "undampened": {"momentum": 0.9, "dampening": 0.0},
    "half": {"momentum": 0.5, "dampening": 0.2},
    "nesterov": {"momentum": 0.9, "dampening": 0.0, "nesterov": True},
    "dampening alone": {"dampening": 0.5},
}
DECAY = {
    "none": {},
    "scalar": {"weight_decay": 0.02},
    "vector": {"weight_decays": DECAYS},
    "vector beside zero": {"weight_decays": DECAYS, "weight_decay": 0.0},
}
RATE = {
    "default": {},
    "scalar": {"learning_rate": 0.1},
    "vector": {"learning_rates": RATES},
    "vector with factor": {"learning_rates": RATES, "learning_rate": 0.5},
}
ANNEALING = {"constant": {}, "annealed": {"learning_rate_decay": 0.05}}
CASES = {
    ", ".join(names): {
        **MOMENTA[names[0]],
        **DECAY[names[1]],
        **RATE[names[2]],
        **ANNEALING[names[3]],
    }
    for names in product(MOMENTA, DECAY, RATE, ANNEALING)
}


def valley(x):
    """A quartic valley: loss and gradient, for NumPy and torch alike."""
    convert = torch.as_tensor if isinstance(x, torch.Tensor) else np.asarray
    like = {"dtype": x.dtype}
    curvature, centre = convert(CURVATURE, **like), convert(CENTRE, **like)
    off = x - centre
    return (curvature * off**2).sum(), 2 * curvature * off + 0.1 * off**3


def slope(x):
    return valley(x)[1]


def torch_config(config, dtype):
    return {
        key: torch.tensor(value, dtype=dtype) if isinstance(value, np.ndarray) else value
        for key, value in config.items()
    }


class TestSgdAgainstItsTwin:
    @pytest.mark.parametrize("case", CASES)
    def test_float64_steps_equal_the_twin(self, case):
        """25 steps, every one of them, to 1e-12."""
        expected = sgd_numpy(slope, START, 25, **CASES[case])
        config = torch_config(CASES[case], torch.float64)
        x = torch.tensor(START)
        rows = []
        for _ in range(25):
            same, _ = sgd(valley, x, config)
            assert same is x
            rows.append(x.numpy().copy())
        np.testing.assert_allclose(np.array(rows), expected, rtol=1e-12, atol=1e-12)
        assert np.abs(expected - START).max() > 1e-3

    @pytest.mark.parametrize("case", CASES)
    def test_float32_steps_equal_the_twin_to_round_off(self, case):
        """25 steps in single precision."""
        expected = sgd_numpy(slope, START, 25, **CASES[case])
        config = torch_config(CASES[case], torch.float32)
        x = torch.tensor(START, dtype=torch.float32)
        for _ in range(25):
            sgd(valley, x, config)
        np.testing.assert_allclose(x.numpy(), expected[-1], rtol=2e-5, atol=2e-6)

    def test_the_shape_of_x_does_not_matter(self):
        """A matrix steps as its flattened self."""
        config = {"momentum": 0.9, "weight_decays": torch.tensor(DECAYS)}
        flat, matrix = torch.tensor(START), torch.tensor(START).reshape(2, 3)
        square = {"momentum": 0.9, "weight_decays": torch.tensor(DECAYS).reshape(2, 3)}
        for _ in range(3):
            sgd(lambda x: (0.0, 2 * x), flat, config)
            sgd(lambda x: (0.0, 2 * x), matrix, square)
        assert torch.equal(flat, matrix.reshape(-1))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64])
    def test_vectors_of_another_precision_do_not_change_that_of_x(self, dtype):
        """plan.vectors() has the default dtype, whatever the parameters have."""
        config = {
            "learning_rates": torch.full((N,), 0.25),
            "weight_decays": torch.full((N,), 0.5),
            "momentum": 0.5,
        }
        x = torch.ones(N, dtype=dtype)
        sgd(lambda x: (0.0, x.clone()), x, config)
        assert torch.equal(torch.full((N,), 1 - 0.25 * 1.5, dtype=dtype), x)
        assert config["momentum_buffer"].dtype == dtype


class TestSgdAsTorch:
    @pytest.mark.parametrize("nesterov", [False, True])
    def test_vectors_train_as_parameter_groups_do(self, nesterov):
        """50 steps of a network equal torch.optim.SGD with a group per parameter."""
        dampening = 0.0 if nesterov else 0.9
        rates, decays = [0.01, 0.02, 0.1, 0.0], [1e-3, 0.0, 1e-2, 0.0]
        by_group, by_vector = small_net(), small_net()
        optimizer = torch.optim.SGD(
            [
                {"params": [p], "lr": lr, "weight_decay": wd}
                for p, lr, wd in zip(by_group.parameters(), rates, decays, strict=True)
            ],
            momentum=0.9,
            dampening=dampening,
            nesterov=nesterov,
        )
        sizes = torch.tensor([p.numel() for p in by_vector.parameters()])
        config = {
            "learning_rates": torch.tensor(rates).repeat_interleave(sizes),
            "weight_decays": torch.tensor(decays).repeat_interleave(sizes),
            "momentum": 0.9,
            "nesterov": nesterov,
        }
        if nesterov:
            config["dampening"] = 0
        flat, flat_grad = get_parameters(by_vector)
        start = flat.clone()

        def closure(_):
            flat_grad.zero_()
            loss = by_vector(inputs).sub(targets).square().mean()
            loss.backward()
            return loss, flat_grad

        generator = torch.Generator().manual_seed(1)
        for _ in range(50):
            inputs = torch.randn(8, 2, generator=generator)
            targets = inputs.sum(1, keepdim=True)
            optimizer.zero_grad()
            loss = by_group(inputs).sub(targets).square().mean()
            loss.backward()
            optimizer.step()
            _, (vector_loss,) = sgd(closure, flat, config)
            torch.testing.assert_close(loss, vector_loss)
        expected = parameters_to_vector(by_group.parameters())
        torch.testing.assert_close(expected, flat, rtol=1e-5, atol=1e-6)
        assert torch.equal(start[12:], flat[12:])  # the locked bias
        assert (flat - start)[:12].abs().min() > 1e-4


class TestSgdCall:
    def test_the_loss_is_returned_as_measured_before_the_step(self):
        """Torch7 returns x and a table with f(x)."""
        x = torch.tensor([3.0])
        same, losses = sgd(lambda x: (x.item() ** 2, 2 * x), x, {"learning_rate": 0.5})
        assert same is x
        assert losses == [9.0]
        assert x.item() == 0.0

    def test_the_returned_loss_holds_no_graph(self):
        """Collecting the losses of a run must not keep its activations."""
        x = torch.ones(2, requires_grad=True)

        def closure(x):
            loss = x.square().sum()
            return loss, torch.autograd.grad(loss, x)[0]

        with torch.no_grad():  # opfunc needs a graph wherever sgd is called
            _, (loss,) = sgd(closure, x, {"learning_rate": 0.5})
        assert loss.item() == 2.0
        assert not loss.requires_grad
        assert torch.equal(torch.zeros(2), x)

    @pytest.mark.parametrize("case", CASES)
    def test_the_gradient_is_left_as_it_was(self, case):
        """The Lua code changed it in place; here it is the caller's."""
        gradient = torch.tensor(START)
        config = torch_config(CASES[case], torch.float64)
        x = torch.ones(N, dtype=torch.float64)
        for _ in range(3):
            sgd(lambda _: (0.0, gradient), x, config)
        assert torch.equal(torch.tensor(START), gradient)
        buffer = config.get("momentum_buffer")
        assert buffer is None or buffer.data_ptr() != gradient.data_ptr()

    def test_the_gradient_may_be_x_itself(self):
        """f(x) = x^2 / 2 is the classic case."""
        x = torch.ones(2)
        config = {"learning_rate": 0.5, "momentum": 0.5}
        for _ in range(2):
            sgd(lambda x: (0.0, x), x, config)
        # v1 = 1, x1 = 0.5; v2 = 0.5 * 1 + 0.5 * 0.5 = 0.75, x2 = 0.125
        assert torch.equal(torch.full((2,), 0.125), x)

    def test_the_momentum_buffer_is_reused(self):
        """Steps do not pile up memory: the state keeps its one tensor."""
        x, config = torch.tensor(START), {"momentum": 0.9, "weight_decay": 0.1}
        sgd(valley, x, config)
        buffer = config["momentum_buffer"]
        keys = set(config)
        for _ in range(3):
            sgd(valley, x, config)
        assert config["momentum_buffer"] is buffer
        assert set(config) == keys

    def test_without_config_the_step_is_plain_with_rate_one_thousandth(self):
        """Torch7's default learning rate."""
        x = torch.ones(1, dtype=torch.float64)
        sgd(lambda x: (0.0, x.clone()), x)
        assert x.item() == pytest.approx(0.999, abs=1e-15)

    def test_none_stands_for_the_default(self):
        """As nil does in Lua."""
        settings = dict.fromkeys(
            ["learning_rate", "momentum", "dampening", "nesterov", "weight_decays"]
        )
        x = torch.ones(1, dtype=torch.float64)
        sgd(lambda x: (0.0, x.clone()), x, settings)
        assert x.item() == pytest.approx(0.999, abs=1e-15)

    def test_a_config_made_anew_for_each_call_has_no_momentum(self):
        """The Lua example did this; the docstring says what it costs."""
        kept, anew = torch.tensor(START), torch.tensor(START)
        config = {"learning_rate": 0.1, "momentum": 0.9}
        plain = sgd_numpy(slope, START, 3, learning_rate=0.1)
        for _ in range(3):
            sgd(valley, kept, config)
            sgd(valley, anew, {"learning_rate": 0.1, "momentum": 0.9})
        np.testing.assert_allclose(anew.numpy(), plain[-1], rtol=1e-12)
        assert not torch.allclose(kept, anew)

    def test_a_state_of_its_own_leaves_the_config_alone(self):
        """And equals the run whose state is in the config."""
        shared, split = torch.tensor(START), torch.tensor(START)
        config, state = {"momentum": 0.9, "learning_rate_decay": 0.1}, {}
        before = dict(config)
        both = dict(config)
        for _ in range(4):
            sgd(valley, shared, both)
            sgd(valley, split, config, state)
        assert torch.equal(shared, split)
        assert before == config
        assert {"eval_counter", "momentum_buffer"} == set(state)
        assert state["eval_counter"] == 4

    @pytest.mark.parametrize("case", ["nesterov, vector, vector with factor, annealed"])
    def test_a_saved_run_resumes_exactly(self, case):
        """Bit for bit, through torch.save and a weights_only load."""
        through = torch.tensor(START)
        config = torch_config(CASES[case], torch.float64)
        for _ in range(5):
            sgd(valley, through, config)
        file = io.BytesIO()
        torch.save((through, config), file)
        for _ in range(5):
            sgd(valley, through, config)
        file.seek(0)
        resumed, loaded = torch.load(file, weights_only=True)
        for _ in range(5):
            sgd(valley, resumed, loaded)
        assert torch.equal(through, resumed)
        assert loaded["eval_counter"] == config["eval_counter"] == 10

    def test_empty_vectors_can_be_stepped(self):
        """A module without parameters trains to nothing, quietly."""
        x = torch.empty(0)
        config = {"learning_rates": torch.empty(0), "momentum": 0.9}
        assert sgd(lambda x: (1.0, x.clone()), x, config) == (x, [1.0])


GOOD_X = torch.ones(3)
BAD_CONFIGS = {
    "typo": (
        {"momentun": 0.9},
        "does not know the setting 'momentun'. Nearest: 'momentum'",
    ),
    "Lua": (
        {"learningRates": GOOD_X},
        "Torch7's 'learningRates' is 'learning_rates' here",
    ),
    "Lua state": ({"evalCounter": 3}, "Torch7's 'evalCounter' is 'eval_counter' here"),
    "Lua typo": ({"weightDecai": 1}, "Nearest: 'weight_decay'"),
    "lr": ({"lr": 0.1}, "Torch's 'lr' is 'learning_rate' here"),
    "no string": ({3: 0.1}, "the setting 3. Keys are strings"),
    "nesterov dampened": (
        {"nesterov": True, "momentum": 0.9},
        "got momentum=0.9 and dampening=0.9.*pass dampening=0",
    ),
    "nesterov alone": ({"nesterov": True}, "got momentum=0 and dampening=0"),
    "nesterov 1": ({"nesterov": 1, "momentum": 0.9}, "nesterov must be True or False"),
    "two decays": (
        {"weight_decay": 0.1, "weight_decays": GOOD_X},
        "weight_decay=0.1 beside weight_decays would be ignored",
    ),
    "list": ({"learning_rates": [1.0] * 3}, r"shape \(3,\), got list.*'learning_rate'"),
    "integers": ({"weight_decays": torch.ones(3).long()}, "got torch.int64"),
    "sparse": ({"weight_decays": torch.ones(3).to_sparse()}, "layout torch.sparse_coo"),
    "shape": ({"learning_rates": torch.ones(4)}, r"shape \(4,\).*x is of shape \(3,\)"),
    "scalar": (
        {"learning_rates": torch.tensor(1.0)},
        r"learning_rates is of shape \(\)",
    ),
    "device": (
        {"weight_decays": torch.ones(3, device="meta")},
        "on meta, but x is .* cpu",
    ),
    "negative": (
        {"weight_decays": torch.tensor([0, -1.0, 0])},
        "weight_decays holds a",
    ),
    "NaN": (
        {"learning_rates": torch.full((3,), torch.nan)},
        "negative, infinite or NaN",
    ),
    "infinite": ({"learning_rates": torch.full((3,), torch.inf)}, "infinite or NaN"),
    "counter": ({"eval_counter": -1}, "int >= 0, got -1"),
    "counter bool": ({"eval_counter": True}, "int >= 0, got True"),
    "counter float": ({"eval_counter": 1.5}, "int >= 0, got 1.5"),
    "buffer": ({"momentum_buffer": 3}, "must be a tensor like x, got 3"),
    "buffer shape": ({"momentum_buffer": torch.ones(2)}, "belongs to another x"),
    "buffer dtype": (
        {"momentum_buffer": torch.ones(3).double()},
        "torch.float64 on cpu",
    ),
    "no dict": ([("momentum", 0.9)], "config of sgd must be a dict"),
}
BAD_RESULTS = {
    "gradient only": (torch.ones(3), r"must return \(loss, gradient\), got Tensor"),
    "nothing": (None, "got NoneType. End it with: return loss, flat_grad"),
    "three": ((0.0, torch.ones(3), 1), r"\(loss, gradient\), got tuple"),
    "no tensor": ((0.0, [1.0] * 3), "with a tensor as gradient, got list"),
    "no gradient": ((0.0, None), "got NoneType"),
    "shape": ((0.0, torch.ones(4)), r"of shape \(4,\).*must agree in shape"),
    "dtype": ((0.0, torch.ones(3).double()), "torch.float64 on cpu"),
    "device": ((0.0, torch.ones(3, device="meta")), "on meta, but x"),
    "sparse": ((0.0, torch.ones(3).to_sparse()), "in layout torch.sparse_coo"),
}


class TestSgdRefusals:
    @pytest.mark.parametrize("case", BAD_CONFIGS)
    def test_a_bad_config_is_refused_before_opfunc_runs(self, case):
        """Nothing is evaluated, moved or counted."""
        config, message = BAD_CONFIGS[case]
        config = copy.copy(config)
        length, x, calls = len(config), torch.ones(3), []
        with pytest.raises(NnlrError, match=message):
            sgd(calls.append, x, config)
        assert calls == []
        assert torch.equal(torch.ones(3), x)
        assert len(config) == length

    @pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
    @pytest.mark.parametrize(
        "key",
        [
            "learning_rate",
            "learning_rate_decay",
            "weight_decay",
            "momentum",
            "dampening",
        ],
    )
    def test_a_setting_must_be_a_finite_number_of_at_least_zero(self, key, value):
        """The message names the setting."""
        with pytest.raises(NnlrError, match=f"^{key} must be a finite number >= 0"):
            sgd(lambda x: (0.0, x), torch.ones(3), {key: value})

    @pytest.mark.parametrize("case", BAD_RESULTS)
    def test_a_bad_result_of_opfunc_is_refused_and_nothing_moves(self, case):
        """Neither x nor the state."""
        result, message = BAD_RESULTS[case]
        x, config = torch.ones(3), {"momentum": 0.9}
        with pytest.raises(NnlrError, match=message):
            sgd(lambda _: result, x, config)
        assert torch.equal(torch.ones(3), x)
        assert config == {"momentum": 0.9}

    def test_the_state_must_be_a_dict(self):
        """It is written to."""
        with pytest.raises(NnlrError, match=r"state of sgd must be a dict.*\(tuple\)"):
            sgd(lambda x: (0.0, x), torch.ones(3), {}, ())

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            ([1.0], "must be a tensor, got list.*get_parameters"),
            (torch.ones(3).long(), "floating point numbers, got torch.int64"),
            (torch.ones(3).to_sparse(), "dense tensor.*layout torch.sparse_coo"),
        ],
        ids=["list", "integers", "sparse"],
    )
    def test_x_must_be_a_dense_floating_point_tensor(self, x, message):
        """A module or a list is the likely mistake."""
        with pytest.raises(NnlrError, match=message):
            sgd(lambda x: (0.0, x), x, {})
