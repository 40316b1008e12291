"""Schemes that lock layers for a while, under DDP and FSDP2, in real processes over gloo."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import nnlr
from tests.helpers import whole
from tests.processes import said_by, tell

pytestmark = [
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="no gloo"),
    pytest.mark.full,  # 15 s
]

STEPS = 12
LAYERS = {f"{at}.*": at for at in range(4)}
SCHEMES = {
    "sampling": nnlr.layer_sampling(1, 3, indexer={f"{at}.*": at - 1 for at in (1, 2)}),
    "freeze_out": nnlr.freeze_out(0.5, "linear", indexer=LAYERS),
    "warmup": nnlr.warmup(0, delay=2, indexer=LAYERS),
}


def network(*, norms):
    """Four layers, with batch norms that see the same batch in each process."""
    torch.manual_seed(0)

    def layer():
        return nn.Sequential(nn.Linear(4, 4), *[nn.BatchNorm1d(4)] * norms, nn.Tanh())

    return nn.Sequential(*(layer() for _ in range(4)))


def train(net, run, optimizer):
    """Some steps on the same inputs in every process, so that averages change nothing."""
    for step in range(STEPS):
        torch.manual_seed(step)
        optimizer.zero_grad()
        run(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    return [whole(value).clone() for value in net.state_dict().values()]


def trained(scheme, *, norms=False, wrap=None):
    """The weights after training: alone, or wrapped."""
    net = network(norms=norms)
    run = net if wrap is None else wrap(net)
    plan = nnlr.resolve(net, scheme, lr=0.01, weight_decay=0.1)
    # Biases before norms have gradients of round-off, which Adam would make steps of.
    optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
    attached = nnlr.attach(optimizer, plan, model=run, total_steps=STEPS)
    return train(net, run, optimizer), [unit.mult for unit in attached.units], len(optimizer.state)


def same(scheme, *, wrap, norms=False):
    """Training wrapped is training alone."""
    expected, actual = trained(scheme, norms=norms), trained(scheme, norms=norms, wrap=wrap)
    assert expected[1:] == actual[1:]
    for one, other in zip(expected[0], actual[0], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def ddp(net):
    return DistributedDataParallel(net, find_unused_parameters=True)


def sharded(net):
    for layer in (*net, net):
        fully_shard(layer)
    return net


def under_ddp():
    """Layers that are locked, and unlocked, are those of a run alone; norms stand still too."""
    for scheme in SCHEMES.values():
        same(scheme, wrap=ddp, norms=True)


def under_fsdp2():
    """The same for shards."""
    for scheme in SCHEMES.values():
        same(scheme, wrap=sharded)


said = said_by([under_ddp, under_fsdp2], world=2, full=3)


@pytest.mark.parametrize("scenario", [under_ddp, under_fsdp2], ids=lambda s: s.__name__)
def test_every_process_agrees(said, scenario):
    """Each scenario ends well in every process."""
    tell(said[scenario.__name__])
