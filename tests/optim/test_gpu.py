"""nnlr.optim on a GPU; every test skips itself where there is none."""

import copy

import pytest
import torch

import nnlr
from tests.helpers import public_names
from tests.optim.database import INFOS, inputs
from tests.optim.twins import (
    NAMES,
    USUAL,
    assert_equal,
    assert_same_state,
    change_rates,
    classes,
    give_gradients,
    parameters,
    thirds,
    train,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def pair_on_gpu(name, settings):
    sides = [parameters(device="cuda") for _ in range(2)]
    expected, actual = (
        cls(thirds(side), **copy.deepcopy(settings), **how)
        for cls, side, how in zip(classes(name), sides, ({"fused": True}, {}), strict=True)
    )
    return sides, (expected, actual)


@pytest.mark.parametrize(("name", "kwargs"), inputs(device="cuda"))
def test_every_input_equals_torchs_fused(name, kwargs):
    """Capturable and tensor settings included; rates change, gradients come and go."""
    sides, optimizers = pair_on_gpu(name, kwargs)
    skip = (lambda *_: False) if name == "SGD" else (lambda step, at: (step + at) % 5 == 3)
    train(sides, optimizers, 100, skip=skip)
    tensors = any(isinstance(each, tuple) for each in kwargs.values())
    if tensors:  # betas: torch's loop
        for one, other in zip(*sides, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    else:
        assert_equal(*sides)


@pytest.mark.parametrize("name", NAMES)
def test_one_launch_for_each_pair_of_rates_and_no_waiting(name):
    """Two pairs among three groups; nothing is read back from the GPU."""
    params = [torch.nn.Parameter(torch.randn(8, 8, device="cuda")) for _ in range(9)]
    optimizer = classes(name)[1](thirds(params), **USUAL[name])
    give_gradients(0, params)
    for _ in range(3):
        optimizer.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.profiler.profile() as profile:
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    fused = [each for each in profile.events() if each.name.startswith("aten::_fused_")]
    assert 2 == len(fused)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_a_captured_step_replays(name):
    """A CUDA graph of the step counts and moves on, also with eager steps between."""
    sides = [parameters(device="cuda") for _ in range(2)]
    settings = {
        **USUAL[name],
        "lr": torch.tensor(0.01, device="cuda"),
        "capturable": True,
    }
    expected, actual = (
        cls(side, **copy.deepcopy(settings), **how)
        for cls, side, how in zip(classes(name), sides, ({"fused": True}, {}), strict=True)
    )
    give_gradients(0, *sides)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            expected.step()
            actual.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual.step()
    for _ in range(4):
        expected.step()
        graph.replay()
    expected.step()
    actual.step()
    expected.step()
    graph.replay()
    assert_equal(*sides)
    assert_same_state(expected, actual)


@pytest.mark.parametrize("name", NAMES)
def test_two_devices_in_one_optimizer(name):
    """Parameters on the CPU and on the GPU, in one group."""
    sides = [[*parameters(), *parameters(device="cuda")] for _ in range(2)]
    expected, actual = (
        cls(thirds(side), **USUAL[name], **how)
        for cls, side, how in zip(classes(name), sides, ({"fused": True}, {}), strict=True)
    )
    train(sides, (expected, actual), 10)
    assert_equal(*sides)
    assert actual.fast_path_report().all_fast


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_rest_where_torchs_default_keeps_them(name):
    """Counters go to the CPU in what is saved, and come back; the run goes on."""
    sides, (expected, actual) = pair_on_gpu(name, USUAL[name])
    train(sides, (expected, actual), 3)
    saved = copy.deepcopy(actual.state_dict())
    counters = [kept["step"] for kept in saved["state"].values() if "step" in kept]
    assert all(counter.is_cpu for counter in counters)
    actual.load_state_dict(saved)
    plain = classes(name)[0](thirds(parameters(device="cuda")), **USUAL[name])
    plain.load_state_dict(saved)
    train(sides, (expected, actual), 3, start=3)
    assert_equal(*sides)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_scaler(name):
    """Half precision with overflows, scaled in the kernels."""
    sides, _ = pair_on_gpu(name, USUAL[name])
    optimizers = [
        cls(thirds(side), **USUAL[name], fused=True)
        for cls, side in zip(classes(name), sides, strict=True)
    ]
    scalers = [torch.amp.GradScaler("cuda", init_scale=8.0) for _ in optimizers]
    for step in range(8):
        give_gradients(step, *sides)
        change_rates(step, *optimizers)
        for params, optimizer, scaler in zip(sides, optimizers, scalers, strict=True):
            scaler.scale(torch.zeros((), device="cuda"))
            if step == 4:
                params[0].grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
    assert_equal(*sides)


def test_the_database_has_inputs_for_gpus():
    """More than for CPUs: those that can be captured."""
    for name in ("Adam", "AdamW"):
        on = {
            device: len(INFOS[name].optim_inputs_func(device=device)) for device in ("cpu", "cuda")
        }
        assert on["cpu"] < on["cuda"]
    assert public_names(nnlr.optim) == ["Adam", "AdamW", "SGD", "use_numba"]
