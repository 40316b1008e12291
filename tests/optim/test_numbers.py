"""The numbers of nnlr.optim: torch's own, to the last bit where one kernel runs."""

import copy

import pytest
import torch

import nnlr
from tests.optim.database import INFOS, OptimizerErrorEnum, inputs
from tests.optim.twins import (
    NAMES,
    SHAPES,
    USUAL,
    assert_equal,
    assert_same_state,
    classes,
    pair,
    parameters,
    thirds,
    train,
)
from tests.reference import optimizers_plain

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
KINDS = [(name, dtype) for name in NAMES for dtype in DTYPES]


def torchs(name, dtype):
    """How torch's class is right in a type: by its loop where its kernel is wrong."""
    return {"fused": name != "SGD" or dtype.itemsize > 2}


def test_the_database_knows_all_three():
    """A class that torch's database does not list would be tested with nothing."""
    assert set(NAMES) == set(INFOS)
    assert all(len(info.optim_inputs_func(device="cpu")) >= 5 for info in INFOS.values())


@pytest.mark.parametrize(("name", "kwargs"), inputs())
@pytest.mark.no_cover
def test_a_hundred_steps_equal_torchs_fused_bit_for_bit(name, kwargs):
    """Changing rates, gradients that come late or stay away, every layout."""
    sides, optimizers = pair(name, copy.deepcopy(kwargs))

    def skip(step, at):
        return (step < 7 and at == 1) or (step % 5 == 3 and at in {2, 6})

    if name == "SGD" and kwargs.get("momentum"):
        # Torch's fused SGD fails where only some momenta have begun.
        def skip(step, at):
            return step % 5 == 3 and step > 5 and at in {2, 6}

    train(sides, optimizers, 100, skip=skip)
    assert_equal(*sides)
    assert_same_state(*optimizers)
    assert optimizers[1].fast_path_report().all_fast


@pytest.mark.parametrize(("name", "kwargs"), inputs())
@pytest.mark.no_cover
def test_steps_equal_torchs_loop_to_round_off(name, kwargs):
    """The loop over tensors, which is torch's default on a CPU, with late gradients."""
    sides, optimizers = pair(name, copy.deepcopy(kwargs), {"foreach": False})

    def skip(step, at):
        return (step < 7 and at == 1) or (step % 5 == 3 and at in {2, 6})

    train(sides, optimizers, 40, skip=skip)
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("name", "dtype"), KINDS, ids=str)
def test_every_type_equals_torchs(name, dtype):
    """Also with parameters of two types in one group."""
    sides = [[*parameters(dtype=dtype), *parameters(SHAPES[:2], torch.float32)] for _ in range(2)]
    settings = {**USUAL[name], **({} if name == "SGD" else {"eps": 1e-3})}
    torch_class, our_class = classes(name)
    expected = torch_class(thirds(sides[0]), **settings, **torchs(name, dtype))
    actual = our_class(thirds(sides[1]), **settings)
    train(sides, (expected, actual), 20)
    if torchs(name, dtype)["fused"]:
        assert_equal(*sides)
        assert_same_state(expected, actual)
    else:
        for one, other in zip(*sides, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)
    assert torchs(name, dtype)["fused"] == actual.fast_path_report().all_fast


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_torchs_fused_sgd_is_wrong_in_16_bits(dtype):
    """Why SGD leaves these to torch's loop, even for fused=True. Drop that once this fails."""
    found = {}
    for how, cls, made in (
        ("exact", torch.optim.SGD, torch.float64),
        ("torch fused", torch.optim.SGD, dtype),
        ("ours", nnlr.optim.SGD, dtype),
    ):
        weight = torch.nn.Parameter(torch.zeros(64, dtype=made))
        optimizer = cls([weight], lr=0.125, momentum=0.5, fused=how != "exact")
        for _ in range(4):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        found[how] = weight.detach().double()
    torch.testing.assert_close(found["exact"], found["ours"], rtol=1e-2, atol=0)
    assert (found["exact"] - found["torch fused"]).abs().max() > 0.1


@pytest.mark.full
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "kwargs"), inputs(torch.float16))
def test_every_input_in_every_type(name, kwargs, dtype):
    """The whole product, 100 steps each."""
    sides = [parameters(dtype=dtype) for _ in range(2)]
    own = ({**torchs(name, dtype)}, {})
    optimizers = [
        cls(thirds(params), **copy.deepcopy(kwargs), **how)
        for cls, params, how in zip(classes(name), sides, own, strict=True)
    ]
    train(sides, optimizers, 100)
    assert_equal(*sides)
    assert_same_state(*optimizers)


def hand_written(name, kwargs):
    """The twin of a class with some settings, for one tensor, and its settings."""
    known = {key: value for key, value in kwargs.items() if key != "lr"}
    return getattr(optimizers_plain, name.lower()), known


@pytest.mark.parametrize(("name", "kwargs"), inputs())
@pytest.mark.no_cover
def test_steps_equal_the_formula(name, kwargs):
    """In float64, against the published formula written out in NumPy."""
    params = parameters(dtype=torch.float64)
    optimizer = classes(name)[1]([{"params": [param]} for param in params], **copy.deepcopy(kwargs))
    make, settings = hand_written(name, kwargs)
    twins = [make(param.detach().numpy(), None, **settings) for param in params]
    for twin in twins:
        next(twin)
    source = torch.Generator().manual_seed(3)
    for step in range(40):
        lr = 0.01 / (1 + step)
        expected = []
        for group, param, twin in zip(optimizer.param_groups, params, twins, strict=True):
            param.grad = torch.empty_like(param)
            param.grad.copy_(torch.randn(param.shape, generator=source))
            tensor = isinstance(group["lr"], torch.Tensor)
            group["lr"] = torch.tensor(lr, dtype=torch.float64) if tensor else lr
            expected.append(twin.send((param.grad.numpy().copy(), lr)))
        optimizer.step()
        for wanted, param in zip(expected, params, strict=True):
            actual = param.detach()
            torch.testing.assert_close(torch.as_tensor(wanted), actual, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_bad_arguments_are_refused_as_torch_refuses_them(name):
    """Every wrong input of torch's database, with torch's words."""
    cases = INFOS[name].optim_error_inputs_func(device="cpu", dtype=torch.float32)
    assert cases
    for case in cases:
        given = case.optimizer_error_input
        if case.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(case.error_type, match=case.error_regex):
                classes(name)[1](given.params or parameters(), **given.kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_in_a_tensor_equals_torchs(name):
    """A 0-dim tensor for all groups and one of its own for one, filled at every step."""
    sides = [parameters() for _ in range(2)]
    optimizers = []
    for cls, params, fused in zip(classes(name), sides, ({"fused": True}, {}), strict=True):
        groups = thirds(params)
        groups[1]["lr"] = torch.tensor(0.02)
        settings = {**USUAL[name], "lr": torch.tensor(0.01)}
        optimizers.append(cls(groups, **settings, **fused))
    train(sides, optimizers, 100)
    assert_equal(*sides)
    assert optimizers[1].fast_path_report().all_fast


@pytest.mark.parametrize("name", NAMES)
def test_a_closure_is_evaluated_with_gradients(name):
    """Its loss is returned, and the step follows it."""
    sides, optimizers = pair(name)
    losses = []
    for params, optimizer in zip(sides, optimizers, strict=True):

        def closure(params=params, optimizer=optimizer):
            optimizer.zero_grad(set_to_none=False)
            loss = sum((param - 1).square().sum() for param in params)
            loss.backward()
            return loss

        losses.append([optimizer.step(closure).item() for _ in range(5)])
    assert losses[0] == losses[1]
    assert losses[1][0] > losses[1][-1]
    assert_equal(*sides)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_that_lie_otherwise_are_put_right(name):
    """Torch's fused kernels on a CPU walk through memory whatever the strides."""
    settings = USUAL[name]
    torch_class, our_class = classes(name)
    sides = [parameters([(4, 6), (2, 3, 4, 5)]) for _ in range(2)]
    expected = torch_class(sides[0], **settings, foreach=False)
    actual = our_class(sides[1], **settings)
    source = torch.Generator().manual_seed(5)
    for _ in range(5):
        for one, other in zip(*sides, strict=True):
            grad = torch.randn(one.shape, generator=source)
            flipped = grad.permute(*reversed(range(grad.ndim))).contiguous()
            one.grad = grad.clone()
            other.grad = flipped.permute(*reversed(range(grad.ndim)))
        expected.step()
        actual.step()
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert actual.fast_path_report().all_fast


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_left_as_they_are(name):
    """A step reads them; the caller may go on accumulating."""
    (_, params), (_, optimizer) = pair(name)
    train([params], [optimizer], 2)
    before = [param.grad.clone() for param in params]
    optimizer.step()
    assert_equal(before, [param.grad for param in params])
