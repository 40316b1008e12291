"""What the fused kernels cannot take makes torch's own step, in the same call."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import nnlr
from nnlr.optim._table import near
from tests.optim.twins import (
    NAMES,
    SHAPES,
    USUAL,
    assert_equal,
    assert_same_state,
    classes,
    give_gradients,
    pair,
    parameters,
    train,
)


class Marked(torch.Tensor):
    """A subclass that may mean anything."""


def reasons(optimizer):
    """Why parameters are slow, and how many for each reason."""
    return {why: len(names) for why, names in optimizer.fast_path_report().slow.items()}


def mixed(name, slow, settings=None):
    """Two optimizers of plain parameters and, first and last, some slow ones."""
    sides = [[slow(), *parameters(SHAPES[:3]), slow()] for _ in range(2)]
    torch_class, our_class = classes(name)
    settings = {**USUAL[name], **(settings or {})}
    groups = [[{"params": side[:2]}, {"params": side[2:], "lr": 0.02}] for side in sides]
    expected = torch_class(groups[0], **settings, foreach=False)
    return sides, (expected, our_class(groups[1], **settings))


def compare(sides):
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_complex_numbers_beside_real_ones(name):
    """The real ones are fast all the same."""

    def slow():
        return nn.Parameter(torch.ones(3, dtype=torch.complex64))

    sides, optimizers = mixed(name, slow)
    train(sides, optimizers, 5)
    compare(sides)
    assert {"its type is torch.complex64": 2} == reasons(optimizers[1])
    assert len(sides[1]) - 2 == len(optimizers[1].fast_path_report().fast)


@pytest.mark.parametrize("name", NAMES)
def test_a_slice_of_a_larger_tensor(name):
    """Holes in memory: torch's fused step on a CPU would write into them."""

    def slow():
        return nn.Parameter(torch.ones(4, 6)[:, ::2])

    for more in ({}, {"fused": True}):
        sides, (expected, actual) = mixed(name, slow)
        for group in actual.param_groups:
            group.update(more)
        wholes = [side[0].untyped_storage() for side in sides]
        train(sides, (expected, actual), 5)
        compare(sides)
        holes = [torch.tensor(list(whole), dtype=torch.uint8) for whole in wholes]
        assert [1.0] * 12 == holes[1].view(torch.float32).view(4, 6)[:, 1::2].flatten().tolist()
        assert {"its elements are not dense in memory": 2} == reasons(actual)


def test_a_sparse_gradient_with_sgd():
    """An embedding with sparse gradients; dense ones again take the fast path again."""
    nets = [nn.Embedding(9, 3, sparse=True), nn.Embedding(9, 3, sparse=True)]
    nets[1].load_state_dict(nets[0].state_dict())
    heads = [nn.Linear(3, 1), nn.Linear(3, 1)]
    heads[1].load_state_dict(heads[0].state_dict())
    runs = [
        (net, head, cls([*net.parameters(), *head.parameters()], lr=0.1, **how))
        for net, head, cls, how in zip(
            nets, heads, classes("SGD"), ({"foreach": False}, {}), strict=True
        )
    ]
    for step in range(9):
        sparse = step // 3 != 1
        for net, head, optimizer in runs:
            net.sparse = sparse
            optimizer.zero_grad()
            head(net(torch.tensor([1, step]))).square().sum().backward()
            optimizer.step()
        slow = {"its gradient is sparse": 1} if sparse else {}
        assert slow == reasons(runs[1][2])
    torch.testing.assert_close(nets[0].weight, nets[1].weight)


def test_who_insists_on_fused_hears_torchs_refusal():
    """`fused=True` says that nothing else will do."""
    weight = nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.ones(3, 2).to_sparse()
    optimizer = nnlr.optim.SGD([weight, nn.Parameter(torch.ones(2))], fused=True)
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: torch.ones(2, device="meta"), "it is on meta"),
        (lambda: torch.ones(2, 2).to_sparse(), "its layout is torch.sparse_coo"),
        (
            lambda: torch.ones(2, dtype=torch.float8_e4m3fn),
            "its type is torch.float8_e4m3fn",
        ),
    ],
)
def test_what_no_kernel_knows(name, made, reason):
    """Devices, layouts and types, seen before the first gradient."""
    optimizer = classes(name)[1]([nn.Parameter(made())])
    assert {reason: 1} == reasons(optimizer)


def test_rates_on_other_devices():
    """A kernel reads its rate from the CPU or from its own device, in float32 there."""
    optimizer = nnlr.optim.SGD([nn.Parameter(torch.ones(2))])
    optimizer.param_groups[0]["lr"] = torch.ones((), dtype=torch.float64, device="meta")
    assert {"lr is a tensor of torch.float64 on meta": 1} == reasons(optimizer)
    far = torch.ones((), device="meta")
    assert far is near(far, far.device)
    assert far is not near(far, torch.device("meta", 0))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_another_type(name):
    """Torch lets them be asked for; its loop casts, a kernel would misread."""
    weight = nn.Parameter(torch.ones(2))
    weight.grad_dtype = torch.float64
    weight.grad = torch.ones(2, dtype=torch.float64)
    optimizer = classes(name)[1]([weight])
    assert {"its gradient is of torch.float64": 1} == reasons(optimizer)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize("put", [3.0, torch.zeros(7), torch.zeros(3).as_subclass(Marked)])
def test_moments_that_are_something_else(name, put):
    """Numbers, other shapes, other classes: torch's step decides what to do with them."""
    sides = [[nn.Parameter(torch.ones(3))] for _ in range(2)]
    said = []
    for cls, side, how in zip(classes(name), sides, ({"foreach": False}, {}), strict=True):
        optimizer = cls(side, **how)
        train([side], [optimizer], 1)
        optimizer.state[side[0]]["exp_avg"] = put.clone() if isinstance(put, torch.Tensor) else put
        try:
            train([side], [optimizer], 1, start=1)
            said.append(None)
        except (AttributeError, RuntimeError) as error:
            said.append(type(error))
    assert said[0] == said[1]
    assert_equal(*sides)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_a_sparse_gradient_is_refused_where_torch_refuses_it(name):
    """In torch's words."""
    weight = nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.ones(3, 2).to_sparse()
    optimizer = classes(name)[1]([weight])
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "asked", [{"foreach": True}, {"foreach": False}, {"fused": False}], ids=str
)
def test_who_asks_for_another_way_gets_it(name, asked):
    """These are torch's words for `not the fused kernel`, and obeyed."""
    sides, optimizers = pair(name, torchs=asked)
    for group in optimizers[1].param_groups:
        group.update(asked)
    train(sides, optimizers, 5)
    assert_equal(*sides)
    assert_same_state(*optimizers)
    ((switch, value),) = asked.items()
    assert {f"{switch}={value} was asked for": len(sides[0])} == reasons(optimizers[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_differentiable_step(name):
    """Gradients flow through the step to the learning rate."""
    found = []
    for cls in classes(name):
        lr = torch.tensor(0.1, requires_grad=True)
        weight = torch.ones(3, requires_grad=True).clone()
        weight.retain_grad()
        weight.grad = torch.ones(3)
        optimizer = cls([weight], lr=lr, differentiable=True)
        optimizer.step()
        weight.sum().backward()
        found.append(lr.grad)
    assert torch.equal(*found)
    assert {"differentiable=True": 1} == reasons(optimizer)


@pytest.mark.parametrize("name", NAMES)
def test_one_differentiable_group(name):
    """It is torch's business; the other groups are fast."""
    sides, optimizers = pair(name, torchs={"foreach": False})
    for optimizer in optimizers:
        optimizer.param_groups[1]["differentiable"] = True
    train(sides, optimizers, 3)
    compare(sides)
    assert {"differentiable=True": 3} == reasons(optimizers[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_that_requires_a_gradient(name):
    """Only torch's own ways know what to do with it."""
    _, our_class = classes(name)
    weight = nn.Parameter(torch.ones(2))
    optimizer = our_class([weight], lr=torch.tensor(0.1, requires_grad=True))
    assert {"lr requires a gradient": 1} == reasons(optimizer)


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_in_an_array(name):
    """Torch's loop takes it."""
    sides, optimizers = pair(name, torchs={"foreach": False})
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = np.array(0.02)
    for step in range(3):
        give_gradients(step, *sides)
        for optimizer in optimizers:
            optimizer.step()
    compare(sides)
    assert {"lr is a ndarray": 2} == reasons(optimizers[1])


def test_betas_in_tensors():
    """Kernels take them as numbers; torch's loop takes them as they are."""
    betas = (torch.tensor(0.8), torch.tensor(0.95))
    sides, optimizers = pair("AdamW", {"betas": betas}, {"foreach": False})
    train(sides, optimizers, 5)
    assert_equal(*sides)
    assert {"betas is a tensor": len(sides[0])} == reasons(optimizers[1])


def test_a_decay_in_a_tensor():
    """The same for weight decay, also if it comes later."""
    sides, optimizers = pair("SGD", {"lr": 0.1}, {"foreach": False})
    train(sides, optimizers, 3)
    for optimizer in optimizers:
        optimizer.param_groups[0]["weight_decay"] = torch.tensor(0.5)
    train(sides, optimizers, 3, start=3)
    compare(sides)
    assert {"weight_decay is a tensor": 2} == reasons(optimizers[1])


def test_capturable_on_a_cpu_fails_as_torchs():
    """Torch has it for GPUs only, and says so."""
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = nnlr.optim.AdamW([weight], capturable=True)
    with pytest.raises(AssertionError, match="capturable=True"):
        optimizer.step()
    assert {"capturable=True, which torch has for GPUs only": 1} == reasons(optimizer)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_other_classes(name):
    """Parameters and gradients of a subclass are not taken for plain memory."""

    def slow():
        return nn.Parameter(torch.ones(3).as_subclass(Marked))

    sides, optimizers = mixed(name, slow)
    train(sides, optimizers, 3)
    compare(sides)
    assert {"it is a Marked": 2} == reasons(optimizers[1])
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3).as_subclass(Marked)
    optimizer = classes(name)[1]([weight], **USUAL[name])
    optimizer.step()
    assert {"its gradient is a Marked": 1} == reasons(optimizer)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_moments_of_another_type(name):
    """Somebody keeps them in float64: torch's loop can, a kernel cannot."""
    sides, optimizers = pair(name, torchs={"foreach": False})
    train(sides, optimizers, 2)
    for params, optimizer in zip(sides, optimizers, strict=True):
        for param in params[:2]:
            kept = optimizer.state[param]
            kept["exp_avg"] = kept["exp_avg"].double()
            kept["exp_avg_sq"] = kept["exp_avg_sq"].double()
    with pytest.raises(RuntimeError, match="dtype"):
        train(sides[:1], optimizers[:1], 1, start=2)
    with pytest.raises(RuntimeError, match="dtype"):
        train(sides[1:], optimizers[1:], 1, start=2)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_a_counter_that_is_no_tensor(name):
    """Put into the state by hand, it is torch's to refuse."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = classes(name)[1]([weight])
    train([[weight]], [optimizer], 1)
    optimizer.state[weight]["step"] = 1.0
    with pytest.raises(RuntimeError, match="singleton tensors"):
        train([[weight]], [optimizer], 1)


def test_a_parameter_twice():
    """Torch warns of it and steps it twice; so do we."""
    found = []
    for cls in classes("SGD"):
        weight = nn.Parameter(torch.ones(2))
        weight.grad = torch.ones(2)
        with pytest.warns(UserWarning, match="duplicate parameters"):
            optimizer = cls([weight, weight], lr=0.1, momentum=0.9)
        optimizer.step()
        found.append(weight)
    assert torch.equal(*found)
    assert {"a parameter is in the optimizer twice": 2} == reasons(optimizer)


def test_a_subclass_that_makes_its_own_state():
    """Its `_init_group` is obeyed, by torch's step."""

    class Own(nnlr.optim.AdamW):
        def _init_group(self, group, *lists):
            return super()._init_group(group, *lists)

    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = Own([weight])
    optimizer.step()
    assert {"Own has an _init_group of its own": 1} == reasons(optimizer)
    assert 1 == optimizer.state[weight]["step"]


@pytest.mark.parametrize("name", NAMES)
def test_hooks_run_once_a_step(name):
    """Also where a part of the parameters makes torch's own step."""
    calls = []
    params = [
        nn.Parameter(torch.ones(2)),
        nn.Parameter(torch.ones(2, dtype=torch.complex64)),
    ]
    optimizer = classes(name)[1](params, **USUAL[name])
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    everywhere = [
        register_optimizer_step_pre_hook(lambda *_: calls.append("before all")),
        register_optimizer_step_post_hook(lambda *_: calls.append("after all")),
    ]
    try:
        give_gradients(0, params)
        optimizer.step()
    finally:
        for handle in everywhere:
            handle.remove()
    assert ["before all", "before", "after", "after all"] == calls


@pytest.mark.parametrize("name", NAMES)
def test_the_report_names_parameters(name):
    """By `param_names` where there are any, else by their place; and it counts."""
    odd = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    pairs = [("body", nn.Parameter(torch.ones(2))), ("odd", odd)]
    named = classes(name)[1](pairs, **USUAL[name]).fast_path_report()
    assert ("body",) == named.fast
    assert {"its type is torch.complex64": ("odd",)} == named.slow
    assert not named.all_fast
    plain = classes(name)[1]([copy.deepcopy(odd)], **USUAL[name]).fast_path_report()
    assert (
        "0 of 1 parameter on the fast path\n"
        "  1 by torch's own step, because its type is torch.complex64: "
        "param_groups[0]['params'][0]"
    ) == str(plain)
