"""Moves on several processes: each comes to the rates and weights of a run in one."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import nnlr
from tests.attach.moving import LAYERS, half_cosine, network, plan_of, rates
from tests.processes import said_by, tell

STEPS, ROWS = 7, 8


class Blink(nnlr.Move):
    """0 and 1 in turns of two steps; at 0 there are no gradients."""

    locks = True

    def mults(self, now, units):
        """The same for all units."""
        return [float(now.step // 2 % 2)] * len(units)


class Norms(nnlr.Move):
    """1 over the norm of a unit's gradients at every second step."""

    def measures(self, now, units):
        """Every second step."""
        return now.step % 2 == 0

    def measure(self, now, units):
        """Note the norm of the whole gradient, of which this process may have a part."""
        for unit in units:
            norm = nn.utils.get_total_norm([tensor.grad for tensor in unit.tensors])
            whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            unit.memory["norm"] = float(whole)

    def due(self, now, units):
        """Only after that."""
        return False

    def mults(self, now, units):
        """What was noted."""
        return [1 / (1 + unit.memory.get("norm", 0.0)) for unit in units]


def scheme():
    """Moves by time, by gradients, and one that locks."""
    by_layer = nnlr.layer_decay(0.8, indexer=LAYERS)
    measured = by_layer.at(Norms()).where(nnlr.glob("[12].*"))
    return by_layer.at(half_cosine) * measured * nnlr.rule("0.*").at(Blink())


def batch(step):
    """The rows of a step."""
    return torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(step))


def run(net, plan, optimizer, wrapped, part):
    """Train on this process's part of each batch."""
    nnlr.attach(optimizer, plan, model=wrapped, total_steps=20)
    for step in range(STEPS):
        optimizer.zero_grad()
        wrapped(batch(step)[part]).square().mean().backward()
        nnlr.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
    return net, optimizer


def alone():
    """The run in one process."""
    net = network()
    plan = plan_of(net, scheme())
    return run(net, plan, plan.optimizer(torch.optim.AdamW), net, slice(None))


def mine():
    """The rows of this process."""
    rank, world = dist.get_rank(), dist.get_world_size()
    return slice(rank * ROWS // world, (rank + 1) * ROWS // world)


def agrees(net, optimizer):
    """Weights and rates are those of the run in one process."""
    reference, single = alone()
    for (name, one), other in zip(reference.named_parameters(), net.parameters(), strict=True):
        whole = other.full_tensor() if hasattr(other, "full_tensor") else other
        assert torch.allclose(one, whole, atol=1e-5), name
    assert rates(optimizer) == pytest.approx(rates(single), rel=1e-4, abs=1e-9)
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, rates(optimizer))
    assert all(each == everyone[0] for each in everyone)


def ddp():
    """Wrapped before attach, with find_unused_parameters."""
    net = network()
    wrapped = DistributedDataParallel(net, find_unused_parameters=True)
    plan = plan_of(net, scheme())
    agrees(*run(net, plan, plan.optimizer(torch.optim.AdamW), wrapped, mine()))


def ddp_that_waits_is_refused():
    """With the reason, and before anything is locked."""
    net = network()
    plan = plan_of(net, scheme())
    optimizer = plan.optimizer(torch.optim.AdamW)
    with pytest.raises(nnlr.ConfigError, match="find_unused_parameters=True"):
        nnlr.attach(optimizer, plan, model=DistributedDataParallel(net), total_steps=20)
    assert net[0].weight.requires_grad


def a_wrapper_to_come_is_warned_of():
    """It would never exchange the gradients of what is locked by then."""
    net = network()
    plan = plan_of(net, scheme())
    optimizer = plan.optimizer(torch.optim.AdamW)
    with pytest.warns(nnlr.NnlrWarning, match="would never exchange"):
        nnlr.attach(optimizer, plan, total_steps=20)


def regrouping_inside_ddp():
    """A layer that a move has locked at that moment is not in the way."""
    net = network()
    wrapped = DistributedDataParallel(net, find_unused_parameters=True)
    plan = plan_of(net, scheme())
    optimizer = plan.optimizer(torch.optim.AdamW)
    nnlr.attach(optimizer, plan, model=wrapped, total_steps=20)
    assert not net[0].weight.requires_grad
    nnlr.regroup(optimizer, plan_of(net, scheme(), lr=0.05), model=wrapped)
    assert not net[0].weight.requires_grad


def fsdp():
    """Sharded layer by layer."""
    net = network()
    for layer in net:
        fully_shard(layer)
    fully_shard(net)
    plan = plan_of(net, scheme())
    agrees(*run(net, plan, plan.optimizer(torch.optim.AdamW), net, mine()))


SCENARIOS = [
    ddp,
    ddp_that_waits_is_refused,
    a_wrapper_to_come_is_warned_of,
    regrouping_inside_ddp,
    fsdp,
]
said = said_by(SCENARIOS, 2, full=4)


@pytest.mark.full  # 20 s
@pytest.mark.parametrize("scenario", [scenario.__name__ for scenario in SCENARIOS])
def test_moves_on_several_processes(said, scenario):
    """What the scenario says."""
    tell(said[scenario])
