"""nnlr.optim on DTensors: FSDP2's shards, and shards beside plain tensors."""

import contextlib
import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor

from nnlr.optim._fast_path import convert_state, reason_of_parameter
from tests.helpers import network, whole
from tests.optim.twins import NAMES, USUAL, classes
from tests.processes import outcomes, tell

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)


def sharded():
    net = network(4, 6, 5, 1)
    for layer in (net[0], net[1], net[3], net):
        fully_shard(layer)
    return net


def optimizer_of(cls, net, name, **settings):
    """Two rates, so that layers of equal rates are not neighbours."""
    groups = [
        {"params": [*net[0].parameters(), *net[3].parameters()]},
        {"params": net[1].parameters(), "lr": 0.02},
    ]
    return cls(groups, **USUAL[name], **settings)


def train(net, optimizer, steps=4, seed=1):
    """The same inputs in every process, so that averages change nothing."""
    source = torch.Generator().manual_seed(seed)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 / (1 + step)
        optimizer.zero_grad()
        net(torch.randn(8, 4, generator=source)).square().mean().backward()
        optimizer.step()


def local(tensor):
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def assert_close(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(whole(a), whole(b), rtol=1e-5, atol=1e-6)


def shards_step_as_torchs_fused():
    """Bit for bit as torch's fused step of the same shards, and as without shards.

    Torch's fused SGD does not know of shards.
    """
    for name in NAMES:
        torch_class, our_class = classes(name)
        alone, one, other = network(4, 6, 5, 1), sharded(), sharded()
        train(alone, optimizer_of(torch_class, alone, name, foreach=False))
        train(one, optimizer_of(torch_class, one, name, fused=name != "SGD"))
        optimizer = optimizer_of(our_class, other, name)
        train(other, optimizer)
        assert optimizer.fast_path_report().all_fast
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert name == "SGD" or torch.equal(local(a), local(b))
        assert_close(one, other)
        assert_close(alone, other)
        key = "momentum_buffer" if name == "SGD" else "exp_avg"
        assert all(isinstance(kept[key], DTensor) for kept in optimizer.state.values())


def shards_beside_plain_tensors():
    """Only one layer is sharded; all parameters are in one optimizer."""
    for name in NAMES:
        torch_class, our_class = classes(name)
        alone, mixed = network(4, 6, 5, 1), network(4, 6, 5, 1)
        fully_shard(mixed[1])
        train(alone, optimizer_of(torch_class, alone, name, foreach=False))
        optimizer = our_class(mixed.parameters(), **USUAL[name])
        optimizer.param_groups[0]["params"] = [
            *mixed[0].parameters(),
            *mixed[3].parameters(),
        ]
        optimizer.add_param_group({"params": mixed[1].parameters(), "lr": 0.02})
        train(mixed, optimizer)
        assert optimizer.fast_path_report().all_fast
        assert_close(alone, mixed)


def checkpoints_of_shards():
    """Through torch's distributed state dict, from ours to torch's and back."""
    for name in ("Adam", "AdamW"):
        torch_class, our_class = classes(name)
        options = StateDictOptions(full_state_dict=True)
        first, second = sharded(), sharded()
        one = optimizer_of(our_class, first, name)
        train(first, one)
        other = optimizer_of(torch_class, second, name)
        second.load_state_dict(first.state_dict())
        saved = copy.deepcopy(get_optimizer_state_dict(first, one, options=options))
        set_optimizer_state_dict(second, other, saved, options=options)
        train(first, one, seed=2)
        train(second, other, seed=2)
        assert_close(first, second)
        saved = copy.deepcopy(get_optimizer_state_dict(second, other, options=options))
        set_optimizer_state_dict(first, one, saved, options=options)
        train(first, one, seed=3)
        train(second, other, seed=3)
        assert_close(first, second)


class Underway(torch.Tensor):
    """What another process has not sent yet."""


def replicated(mesh, placement):
    """A parameter that every process has, with a gradient that is placed somehow."""
    param = nn.Parameter(distribute_tensor(torch.ones(4), mesh, [Replicate()]))
    part = torch.ones(4) / (dist.get_world_size() if placement == Partial() else 1)
    param.grad = DTensor.from_local(part, mesh, [placement])
    return param


def gradients_placed_otherwise():
    """A gradient that has to be summed over processes first is torch's to redistribute."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name in NAMES:
        for placement, reason in (
            (Replicate(), {}),
            (Partial(), {"its gradient is not sharded as it is": 1}),
        ):
            param = replicated(mesh, placement)
            optimizer = classes(name)[1]([param], lr=0.5, weight_decay=0)
            slow = optimizer.fast_path_report().slow
            assert reason == {why: len(names) for why, names in slow.items()}
            optimizer.step()
            torch.testing.assert_close(torch.full((4,), 0.5), whole(param.detach()))
        param.grad = torch.ones(4)
        with contextlib.suppress(RuntimeError):  # torch's own, for mixing the two
            optimizer.step()
        assert not optimizer.fast_path_report().all_fast
    # A local part that is itself no plain memory, as one still on its way.
    param._local_tensor = param._local_tensor.as_subclass(Underway)
    assert "it is made of a Underway" == reason_of_parameter(param, None)


def what_moves_is_noticed():
    """Local parts and moments that are replaced, or placed otherwise, between steps."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name in ("Adam", "AdamW"):
        sides = [replicated(mesh, Replicate()) for _ in range(2)]
        expected, actual = (
            cls([side], **USUAL[name], **how)
            for cls, side, how in zip(classes(name), sides, ({"fused": True}, {}), strict=True)
        )

        def step(sides=sides, optimizers=(expected, actual)):
            for optimizer in optimizers:
                optimizer.step()
            assert torch.equal(*map(local, (side.detach() for side in sides)))

        for _ in range(3):
            step()
        for side in sides:
            side._local_tensor = side._local_tensor.clone()
        step()
        for side, optimizer in zip(sides, (expected, actual), strict=True):
            optimizer.state[side]["exp_avg"] = optimizer.state[side]["exp_avg"].clone()
        step()
        for side, optimizer in zip(sides, (expected, actual), strict=True):
            kept = optimizer.state[side]
            kept["exp_avg"] = distribute_tensor(torch.zeros(4), mesh, [Replicate()])
        step()
        moment = DTensor.from_local(torch.zeros(4), mesh, [Partial()])
        assert convert_state(sides[1], {"exp_avg": moment}, ["exp_avg"])
        assert convert_state(sides[1], {"exp_avg": torch.zeros(4)}, ["exp_avg"])
        actual.state[sides[1]]["exp_avg"] = moment
        assert actual._sorting.gradients(actual) is None
        sides[1].grad = DTensor.from_local(torch.ones(4), mesh, [Partial()])
        assert actual._sorting.gradients(actual) is None


SCENARIOS = [
    shards_step_as_torchs_fused,
    shards_beside_plain_tensors,
    checkpoints_of_shards,
    gradients_placed_otherwise,
    what_moves_is_noticed,
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Run the scenarios in two processes."""
    return outcomes(SCENARIOS, 2, tmp_path_factory.mktemp("shards"))


@pytest.fixture
def alone():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_both_processes_agree(said, scenario):
    """The scenario's own docstring is the claim; no process may object."""
    tell(said[scenario.__name__])


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_one_process(scenario):
    """The same with a single shard of everything."""
    scenario()
