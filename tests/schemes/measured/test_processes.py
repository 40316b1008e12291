"""Measured multipliers over two processes: every one comes to the numbers of one process."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import nnlr
from tests.processes import said_by, tell

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

SCHEMES = (
    nnlr.assign("rgn", "linear(0.5, 2)", every=2),
    nnlr.assign("snr", "linear(0.5, 2)", every=2),
    nnlr.assign("update", "linear(0.5, 2)", every=2),
    nnlr.assign("alpha(min_eigenvalues=2)", "linear(0.5, 2)", every=2, ramp=2),
)


def network():
    """A convolution and two linear layers of 6 and 5 rows, which processes share unevenly."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 5)]
    return nn.Sequential(*layers)


def multipliers(net, scheme, wrapped=None, rows=slice(None)):
    """The multiplier of each unit after three steps over these rows of each batch."""
    model = net if wrapped is None else wrapped
    plan = nnlr.resolve(model, scheme, lr=1e-2, weight_decay=0.1)
    optimizer = plan.optimizer(torch.optim.AdamW)
    attached = nnlr.attach(optimizer, plan)
    for step in range(3):
        x = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(step))[rows]
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {unit.name: unit.mult for unit in attached.units}


def shares():
    """The rows of a batch of six that this process has."""
    return torch.arange(6).chunk(dist.get_world_size())[dist.get_rank()]


def ddp_comes_to_the_numbers_of_one_process():
    """Gradients are those of the whole batch when they are read."""
    for scheme in SCHEMES:
        net = network()
        mults = multipliers(net, scheme, DistributedDataParallel(net), shares())
        assert mults == pytest.approx(multipliers(network(), scheme), rel=1e-4), scheme


def shards_are_measured_as_the_whole():
    """Norms, variances and spectra of what each process has a part of."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for scheme in SCHEMES:
        net = fully_shard(network(), mesh=mesh)
        mults = multipliers(net, scheme, rows=shares())
        assert mults == pytest.approx(multipliers(network(), scheme), rel=1e-4), scheme
        every = [None] * dist.get_world_size()
        dist.all_gather_object(every, mults)
        assert every == [mults] * len(every)


SCENARIOS = [ddp_comes_to_the_numbers_of_one_process, shards_are_measured_as_the_whole]


said = said_by(SCENARIOS, 2, full=3)


@pytest.mark.full  # 12 s
@pytest.mark.no_cover
@pytest.mark.parametrize("scenario", [scenario.__name__ for scenario in SCENARIOS])
def test_every_process_comes_to_the_numbers_of_one(said, scenario):
    """Against one process on the whole batch."""
    tell(said[scenario])
