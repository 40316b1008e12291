"""Training over DDP, FSDP2, HSDP and tensor parallelism: equal to one process by hand.

Every process sees its own part of each batch, and all count equally.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import nnlr
from tests.helpers import whole
from tests.integrations import algorithms
from tests.integrations.by_hand import RATES, ByHand, batch, loss_of, network
from tests.processes import said_by, tell

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

SCHEME = (
    nnlr.rule("0.*", lr_mult=0) * nnlr.rule("1.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)
)


def resolved(model, scheme=SCHEME):
    return nnlr.resolve(model, scheme, lr=0.01, weight_decay=0.1)


def train(model, optimizer, *steps, clip=None):
    """Each process trains on its part; returns the norms before clipping."""
    rank, world = dist.get_rank(), dist.get_world_size()
    norms = []
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, batch(step, rank, world)).backward()
        if clip is not None:
            norms.append(clip(model.parameters()))
        optimizer.step()
    return norms


def assert_trained(expected, model, atol=1e-6):
    """Equal up to the order in which gradients are added up."""
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    for (name, one), other in zip(expected.net.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(
            one, whole(other), rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def sharded(*, layers=(0, 1, 3), root=True, **how):
    net = network()
    for layer in layers:
        fully_shard(net[layer], **how)
    return fully_shard(net, **how) if root else net


# --- DDP --------------------------------------------------------------------------------


def ddp_before_the_wrap():
    """The optimizer is built, and the lower layer locked, before DDP wraps the model."""
    net = network()
    optimizer = resolved(net).optimizer(torch.optim.AdamW)
    ddp = DistributedDataParallel(net)
    train(ddp, optimizer, 0, 1, 2)
    assert_trained(ByHand().train(0, 1, 2), ddp)


def ddp_after_the_wrap():
    """Locked before the wrap, built after it; also from a plan of the wrapped model."""
    for of_wrapped in (False, True):
        net = network()
        plan = resolved(net)
        plan.lock()
        ddp = DistributedDataParallel(net)
        if of_wrapped:
            assert plan.rows == resolved(ddp).rows
            plan = resolved(ddp)
        train(ddp, plan.optimizer(torch.optim.AdamW, model=ddp), 0, 1, 2)
        assert_trained(ByHand().train(0, 1, 2), ddp)


def ddp_static_graph():
    """A locked layer and a static graph go together."""
    net = network()
    optimizer = resolved(net).optimizer(torch.optim.AdamW)
    ddp = DistributedDataParallel(net, static_graph=True)
    train(ddp, optimizer, 0, 1, 2)
    assert_trained(ByHand().train(0, 1, 2), ddp)


class Branches(nn.Sequential):
    """The network, with a part that no batch reaches."""

    def __init__(self):
        super().__init__(*network())
        self.unused = nn.Linear(2, 2)

    def forward(self, inputs):
        for layer in list(self)[:4]:
            inputs = layer(inputs)
        return inputs


def ddp_unused_parameters():
    """A locked layer and find_unused_parameters go together; what is unused stays."""
    net = Branches()
    before = net.unused.weight.clone()
    optimizer = resolved(net).optimizer(torch.optim.AdamW)
    ddp = DistributedDataParallel(net, find_unused_parameters=True)
    train(ddp, optimizer, 0, 1, 2)
    assert torch.equal(before, net.unused.weight)
    del net.unused
    assert_trained(ByHand().train(0, 1, 2), ddp)


def ddp_checkpoints_fit_plain_models():
    """State saved under DDP goes on in a plain model, and the other way round."""

    def steps(model, optimizer, *which):
        for step in which:
            optimizer.zero_grad()
            loss_of(model, batch(step)).backward()
            optimizer.step()

    for first, then in (
        (DistributedDataParallel, lambda net: net),
        (lambda net: net, DistributedDataParallel),
    ):
        nets = [network(), network()]
        optimizers = [resolved(net).optimizer(torch.optim.AdamW) for net in nets]
        steps(first(nets[0]), optimizers[0], 0, 1)
        nets[1].load_state_dict(nets[0].state_dict())
        optimizers[1].load_state_dict(optimizers[0].state_dict())
        steps(then(nets[1]), optimizers[1], 2)
        assert_trained(ByHand().train(0, 1, 2), nets[1])


def trained_by_several(classes):
    """One process, an optimizer for each algorithm."""
    net = network()
    optimizers = algorithms.several_of(net, ["0.weight", "1.weight"], classes)
    for step in (0, 1, 2):
        loss_of(net, batch(step)).backward()
        algorithms.step_all(optimizers)
    return net


def ddp_of_several_algorithms():
    """The same rows everywhere, so that two averages change nothing: equal to the last bit."""
    net = network()
    optimizer = algorithms.one_of(net)
    ddp = DistributedDataParallel(net)
    for step in (0, 1, 2):
        if step == 2:  # goes on from what was saved
            state = optimizer.state_dict()
            optimizer = algorithms.one_of(net)
            optimizer.load_state_dict(state)
        loss_of(ddp, batch(step)).backward()
        algorithms.step_all([optimizer])
    for one, other in zip(
        trained_by_several(algorithms.CLASSES).parameters(), net.parameters(), strict=True
    ):
        # A third of three gradients is not one of them.
        atol = 0 if dist.get_world_size() < 3 else 2e-3
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


def zero_redundancy():
    """The rates survive in torch's sharded optimizer, which is built by a function."""
    # Loading it says that torch.jit is deprecated, which the tests' own process forbids.
    from torch.distributed.optim import ZeroRedundancyOptimizer

    net = network()
    plan = resolved(net)

    def zero(groups):
        bases = {"lr": plan.lr, "weight_decay": plan.weight_decay}
        return ZeroRedundancyOptimizer(groups, torch.optim.AdamW, **bases)

    optimizer = plan.optimizer(zero, names=False)
    scheduler = nnlr.schedule(optimizer, torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
    hand = ByHand()
    ddp = DistributedDataParallel(net)
    for step in range(4):
        train(ddp, optimizer, step)
        scheduler.step()
        hand.train(step)
        if step == 1:
            for group in hand.optimizer.param_groups:
                group["lr"] *= 0.5
    assert_trained(hand, ddp)
    held = [parameter for g in optimizer.optim.param_groups for parameter in g["params"]]
    assert 4 == sum(parameter.requires_grad for parameter in net.parameters())
    assert len(held) < 4 or dist.get_world_size() == 1


def zero_redundancy_by_its_class():
    """It takes no named tensors: names are noted beside them, and the rates are the plan's."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    for names in (True, False):
        net = network()
        optimizer = resolved(net).optimizer(
            ZeroRedundancyOptimizer, optimizer_class=torch.optim.AdamW, names=names
        )
        assert names == all("param_names" in group for group in optimizer.param_groups)
        ddp = DistributedDataParallel(net)
        train(ddp, optimizer, 0, 1, 2)
        assert_trained(ByHand().train(0, 1, 2), ddp)


# --- FSDP2 ------------------------------------------------------------------------------


def shards_of_unequal_size():
    """Dimensions that the processes do not divide, for several optimizers."""
    for cls, settings in (
        (torch.optim.AdamW, {}),
        (torch.optim.AdamW, {"foreach": False}),
        (torch.optim.AdamW, {"fused": True}),
        (torch.optim.SGD, {"momentum": 0.9}),
    ):
        net = sharded()
        optimizer = resolved(net).optimizer(cls, **settings)
        train(net, optimizer, 0, 1, 2)
        hand = ByHand(cls, momentum=0.9) if cls is torch.optim.SGD else ByHand(cls)
        assert_trained(hand.train(0, 1, 2), net)


def shards_of_several_algorithms():
    """Classes that take shards train as two optimizers of one process do."""
    net = sharded()
    optimizer = algorithms.one_of(net, algorithms.SHARDED)
    train(net, optimizer, 0, 1)
    state = optimizer.state_dict()
    optimizer = algorithms.one_of(net, algorithms.SHARDED)
    optimizer.load_state_dict(state)
    train(net, optimizer, 2)
    expected = trained_by_several(algorithms.SHARDED)
    for one, other in zip(expected.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(one, whole(other), rtol=0, atol=1e-6)


def shards_and_muon():
    """Torch's needs whole matrices: refused with the ways out, one of which is a function."""
    net = sharded()
    if dist.get_world_size() == 1:
        train(net, algorithms.one_of(net), 0)
        return
    with pytest.raises(
        nnlr.ConfigError, match=r"has a part: 0\.weight, 1\.weight.*as those of dion"
    ):
        algorithms.one_of(net)
    with pytest.raises(nnlr.ConfigError, match=r"whole matrices"):
        nnlr.resolve(net, nnlr.freeze("*.bias"), lr=0.01, weight_decay=0).optimizer(
            torch.optim.Muon
        )

    def muon(groups, **settings):
        return torch.optim.Muon(groups, **settings)

    optimizer = algorithms.one_of(net, {**algorithms.CLASSES, "muon": muon})
    train(net, optimizer, 0)
    assert not torch.equal(network()[1].weight, whole(net[1].weight))


def shards_after_the_optimizer():
    """Sharding after the optimizer was built trains nothing, as torch does it: see check."""
    net = network()
    optimizer = resolved(net).optimizer(torch.optim.AdamW)
    before = [p.detach().clone() for p in net.parameters()]
    for layer in (net[0], net[1], net[3], net):
        fully_shard(layer)
    train(net, optimizer, 0, 1)
    for one, other in zip(before, net.parameters(), strict=True):
        assert torch.equal(one, whole(other))
    with pytest.raises(KeyError, match="0"):
        get_optimizer_state_dict(net, optimizer)


def a_schedule_on_shards():
    """Rates follow a scheduler with a floor, by their ratios."""
    net = sharded()
    optimizer = resolved(net).optimizer(torch.optim.AdamW)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    scheduler = nnlr.schedule(optimizer, cosine, T_max=4, eta_min=0.002)
    hand, base = ByHand(), [0.01]
    for step in range(4):
        train(net, optimizer, step)
        scheduler.step()
        for group in hand.optimizer.param_groups:
            (parameter,) = group["params"]
            mult = 0.1 if parameter in set(hand.net[1].parameters()) else 1.0
            group["lr"] = base[0] * mult
        hand.train(step)
        angle = torch.tensor(torch.pi * (step + 1) / 4, dtype=torch.float64)
        base[0] = 0.002 + 0.004 * (1 + angle.cos().item())
    assert_trained(hand, net)


def offloaded_shards():
    """The offload policy, where the device is the CPU already."""
    net = sharded(offload_policy=CPUOffloadPolicy(pin_memory=False))
    train(net, resolved(net).optimizer(torch.optim.AdamW), 0, 1, 2)
    assert_trained(ByHand().train(0, 1, 2), net)


def mixed_precision():
    """In bfloat16 the plan's groups give the bits that groups by hand give."""
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    nets = [sharded(mp_policy=policy) for _ in range(2)]
    named = dict(nets[1].named_parameters())
    by_hand = [
        {"params": [named[name]], "lr": rates[0], "weight_decay": rates[1]}
        for name, rates in RATES.items()
        if rates
    ]
    train(nets[0], resolved(nets[0]).optimizer(torch.optim.AdamW), 0, 1, 2)
    train(nets[1], torch.optim.AdamW(by_hand), 0, 1, 2)
    moved = False
    for one, other, start in zip(
        *(net.parameters() for net in nets), network().parameters(), strict=True
    ):
        assert torch.equal(whole(one), whole(other))
        moved |= not torch.equal(start, whole(one))
    assert moved


def two_dimensional_meshes():
    """HSDP: replicas of shards, for each way to lay out the processes."""
    world = dist.get_world_size()
    for shape in ((world, 1), (1, world)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
        net = sharded(mesh=mesh)
        train(net, resolved(net).optimizer(torch.optim.AdamW), 0, 1, 2)
        assert_trained(ByHand().train(0, 1, 2), net)


def tensor_parallel():
    """Two layers are split by columns and rows and all are sharded: two meshes, one norm."""
    world = dist.get_world_size()
    for shape in ((world, 1), (1, world)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp"))
        net = network(hidden=6)
        split = {"0": ColwiseParallel(), "1": RowwiseParallel()}
        parallelize_module(net, mesh["tp"], split)
        for layer in (net[0], net[1], net[2], net[3], net):
            fully_shard(layer, mesh=mesh["dp"])
        plan = resolved(net, nnlr.rule("*.bias", wd_mult=0))
        optimizer = plan.optimizer(torch.optim.AdamW)
        assert [
            ("lr1_wd1_mesh0", ["0.weight", "1.weight"]),
            ("lr1_wd1_mesh1", ["3.weight"]),
            ("lr1_wd0_mesh0", ["0.bias", "1.bias"]),
            ("lr1_wd0_mesh1", ["3.bias"]),
        ] == [(group["name"], group["param_names"]) for group in optimizer.param_groups]
        norms = []
        for step in range(3):
            optimizer.zero_grad()
            part = batch(step, mesh["dp"].get_local_rank(), shape[0])
            loss_of(net, part).backward()
            norms.append(nnlr.clip_grad_norm_(net.parameters(), 0.05))
            optimizer.step()
        rates = {n: (0.01, 0.0 if "bias" in n else 0.1) for n in RATES}
        hand = ByHand(rates=rates, max_norm=0.05, hidden=6).train(0, 1, 2)
        torch.testing.assert_close(hand.norms, norms)
        assert all(norm > 0.05 for norm in norms)
        assert_trained(hand, net)


# --- clipping ---------------------------------------------------------------------------


def average_plain(net):
    """What users of plain parameters beside sharded ones have to do."""
    for parameter in net.parameters():
        if parameter.grad is not None and not isinstance(parameter, DTensor):
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def clip_mixed_parameters():
    """One norm over sharded and plain gradients, which torch refuses to take."""
    net = sharded(layers=(1,), root=False)
    optimizer = resolved(net).optimizer(torch.optim.AdamW)

    def clip(parameters):
        average_plain(net)
        parameters = list(parameters)
        with pytest.raises(RuntimeError, match="mixed torch"):
            torch.nn.utils.clip_grad_norm_(parameters, 0.05)
        return nnlr.clip_grad_norm_(parameters, 0.05)

    norms = train(net, optimizer, 0, 1, 2, clip=clip)
    hand = ByHand(max_norm=0.05).train(0, 1, 2)
    torch.testing.assert_close(hand.norms, norms)
    assert all(norm > 0.05 for norm in norms)
    assert not any(isinstance(norm, DTensor) for norm in norms)
    assert_trained(hand, net)


def other_norms_of_mixed_parameters():
    """The largest element, and the sum; per tensor or all at once."""
    for norm_type in (1.0, float("inf")):
        for foreach in (None, False):
            plain, mixed = network(), sharded(layers=(1,), root=False)
            expected = []
            for net in (plain, mixed):
                loss_of(net, batch(0)).backward()
            grads = [p.grad.flatten() for p in plain.parameters()]
            norm = torch.cat(grads).norm(norm_type)
            expected = [p.grad * (0.01 / (norm + 1e-6)) for p in plain.parameters()]
            got = nnlr.clip_grad_norm_(mixed.parameters(), 0.01, norm_type, foreach=foreach)
            torch.testing.assert_close(norm, got)
            torch.testing.assert_close(expected, [whole(p.grad) for p in mixed.parameters()])


def a_norm_that_is_not_finite():
    """All processes raise, and no gradient has been touched."""
    net = sharded(layers=(1,), root=False)
    loss_of(net, batch(0)).backward()
    net[0].weight.grad[0, 0] = float("nan")
    before = [whole(p.grad).clone() for p in net.parameters()]
    with pytest.raises(RuntimeError, match="norm of the gradients is nan"):
        nnlr.clip_grad_norm_(net.parameters(), 1.0, error_if_nonfinite=True)
    after = [whole(p.grad) for p in net.parameters()]
    torch.testing.assert_close(before, after, rtol=0, atol=0, equal_nan=True)


# --- agreement --------------------------------------------------------------------------


def plans_agree():
    """Equal plans, of shards and of a meta model, over and over."""
    plan = resolved(network())
    for _ in range(3):
        nnlr.agree(plan)
    with torch.device("meta"):
        nnlr.agree(resolved(network()))
    nnlr.agree(resolved(sharded()))


def plans_differ():
    """The last rank resolves another scheme: every rank hears it, by name."""
    last = dist.get_world_size() - 1
    odd = dist.get_rank() == last
    plan = resolved(network(), nnlr.rule("1.weight", lr_mult=0.5 if odd else 0.25))
    if last == 0:
        return nnlr.agree(plan)
    with pytest.raises(nnlr.PlanMismatchError, match=r"lr of '1\.weight' is") as error:
        nnlr.agree(plan)
    held = [ranks for _, ranks in error.value.values]
    assert [list(range(last)), [last]] == held
    return None


def groups_of_ranks_agree():
    """Within a process group; processes outside it go on at once."""
    world = dist.get_world_size()
    others = dist.new_group(list(range(1, world)) or [0])
    odd = dist.get_rank() == 0
    plan = resolved(network(), nnlr.rule("*", lr_mult=2.0 if odd else 1.0))
    nnlr.agree(plan, others)
    nnlr.agree(plan, others, timeout=20)


def a_rank_fails_before():
    """It raised in resolve: the others end with its number, not with a hang."""
    last = dist.get_world_size() - 1
    if last and dist.get_rank() == last:
        with pytest.raises(nnlr.PatternError, match="matches no parameter"):
            nnlr.agree(resolved(network(), nnlr.rule("nowhere")))
        dist.barrier()
        # A process that goes on all the same hears what the others heard.
    else:
        if last:
            with pytest.raises(nnlr.NnlrError, match=f"rank {last} did not") as error:
                nnlr.agree(resolved(network()), timeout=1)
            assert [last] == error.value.missing
        dist.barrier()
    if last and dist.get_rank() == last:
        with pytest.raises(nnlr.NnlrError, match=f"rank {last} did not come"):
            nnlr.agree(resolved(network()), timeout=1)
    dist.barrier()
    nnlr.agree(resolved(network()))


SCENARIOS = [
    ddp_before_the_wrap,
    ddp_after_the_wrap,
    ddp_static_graph,
    ddp_unused_parameters,
    ddp_checkpoints_fit_plain_models,
    ddp_of_several_algorithms,
    shards_of_several_algorithms,
    shards_and_muon,
    zero_redundancy,
    zero_redundancy_by_its_class,
    shards_of_unequal_size,
    shards_after_the_optimizer,
    a_schedule_on_shards,
    offloaded_shards,
    mixed_precision,
    two_dimensional_meshes,
    tensor_parallel,
    clip_mixed_parameters,
    other_norms_of_mixed_parameters,
    a_norm_that_is_not_finite,
    plans_agree,
    plans_differ,
    groups_of_ranks_agree,
    a_rank_fails_before,
]


said = said_by(SCENARIOS, 2, full=3)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_process_agrees(said, scenario):
    """The scenario's own docstring is the claim; no process may object."""
    tell(said[scenario.__name__])
