"""nnlr.report.Monitor over several processes: every one reads the numbers of the whole model."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import nnlr
from nnlr.report import Monitor
from tests.processes import said_by, tell

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(5, 5, dtype=dtype) for name in ("a", "b", "c", "d")})


def resolved(net):
    """The first layer is locked, the second slow."""
    scheme = nnlr.rule("a.*", lr_mult=0) * nnlr.rule("b.*", lr_mult=0.1)
    return nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.01)


def train(net, optimizer, rows, average=False):
    """Three steps over these rows of each batch; layer d is not used."""
    for step in range(3):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))[rows]
        for name in ("a", "b", "c"):
            x = net[name](x.to(net["a"].weight.dtype))
        x.square().mean().backward()
        for param in net.parameters() if average else ():
            if param.grad is not None:
                dist.all_reduce(param.grad)
                param.grad /= dist.get_world_size()
        optimizer.step()
        optimizer.zero_grad()


def alone(dtype=torch.float32):
    """The monitor of one process on the whole batch."""
    net = network(dtype)
    plan = resolved(net)
    optimizer = plan.optimizer(torch.optim.AdamW)
    monitor = Monitor(plan, optimizer, every=1, patience=9)
    train(net, optimizer, slice(None))
    return monitor


def shares():
    """The rows of a batch of four that this process has."""
    return torch.arange(4).chunk(dist.get_world_size())[dist.get_rank()]


def compare(monitor, dtype=torch.float32):
    """The readings with those of one process, and with those of the other processes."""
    expected = alone(dtype)
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-4
    assert 3 == len(expected.history) == len(monitor.history)
    for one, mine in zip(expected.history, monitor.history, strict=True):
        assert one.rates == mine.rates
        for theirs, layer in zip(one.layers, mine.layers, strict=True):
            assert (theirs.name, theirs.state) == (layer.name, layer.state)
            assert (theirs.gradient is None) == (layer.gradient is None)
            for field in ("update", "weight", "gradient"):
                value = getattr(theirs, field) or 0.0
                assert value == pytest.approx(getattr(layer, field) or 0.0, rel=tolerance), field
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, [reading.to_dict() for reading in monitor.history])
    assert all(gathered[0] == other for other in gathered)
    assert expected.findings == monitor.findings


def ddp(folder):
    """Whole weights everywhere; the first process writes, and the others do not."""
    net = network()
    plan = resolved(net)
    optimizer = plan.optimizer(torch.optim.AdamW)
    path = folder / f"ddp.{dist.get_rank()}"
    monitor = Monitor(plan, optimizer, every=1, patience=9, jsonl=path)
    train(net, optimizer, shares(), average=True)
    compare(monitor)
    assert (dist.get_rank() == 0) == path.exists()


def sharded(dtype=torch.float32, mesh=None):
    """Layers of 5 rows over the processes: shards are uneven."""
    net = network(dtype)
    plan = resolved(net)
    for part in net.values():
        fully_shard(part, mesh=mesh)
    optimizer = plan.optimizer(torch.optim.AdamW)
    monitor = Monitor(plan, optimizer, every=1, patience=9)
    train(net, optimizer, shares())
    return net, optimizer, monitor


def fsdp2():
    """Shards are added up over the mesh: the numbers of the whole."""
    compare(sharded()[2])


def fsdp2_with_copies():
    """Of a mesh of two axes one holds copies, which count once."""
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("dp", "shard"))
    compare(sharded(mesh=mesh)[2])


def fsdp2_in_half_precision():
    """Elements that change are counted over all shards."""
    compare(sharded(torch.bfloat16)[2], torch.bfloat16)


def one_shard_moves_though_locked():
    """Whoever has the shard, all know; the first warns."""
    net, optimizer, monitor = sharded()
    if dist.get_rank() == 1:
        monitor._tensors["a.weight"].to_local().data.add_(1.0)  # the model has it gathered now
    with warnings.catch_warnings(record=True, action="always") as caught:
        train(net, optimizer, shares())
    assert [("moves-though-locked", ("a.weight",))] == [
        (finding.kind, finding.names) for finding in monitor.findings
    ]
    told = [warning for warning in caught if warning.category is nnlr.NnlrWarning]
    assert (1 if dist.get_rank() == 0 else 0) == len(told)


SCENARIOS = [ddp, fsdp2, fsdp2_with_copies, fsdp2_in_half_precision, one_shard_moves_though_locked]

said = said_by(SCENARIOS, 2, full=4)


@pytest.mark.full  # 8 s
@pytest.mark.no_cover
@pytest.mark.parametrize("scenario", [scenario.__name__ for scenario in SCENARIOS])
def test_every_process_reads_the_numbers_of_the_whole(said, scenario):
    """Against one process on the whole batch."""
    tell(said[scenario])
