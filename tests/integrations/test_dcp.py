"""Distributed checkpoints, saved and resumed by other numbers of processes, on other plans.

Three processes are started once; those of a checkpoint are the first one, two or three.
"""

import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ExponentialLR

import nnlr
from tests.helpers import whole
from tests.integrations import algorithms
from tests.integrations.by_hand import RATES, ByHand, batch, loss_of, network
from tests.processes import outcomes, tell

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

FIRST = nnlr.rule("0.*", lr_mult=0) * nnlr.rule("1.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)
# Unlocks a layer, locks a bias, moves the rates of all, and groups otherwise.
SECOND = (
    nnlr.rule("0.*", lr_mult=0.5)
    * nnlr.rule("3.weight", lr_mult=0.2)
    * nnlr.rule("3.bias", lr_mult=0)
)
SECOND_RATES = {
    "0.weight": (0.005, 0.1),
    "0.bias": (0.005, 0.1),
    "1.weight": (0.01, 0.1),
    "1.bias": (0.01, 0.1),
    "3.weight": (0.002, 0.1),
    "3.bias": None,
}
MOVED = {"1.weight", "1.bias", "3.weight"}
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def optimizer_for(model, scheme, cls=torch.optim.AdamW, **settings):
    plan = nnlr.resolve(model, scheme, lr=0.01, weight_decay=0.1)
    return plan.optimizer(cls, model=model, **settings)


class Some:
    """The first ``count`` processes: their mesh, and what they do together."""

    def __init__(self, count):
        self.mesh = DeviceMesh("cpu", list(range(count)))
        self.count = count
        self.inside = dist.get_rank() < count
        self.group = self.mesh.get_group() if self.inside else None

    def shard(self, net):
        for layer in (net[0], net[1], net[3], net):
            fully_shard(layer, mesh=self.mesh)
        return net

    def train(self, model, optimizer, *steps, scheduler=None):
        for step in steps:
            optimizer.zero_grad()
            loss_of(model, batch(step, dist.get_rank(), self.count)).backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()

    def save(self, path, model, optimizer, options=None, name="optimizer", **more):
        state = {
            "model": get_model_state_dict(model),
            name: get_optimizer_state_dict(model, optimizer, options=options),
            **more,
        }
        dcp.save(state, checkpoint_id=path, process_group=self.group)

    def load_weights(self, path, model, **more):
        weights = get_model_state_dict(model)
        dcp.load({"model": weights, **more}, checkpoint_id=path, process_group=self.group)
        set_model_state_dict(model, weights)

    def load(self, path, optimizer, model, **how):
        """The report, and what was warned of."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", nnlr.NnlrWarning)
            report = nnlr.checkpoint.load_dcp(
                path, optimizer, model, process_group=self.group, **how
            )
        ours = [each for each in said if each.category is nnlr.NnlrWarning]
        # One process speaks for all, and stages each for itself.
        assert how.get("partial") or not ours or dist.get_rank() == 0
        return report, "".join(str(each.message) for each in ours) or str(report)


def assert_trained(hand, model):
    """Equal up to the order in which gradients are added up."""
    names = {n: whole(p) for n, p in model.named_parameters()}
    for name, expected in hand.net.named_parameters():
        actual = names.get(name, names.get(f"module.{name}"))
        torch.testing.assert_close(
            expected, actual, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def other_ranks_and_another_plan(folder):
    """Saved on N, resumed on M, on a plan that locks, unlocks and regroups."""
    adam = (torch.optim.AdamW, {})
    sgd = (torch.optim.SGD, {"momentum": 0.9})
    for saved, resumed, (cls, settings) in (
        (2, 3, adam),
        (3, 2, sgd),
        (2, 1, sgd),
        (1, 2, adam),
    ):
        path = folder / f"{saved}to{resumed}{cls.__name__}"
        before, after = Some(saved), Some(resumed)
        if before.inside:
            net = before.shard(network())
            optimizer = optimizer_for(net, FIRST, cls, **settings)
            before.train(net, optimizer, 0, 1, 2)
            before.save(path, net, optimizer, FLAT if saved == 2 else None)
        dist.barrier()
        if not after.inside:
            continue
        net = after.shard(network())
        optimizer = optimizer_for(net, SECOND, cls, **settings)
        after.load_weights(path, net)
        report, said = after.load(path, optimizer, net)
        assert set(report.moved) == MOVED
        assert set(report.fresh) == {"0.weight", "0.bias"}
        assert report.unused == {"3.bias": "frozen"}
        assert "lr_mult" in said
        assert "lr is" not in said
        assert report is nnlr.checkpoint.last_report(optimizer)
        after.train(net, optimizer, 3, 4)
        hand = ByHand(cls, RATES, **settings).train(0, 1, 2)
        hand.change(SECOND_RATES)
        assert_trained(hand.train(3, 4), net)


def a_schedule_goes_on(folder):
    """Two processes schedule; three go on at the curve's next point, on another plan."""
    path = folder / "schedule"
    before, after = Some(2), Some(3)

    def exponential(optimizer):
        return nnlr.schedule(optimizer, ExponentialLR, gamma=0.5)

    if before.inside:
        net = before.shard(network())
        optimizer = optimizer_for(net, FIRST)
        scheduler = exponential(optimizer)
        before.train(net, optimizer, 0, 1, scheduler=scheduler)
        before.save(path, net, optimizer, FLAT, scheduler=scheduler)
    dist.barrier()
    hand = ByHand()
    for step in (0, 1, 2, 3):
        if step == 2:
            hand.change({n: r and (r[0] * 0.25, r[1]) for n, r in SECOND_RATES.items()})
        hand.train(step)
        for group in hand.optimizer.param_groups:
            group["lr"] *= 0.5
    for optimizer_first in (True, False):
        net = after.shard(network())
        optimizer = optimizer_for(net, SECOND)
        scheduler = exponential(optimizer)
        if optimizer_first:
            after.load(path, optimizer, net)
        after.load_weights(path, net, scheduler=scheduler)
        if not optimizer_first:
            after.load(path, optimizer, net)
        assert scheduler.base_lr == 0.0025
        after.train(net, optimizer, 2, 3, scheduler=scheduler)
        assert_trained(hand, net)


def several_algorithms(folder):
    """One optimizer of two, saved on N and resumed on M, equals two of one process."""
    expected = network()
    optimizers = algorithms.several_of(expected, ["0.weight", "1.weight"], algorithms.SHARDED)
    for step in range(5):
        loss_of(expected, batch(step)).backward()
        algorithms.step_all(optimizers)
    for saved, resumed, options in ((2, 3, FLAT), (3, 1, None)):
        path = folder / f"several{saved}to{resumed}"
        before, after = Some(saved), Some(resumed)
        if before.inside:
            net = before.shard(network())
            optimizer = algorithms.one_of(net, algorithms.SHARDED)
            before.train(net, optimizer, 0, 1, 2)
            before.save(path, net, optimizer, options)
        dist.barrier()
        if not after.inside:
            continue
        net = after.shard(network())
        optimizer = algorithms.one_of(net, algorithms.SHARDED)
        after.load_weights(path, net)
        report, said = after.load(path, optimizer, net)
        assert 6 == len(report.moved), said
        after.train(net, optimizer, 3, 4)
        for one, other in zip(expected.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(one, whole(other), rtol=0, atol=1e-6)


def made_without_nnlr(folder):
    """One nameless group of plain torch, under another key, between DDP and FSDP2."""
    some = Some(3)
    rates = dict.fromkeys(RATES, (0.03, 0.2))
    for number, (wrap, then) in enumerate(
        ((DistributedDataParallel, some.shard), (some.shard, DistributedDataParallel))
    ):
        path = folder / f"plain{number}"
        model = wrap(network())
        plain = torch.optim.AdamW(model.parameters(), lr=0.03, weight_decay=0.2)
        some.train(model, plain, 0, 1)
        some.save(path, model, plain, name="optim")
        net = network()
        plan = nnlr.resolve(net, SECOND, lr=0.01, weight_decay=0.1)
        plan.lock()
        model = then(net)
        optimizer = plan.optimizer(torch.optim.AdamW, model=model)
        some.load_weights(path, model)
        report, said = some.load(path, optimizer, model)
        assert set(report.moved) == MOVED | {"0.weight", "0.bias"}
        assert "lr of 5 parameters: 0.03 -> " in said, said
        some.train(model, optimizer, 2, 3)
        hand = ByHand(rates=rates).train(0, 1)
        hand.change(SECOND_RATES)
        assert_trained(hand.train(2, 3), model)


def rates_of_the_checkpoint(folder):
    """policy="checkpoint" goes on at the saved rates, though the plan has others."""
    some = Some(3)
    path = folder / "policy"
    net = some.shard(network())
    optimizer = optimizer_for(net, FIRST, tensor_lr=True)
    some.train(net, optimizer, 0, 1)
    some.save(path, net, optimizer)
    net = some.shard(network())
    same_locks = nnlr.rule("0.*", lr_mult=0) * nnlr.rule("1.*", lr_mult=0.7)
    split = nnlr.rule("*.bias", wd_mult=0)
    optimizer = optimizer_for(net, same_locks * split)
    some.load_weights(path, net)
    some.load(path, optimizer, net, policy="checkpoint")
    some.train(net, optimizer, 2, 3)
    assert_trained(ByHand().train(0, 1, 2, 3), net)


def pipeline_stages(folder):
    """Each process saves its stage, flat; other stages, and a whole model, take it up."""
    path = folder / "stages"
    two, rank = Some(2), dist.get_rank()
    plan = nnlr.resolve(network(), FIRST, lr=0.01, weight_decay=0)
    nnlr.agree(plan)

    def stage(*layers):
        net = network()
        return nn.ModuleDict({str(n): net[n] for n in layers})

    def weights(module):
        """What stands for training: state that tells the parameters apart."""
        optimizer = plan.optimizer(torch.optim.SGD, model=module, partial=True, momentum=0.9)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.grad = torch.full_like(parameter, plan[name].numel)
        optimizer.step()
        return optimizer

    if two.inside:
        module = stage(0, 1) if rank == 0 else stage(3)
        two.save(path, module, weights(module), FLAT)
    dist.barrier()
    if two.inside:
        module = stage(0) if rank == 0 else stage(1, 3)
        kept = plan if rank else nnlr.resolve(network(), lr=0.01, weight_decay=0)
        optimizer = kept.optimizer(torch.optim.SGD, model=module, partial=True, momentum=0.9)
        report, said = two.load(path, optimizer, module, partial=True)
        if rank == 0:
            assert (set(), {}) == (set(report.moved), report.unused)
        else:
            assert {"1.weight", "1.bias", "3.weight", "3.bias"} == set(report.moved)
            assert said == str(report)
            for name, parameter in module.named_parameters():
                buffer = optimizer.state[parameter]["momentum_buffer"]
                assert torch.equal(torch.full_like(parameter, plan[name].numel), buffer)
    some = Some(3)
    net = some.shard(network())
    optimizer = plan.optimizer(torch.optim.SGD, model=net, momentum=0.9)
    report, said = some.load(path, optimizer, net)
    assert {"1.weight", "1.bias", "3.weight", "3.bias"} == set(report.moved)
    assert "Optimizer state: 4 moved, 0 fresh, 0 unused." == said
    buffer = whole(optimizer.state[net[3].bias]["momentum_buffer"])
    assert torch.equal(torch.full((3,), 3.0), buffer)


def resized_and_new_layers(folder):
    """A head of another size starts afresh, and only what is needed is read."""
    some = Some(3)
    path = folder / "resized"
    net = some.shard(network())
    optimizer = optimizer_for(net, FIRST)
    some.train(net, optimizer, 0)
    some.save(path, net, optimizer, FLAT)
    other = network()
    other[3] = nn.Linear(5, 4)
    other.append(nn.Linear(4, 2))
    for layer in (other[0], other[1], other[3], other):
        fully_shard(layer, mesh=some.mesh)
    optimizer = optimizer_for(other, FIRST)
    report, said = some.load(path, optimizer, other)
    assert {"1.weight", "1.bias"} == set(report.moved)
    assert {"3.weight", "3.bias", "4.weight", "4.bias"} == set(report.fresh)
    assert {"3.weight": "shape", "3.bias": "shape"} == report.unused
    assert "of another shape, so these start afresh: 3.weight, 3.bias" in " ".join(said.split())
    some.train(other, optimizer, 1)


class Rows(torch.optim.SGD):
    """Keeps a factor of each matrix, whole in every process, beside SGD's own state."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim == 2:
                    row = parameter.detach().sum(dim=1, keepdim=True)
                    whole_row = [Replicate()] * parameter.device_mesh.ndim
                    row = row.redistribute(placements=whole_row)
                    self.state[parameter]["row"] = row


def factors_of_shards(folder):
    """State of another shape than its parameter's is whole on every process again."""
    path = folder / "factors"
    two, three = Some(2), Some(3)
    if two.inside:
        net = two.shard(network())
        optimizer = optimizer_for(net, FIRST, Rows, momentum=0.9)
        two.train(net, optimizer, 0)
        two.save(path, net, optimizer)
    dist.barrier()
    net = three.shard(network())
    optimizer = optimizer_for(net, FIRST, Rows, momentum=0.9)
    three.load_weights(path, net)
    three.load(path, optimizer, net)
    row = optimizer.state[net[1].weight]["row"]
    expected = whole(net[1].weight).sum(dim=1, keepdim=True)
    torch.testing.assert_close(expected, row.to_local())


SCENARIOS = [
    factors_of_shards,
    other_ranks_and_another_plan,
    a_schedule_goes_on,
    several_algorithms,
    made_without_nnlr,
    rates_of_the_checkpoint,
    pipeline_stages,
    resized_and_new_layers,
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Run the scenarios in three processes."""
    return outcomes(SCENARIOS, 3, tmp_path_factory.mktemp("dcp"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_process_agrees(said, scenario):
    """The scenario's own docstring is the claim; no process may object."""
    tell(said[scenario.__name__])
