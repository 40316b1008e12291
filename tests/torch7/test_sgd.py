"""nnlr.torch7.sgd: SGD on one vector."""

import copy
import io
import runpy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from nnlr.errors import NnlrError
from nnlr.torch7 import get_parameters, sgd
from tests.helpers import thinned

_TWIN = Path(__file__).parents[1] / "reference" / "sgd_numpy.py"
sgd_numpy = runpy.run_path(str(_TWIN))["sgd_numpy"]

BAD_NUMBERS = [-0.1, float("nan"), float("inf"), True, "0.1", torch.tensor(0.1)]


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


def small_net():
    """Two linear layers, 2 -> 3 -> 1: 13 parameters."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


class TestSgdAgainstItsTwin:
    @pytest.mark.parametrize("case", thinned(CASES, 5))
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

    @pytest.mark.parametrize("case", thinned(CASES, 5))
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

    @pytest.mark.parametrize("case", thinned(CASES, 5))
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


class TestVectorsThatCannotBeStepped:
    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (torch.ones(2, device="meta"), "on the meta device"),
            (torch.ones(1).expand(2), "is expanded: several elements share one place"),
            (torch.inference_mode()(lambda: torch.ones(2))(), "was made in torch.inference_mode"),
            (torch.ones(2, 2).to_sparse(), "must be a dense tensor"),
        ],
        ids=["meta", "expanded", "inference", "sparse"],
    )
    def test_they_are_refused_before_the_function_is_called(self, x, message):
        """Torch would raise in the middle of the step."""
        called = []
        with pytest.raises(NnlrError, match=message):
            sgd(called.append, x)
        assert not called

    def test_a_function_is_needed(self):
        """Not its result."""
        with pytest.raises(NnlrError, match=r"opfunc must be a function such as def opfunc\(x\)"):
            sgd(3.0, torch.ones(2))

    def test_a_counter_that_no_run_reaches(self):
        """Nor would it fit into a number."""
        with pytest.raises(NnlrError, match="eval_counter counts the steps done"):
            sgd(lambda x: (0.0, x), torch.ones(2), {"eval_counter": 10**400})
