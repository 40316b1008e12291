"""Plans applied to models under DDP and FSDP2, in real processes that talk over gloo."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import nnlr
from tests.helpers import network, whole
from tests.processes import said_by, tell

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

SCHEME = (
    nnlr.rule("0.*", lr_mult=0) * nnlr.rule("1.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)
)


def resolved(model, scheme=SCHEME):
    return nnlr.resolve(model, scheme, lr=0.01, weight_decay=0.1)


def train(model, optimizer, seed=1):
    """Three steps on the same inputs in every process, so that averages change nothing."""
    source = torch.Generator().manual_seed(seed)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=source)).square().mean().backward()
        optimizer.step()


def assert_same_weights(expected, actual):
    for one, other in zip(expected.parameters(), actual.parameters(), strict=True):
        torch.testing.assert_close(one, whole(other), rtol=0, atol=1e-6)


def trained_alone(scheme=SCHEME, cls=torch.optim.AdamW):
    net = network(4, 6, 6, 4)
    train(net, resolved(net, scheme).optimizer(cls))
    return net


def group_names(optimizer):
    return [(group["name"], group["param_names"]) for group in optimizer.param_groups]


def shard_then_apply():
    """Groups built after fully_shard train as without it, under the same names."""
    net = network(4, 6, 6, 4)
    plan = resolved(net)
    for layer in (net[0], net[1], net[3], net):
        fully_shard(layer)
    optimizer = plan.optimizer(torch.optim.AdamW)
    assert group_names(optimizer) == [(group.name, list(group.names)) for group in plan.groups]
    assert all(isinstance(p, DTensor) for p in optimizer.param_groups[0]["params"])
    train(net, optimizer)
    assert_same_weights(trained_alone(), net)
    assert torch.equal(network(4, 6, 6, 4)[0].weight, whole(net[0].weight))
    assert net[0].weight.grad is None


def resolve_sharded():
    """A model that is sharded already resolves to the same plan."""
    net = network(4, 6, 6, 4)
    expected = resolved(net)
    for layer in (net[1], net):
        fully_shard(layer)
    assert expected.rows == resolved(net).rows


def tensor_rates():
    """One rate tensor for each group works on shards too."""
    net = network(4, 6, 6, 4)
    for layer in (net[0], net[1], net[3], net):
        fully_shard(layer)
    train(net, resolved(net).optimizer(torch.optim.AdamW, tensor_lr=True))
    assert_same_weights(trained_alone(), net)


def mixed_meshes():
    """Sharded and plain tensors of equal rates get groups of their own."""
    net = network(4, 6, 6, 4)
    plan = resolved(net, nnlr.rule("*.bias", wd_mult=0))
    fully_shard(net[1])
    optimizer = plan.optimizer(torch.optim.AdamW, foreach=True)
    assert group_names(optimizer) == [
        ("lr1_wd1_mesh0", ["0.weight", "3.weight"]),
        ("lr1_wd1_mesh1", ["1.weight"]),
        ("lr1_wd0_mesh0", ["0.bias", "3.bias"]),
        ("lr1_wd0_mesh1", ["1.bias"]),
    ]
    train(net, optimizer)
    assert_same_weights(trained_alone(nnlr.rule("*.bias", wd_mult=0)), net)


def meta_then_shard():
    """Resolve on meta, shard, materialise, apply: the supported order."""
    with torch.device("meta"):
        net = network(4, 6, 6, 4)
    plan = resolved(net)
    for layer in (net[0], net[1], net[3], net):
        fully_shard(layer)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for shard, full in zip(net.parameters(), network(4, 6, 6, 4).parameters(), strict=True):
            placed = distribute_tensor(full, shard.device_mesh, shard.placements)
            shard.copy_(placed)
    train(net, plan.optimizer(torch.optim.AdamW))
    assert_same_weights(trained_alone(), net)


def regroup_shards():
    """A live optimizer of shards is given other groups and continues."""
    nets = [network(4, 6, 6, 4), network(4, 6, 6, 4)]
    for layer in (nets[1][0], nets[1][1], nets[1][3], nets[1]):
        fully_shard(layer)
    for net in nets:
        optimizer = resolved(net, nnlr.rule("0.*", lr_mult=0.5)).optimizer(torch.optim.AdamW)
        train(net, optimizer)
        nnlr.regroup(optimizer, resolved(net, nnlr.rule("1.*", lr_mult=0.1)))
        train(net, optimizer, seed=2)
    assert_same_weights(*nets)


def ddp_locks():
    """Locking through DDP is an error; a lock from before trains as without DDP."""
    net = network(4, 6, 6, 4)
    ddp = DistributedDataParallel(net)
    message = "0.weight, 0.bias cannot be locked or unlocked inside Distributed"
    for plan in (resolved(net), resolved(ddp)):
        for apply in (
            lambda plan=plan: plan.lock(ddp),
            lambda plan=plan: plan.param_groups(ddp),
            lambda plan=plan: plan.optimizer(torch.optim.SGD, model=ddp),
        ):
            with pytest.raises(nnlr.NnlrError, match=message):
                apply()
    with pytest.raises(nnlr.NnlrError, match=message):
        resolved(ddp).optimizer(torch.optim.SGD)
    assert all(parameter.requires_grad for parameter in net.parameters())

    locked = network(4, 6, 6, 4)
    plan = resolved(locked)
    plan.lock()
    wrapped = DistributedDataParallel(locked)
    optimizer = plan.optimizer(torch.optim.AdamW, model=wrapped)
    train(wrapped, optimizer)
    assert_same_weights(trained_alone(), locked)
    with pytest.raises(nnlr.NnlrError, match=message):
        plan.unlock(wrapped)


def ddp_regroup_is_atomic():
    """A regroup that would have to lock inside DDP leaves the optimizer as it was."""
    net = network(4, 6, 6, 4)
    ddp = DistributedDataParallel(net)
    optimizer = resolved(ddp, nnlr.rule("*")).optimizer(torch.optim.SGD)
    before = copy.copy(optimizer.param_groups)
    with pytest.raises(nnlr.NnlrError, match="cannot be locked"):
        nnlr.regroup(optimizer, resolved(ddp))
    assert list(map(id, before)) == list(map(id, optimizer.param_groups))
    assert 0.01 == optimizer.param_groups[0]["lr"]


class Half(nnlr.Scheme):
    """Half of the initial weights."""

    def factors(self, model):
        return [nnlr.Factor(init_mult=0.5) for _ in model.params]


def init_inside_wrappers():
    """apply_init works through DDP and on shards, and knows both models afterwards."""
    for wrap in (DistributedDataParallel, fully_shard):
        net = network(4, 6, 6, 4)
        outer = wrap(net)
        plan = resolved(outer, Half())
        nnlr.apply_init(outer, plan)
        for expected, actual in zip(
            network(4, 6, 6, 4).parameters(), net.parameters(), strict=True
        ):
            assert torch.equal(0.5 * expected, whole(actual))
        with pytest.raises(nnlr.NnlrError, match="scaled before"):
            nnlr.apply_init(net, plan)
        plan.optimizer(torch.optim.SGD)


SCENARIOS = [
    shard_then_apply,
    resolve_sharded,
    tensor_rates,
    mixed_meshes,
    meta_then_shard,
    regroup_shards,
    ddp_locks,
    ddp_regroup_is_atomic,
    init_inside_wrappers,
]


said = said_by(SCENARIOS, 2, full=1)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_process_agrees(said, scenario):
    """The scenario's own docstring is the claim; no process may object."""
    tell(said[scenario.__name__])
