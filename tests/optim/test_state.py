"""State: checkpoints interchange with torch's classes, copies go on as the original."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from tests.optim.twins import (
    NAMES,
    USUAL,
    assert_equal,
    assert_same_state,
    change_rates,
    classes,
    give_gradients,
    pair,
    parameters,
    thirds,
    train,
)

pytestmark = pytest.mark.parametrize("name", NAMES)


def written(state):
    """Through a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("source", [0, 1], ids=["from torch", "from ours"])
@pytest.mark.parametrize("target", [0, 1], ids=["to torch", "to ours"])
def test_checkpoints_interchange(name, source, target):
    """Saved by either, loaded by either, the run goes on to the last bit."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 6)
    saved = written(optimizers[source].state_dict())
    resumed = parameters()
    for one, other in zip(sides[source], resumed, strict=True):
        one_now = one.detach().clone()
        other.data.copy_(one_now)
    how = {} if target else {"fused": True}
    fresh = classes(name)[target](thirds(resumed), **USUAL[name], **how)
    fresh.load_state_dict(saved)
    for group in fresh.param_groups:
        group["fused"] = True  # the comparison is with torch's fused step
    train([*sides, resumed], [*optimizers, fresh], 6, start=6)
    assert_equal(sides[0], resumed)
    assert_same_state(optimizers[0], fresh)


def test_loading_in_the_middle_of_a_run(name):
    """Back to an earlier state, with lists already made for another."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 3)
    saved = [
        (copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in params])
        for params, optimizer in zip(sides, optimizers, strict=True)
    ]
    train(sides, optimizers, 3, start=3)
    for (state, values), params, optimizer in zip(saved, sides, optimizers, strict=True):
        optimizer.load_state_dict(state)
        for param, value in zip(params, values, strict=True):
            param.data.copy_(value)
    train(sides, optimizers, 3, start=6)
    assert_equal(*sides)
    assert_same_state(*optimizers)


def test_state_has_torchs_keys_types_and_shapes(name):
    """In groups and in state, before the first step and after some."""
    sides, optimizers = pair(name, torchs={"foreach": None})
    for _ in range(2):
        one, other = (optimizer.state_dict() for optimizer in optimizers)
        assert one["param_groups"] == other["param_groups"]
        assert one["state"].keys() == other["state"].keys()
        for key, kept in one["state"].items():
            for entry, value in kept.items():
                found = other["state"][key][entry]
                assert (value.shape, value.dtype, value.device, value.stride()) == (
                    found.shape,
                    found.dtype,
                    found.device,
                    found.stride(),
                )
        train(sides, optimizers, 4)


def test_a_file_is_no_larger_than_torchs(name):
    """Counters are elements of one vector: it is written once, not once for each."""
    sides, optimizers = pair(name)
    train(sides, optimizers, 4)
    sizes = []
    for optimizer in optimizers:
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        sizes.append(file.tell())
    assert sizes[1] <= sizes[0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_go_on_by_themselves(name, copied):
    """A copy continues as the original does, and neither touches the other."""
    sides, (expected, actual) = pair(name)
    train(sides, (expected, actual), 4)
    again = copied(actual)
    params = [param for group in again.param_groups for param in group["params"]]
    assert type(actual) is type(again)
    train([sides[1]], [actual], 3, start=50)
    change_rates(3, expected)
    train([sides[0], params], [expected, again], 4, start=4)
    assert_equal(sides[0], params)
    assert_same_state(expected, again)


def test_state_dict_hooks(name):
    """Those before and after saving, and before and after loading, are called once each."""
    (_, params), (_, optimizer) = pair(name)
    train([params], [optimizer], 2)
    calls = []
    optimizer.register_state_dict_pre_hook(lambda _: calls.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda *_: calls.append("after saving"))
    optimizer.register_load_state_dict_pre_hook(lambda *_: calls.append("before loading"))
    optimizer.register_load_state_dict_post_hook(lambda _: calls.append("after loading"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["before saving", "after saving", "before loading", "after loading"]
    train([params], [optimizer], 2)


def test_a_hook_that_saves_something_else(name):
    """Whatever it returns is what is saved, with the usual keys or none of them."""
    (_, params), (_, optimizer) = pair(name)
    train([params], [optimizer], 2)
    for other in ({"state": {}}, {"shards": 2}):
        handle = optimizer.register_state_dict_post_hook(lambda *_, made=other: made)
        assert other == optimizer.state_dict()
        handle.remove()


def test_moments_that_were_saved_in_another_layout(name):
    """A file of contiguous tensors for a model in channels last: put right, not misread."""
    torch_class, our_class = classes(name)
    sides = [parameters([]), parameters([])]
    expected = torch_class(sides[0], **USUAL[name], foreach=False)
    actual = our_class(sides[1], **USUAL[name])
    train(sides, (expected, actual), 3)
    for optimizer in (expected, actual):
        state = copy.deepcopy(optimizer.state_dict())
        for kept in state["state"].values():
            for key, value in kept.items():
                kept[key] = value.contiguous()
        optimizer.load_state_dict(state)
    train(sides, (expected, actual), 3, start=3)
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert actual.fast_path_report().all_fast


def test_counters_of_old_checkpoints(name):
    """A Python number, one in a vector, another type: each counts on."""
    sides, optimizers = pair(name, torchs={"foreach": False})
    train(sides, optimizers, 3)
    for optimizer in optimizers:
        state = copy.deepcopy(optimizer.state_dict())
        for kept in state["state"].values():
            if "step" in kept:
                kept["step"] = 3
        optimizer.load_state_dict(state)
    for kept in optimizers[1].state.values():
        if "step" in kept:
            kept["step"] = kept["step"].double().reshape(1)
    train(sides, optimizers, 3, start=3)
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    if name != "SGD":
        assert {6.0} == {float(kept["step"]) for kept in optimizers[1].state.values()}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_gradient_scaler_scales_and_skips(name, momentum):
    """With `fused=True` the kernels unscale and skip, with overflows from the first step."""
    settings = {**USUAL[name], **({"momentum": momentum} if name == "SGD" else {})}
    torch_class, our_class = classes(name)
    sides = [parameters() for _ in range(3)]
    optimizers = [
        torch_class(thirds(sides[0]), **settings, foreach=False),
        our_class(thirds(sides[1]), **settings, fused=True),
        our_class(thirds(sides[2]), **settings),
    ]
    scalers = [torch.amp.GradScaler("cpu", init_scale=8.0) for _ in optimizers]
    for step in range(8):
        give_gradients(step, *sides)
        for params, optimizer, scaler in zip(sides, optimizers, scalers, strict=True):
            scaler.scale(torch.zeros(()))
            for param in params:
                param.grad.mul_(scaler.get_scale())
            if step in {0, 1, 4}:
                params[0].grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
    for params in sides[1:]:
        for one, other in zip(sides[0], params, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert {scaler.get_scale() for scaler in scalers} == {1.0}
    if name != "SGD":
        counts = {float(kept["step"]) for kept in optimizers[1].state.values()}
        assert {5.0} == counts


def test_a_gradient_scaler_and_slow_parameters(name):
    """Those are unscaled before torch's own step, and skipped with the rest."""

    def made():
        holes = nn.Parameter(torch.ones(4, 6)[:, ::2])
        return [
            nn.Parameter(torch.ones(3)),
            holes,
            nn.Parameter(torch.ones(4, 6)[::2, ::2]),
        ]

    torch_class, our_class = classes(name)
    sides = [made(), made()]
    expected = torch_class(sides[0], **USUAL[name], foreach=False)
    actual = our_class(sides[1], **USUAL[name], fused=True)
    for step in range(4):
        give_gradients(step, *sides, skip=lambda step, at: step == 3 and at == 2)
        actual.grad_scale, actual.found_inf = torch.tensor(4.0), torch.tensor(0.0)
        for param in sides[1]:
            if param.grad is not None:
                param.grad.mul_(4.0)
        expected.step()
        actual.step()
        actual.found_inf = torch.tensor(1.0)
        actual.step()  # nothing
        del actual.grad_scale
        actual.step()  # nothing, unscaled by somebody else
        del actual.found_inf
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_gradient_scaler_that_comes_later(name):
    """A step without one leaves nothing behind that it would take for a scale."""
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4, 6)[:, ::2])]
    optimizer = classes(name)[1](params, **USUAL[name], fused=True)
    train([params], [optimizer], 1)
    assert not hasattr(optimizer, "grad_scale")
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert all(param.isfinite().all() for param in params)


def test_a_first_step_that_is_interrupted_leaves_nothing_random(name, monkeypatch):
    """Out of memory, say, with momenta made for some: they go on from zero."""
    sides, (expected, actual) = pair(name)

    def interrupt(*_, **__):
        raise MemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(type(actual), "_kernel", interrupt)
        with pytest.raises(MemoryError, match="no room"):
            train([sides[1]], [actual], 1)
    train(sides, (expected, actual), 3)
    assert_equal(*sides)


def test_a_first_step_that_overflows_begins_nothing(name):
    """Torch's fused SGD keeps whatever was in memory as its momentum."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = classes(name)[1]([weight], **USUAL[name], fused=True)
    weight.grad = torch.ones(3)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert torch.equal(torch.ones(3), weight)
    assert "momentum_buffer" not in optimizer.state.get(weight, {})
