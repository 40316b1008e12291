"""Relative updates of shards: norms are those of whole matrices, as in one process."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import nnlr
from tests.helpers import whole
from tests.integrations.by_hand import batch, loss_of, network
from tests.processes import said_by, tell

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

KINDS = {
    "relative": (torch.optim.AdamW, 0.1),
    "hyperball": (nnlr.optim.AdamW, 0),
    "lamb": (torch.optim.AdamW, 0.1),
    "lars": (torch.optim.SGD, 0.1),
}


def optimizer_of(net, kind):
    cls, decay = KINDS[kind]
    scheme = nnlr.rule("1.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)
    optimizer = nnlr.resolve(net, scheme, lr=0.05, weight_decay=decay).optimizer(cls)
    nnlr.relative(optimizer, kind)
    return optimizer


def train(net, optimizer, *steps, rank=0, world=1):
    for step in steps:
        optimizer.zero_grad()
        loss_of(net, batch(step, rank, world)).backward()
        optimizer.step()


def here():
    return {"rank": dist.get_rank(), "world": dist.get_world_size()}


def assert_same(plain, net):
    for one, other in zip(plain.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(one, whole(other), rtol=1e-5, atol=1e-6)


def shards_are_measured_as_a_whole():
    """FSDP2 trains as one process does, with every kind, on rows that do not divide evenly."""
    for kind in KINDS:
        plain, net = network(), network()
        for layer in (net[0], net[1], net):
            fully_shard(layer)
        train(plain, optimizer_of(plain, kind), 0, 1, 2)
        train(net, optimizer_of(net, kind), 0, 1, 2, **here())
        assert_same(plain, net)


def replicas_of_shards():
    """With a second axis of the mesh that replicates, norms are summed over shards only."""
    mesh = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("copy", "shard"))
    plain, net = network(), network()
    fully_shard(net, mesh=mesh)
    train(plain, optimizer_of(plain, "hyperball"), 0, 1)
    train(net, optimizer_of(net, "hyperball"), 0, 1, **here())
    assert_same(plain, net)


class Experts(nn.Module):
    """Four matrices in one tensor, and one matrix beside them."""

    def __init__(self, placement=None):
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(4, 5, 3, generator=source))
        self.out = nn.Parameter(torch.randn(5, 2, generator=source))
        if placement is not None:
            mesh = init_device_mesh("cpu", (dist.get_world_size(),))
            for name, how in (("table", placement), ("out", Replicate())):
                tensor = distribute_tensor(getattr(self, name).detach(), mesh, [how])
                setattr(self, name, nn.Parameter(tensor))

    def step(self, optimizer):
        optimizer.zero_grad()
        (self.table.square().sum(0).sum(1) * self.out.sum(1)).sum().backward()
        self.table.grad = self.table.grad + 0.1
        optimizer.step()


def stacks_are_shared_out_in_every_way():
    """Sharded by experts, rows or columns: each expert has the norm that it has in one process."""
    how = {"lr": 0.1, "momentum": 0.9}
    plain = Experts()
    optimizer = torch.optim.SGD(plain.named_parameters(), **how)
    nnlr.relative(optimizer, "hyperball", model=plain)
    for _ in range(3):
        plain.step(optimizer)
    radii = optimizer.state[plain.table]["radius"]
    assert len(set(radii)) == 4
    for placement in (Shard(0), Shard(1), Shard(2), Replicate()):
        model = Experts(placement)
        sharded = torch.optim.SGD(model.named_parameters(), **how)
        handle = nnlr.relative(sharded, "hyperball", model=model)
        model.step(sharded)
        assert sharded.state[model.table]["radius"] == pytest.approx(radii)
        handle.remove()  # goes on from the radius in the state
        nnlr.relative(sharded, "hyperball", model=model)
        model.step(sharded)
        model.step(sharded)
        assert_same(plain, model)


def radii_go_through_distributed_checkpoints(folder):
    """A distributed checkpoint holds each radius, and a run resumed from it is the same."""
    plain, net = network(), network()
    old = optimizer_of(plain, "hyperball")
    fully_shard(net)
    optimizer = optimizer_of(net, "hyperball")
    train(plain, old, 0, 1)
    train(net, optimizer, 0, 1, **here())
    path = folder / "checkpoint"
    dcp.save({"optimizer": get_optimizer_state_dict(net, optimizer)}, checkpoint_id=path)
    new = copy.deepcopy(plain)  # as if its weights were loaded, and had been scaled by then
    with torch.no_grad():
        new[1].weight.mul_(2)
    resumed = optimizer_of(new, "hyperball")
    nnlr.checkpoint.load_dcp(path, resumed, new)
    for one, other in zip(plain.parameters(), new.parameters(), strict=True):
        radius = resumed.state[other].get("radius")
        assert radius == pytest.approx(old.state[one].get("radius"))
        assert (radius is None) == (one.ndim < 2)
    with torch.no_grad():
        new[1].weight.div_(2)
    train(plain, old, 2)
    train(new, resumed, 2)
    assert_same(plain, new)


SCENARIOS = [
    shards_are_measured_as_a_whole,
    replicas_of_shards,
    stacks_are_shared_out_in_every_way,
    radii_go_through_distributed_checkpoints,
]

said = said_by(SCENARIOS, 2, full=3)  # full: 6 s


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_sharded(scenario, said):
    """What the scenario of this name says."""
    tell(said[scenario.__name__])
