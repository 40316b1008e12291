"""Plans in a plain loop: compiled, scaled, accumulated, clipped and averaged."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

import nnlr
from tests.integrations import algorithms

pytestmark = pytest.mark.no_cover

BASE, STEPS = 1e-2, 8
SCHEME = nnlr.rule("body.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)
FROZEN = SCHEME * nnlr.freeze("stem.*")


class Net(nn.Module):
    """A norm, a stem, a body and a head; no bias before the norm, whose gradient is noise."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = nn.Linear(4, 6), nn.Linear(6, 6)
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(6, 1)

    def forward(self, x):
        x = torch.tanh(self.stem(self.norm(x)))
        return self.head(torch.tanh(self.body(x)))


def batches():
    source = torch.Generator().manual_seed(1)
    return torch.randn(STEPS, 8, 4, generator=source)


def loss_of(net, x):
    return (net(x).squeeze(-1) - x.sum(-1)).square().mean()


def planned(net, scheme=SCHEME, **settings):
    plan = nnlr.resolve(net, scheme, lr=BASE, weight_decay=0.1)
    return plan.optimizer(torch.optim.AdamW, **settings)


def cosine(optimizer):
    return lrs.CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=5e-3)


def by_hand(make=cosine, *, every=1, clip=None, frozen=(), after_step=None, **settings):
    """The loop without nnlr: groups written out, rates from a scheduler on one rate."""
    net = Net()
    for name in frozen:
        net.get_submodule(name).requires_grad_(False)
    rest = [layer for layer in (net.stem, net.norm, net.head) if layer.weight.requires_grad]
    groups = [
        {"params": [layer.weight for layer in rest], "weight_decay": 0.1},
        {"params": [layer.bias for layer in rest], "weight_decay": 0.0},
        {"params": [net.body.weight], "weight_decay": 0.1},
        {"params": [net.body.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=BASE, **settings)
    one = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = make(one)
    one.step()  # in the order that torch asks for
    for at, x in enumerate(batches(), start=1):
        (loss_of(net, x) / every).backward()
        if at % every:
            continue
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        for group, mult in zip(optimizer.param_groups, (1, 1, 0.1, 0.1), strict=True):
            group["lr"] = one.param_groups[0]["lr"] * mult
        optimizer.step()
        optimizer.zero_grad()
        if after_step:
            after_step(net)
        scheduler.step()
    return net


def train(net, optimizer, scheduler=None, model=None, step=None):
    """The plain loop of the documentation."""
    scheduler = scheduler or nnlr.schedule(optimizer, cosine)
    for x in batches():
        loss_of(net if model is None else model, x).backward()
        (step or optimizer.step)()
        optimizer.zero_grad()
        scheduler.step()


def same(expected, net):
    pairs = zip(expected.state_dict().values(), net.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # its own, on import
class TestCompiledModels:
    @pytest.mark.parametrize("order", ["resolve first", "compile first", "in place"])
    def test_they_train_like_the_bare_model(self, order):
        """Before or after: the same plan, the same names in the groups, the same weights."""
        torch._dynamo.reset()
        net = Net()
        if order == "resolve first":
            optimizer = planned(net)
            model = torch.compile(net, backend="aot_eager")
        elif order == "compile first":
            model = torch.compile(net, backend="aot_eager")
            optimizer = planned(model)
        else:
            model = net
            net.compile(backend="aot_eager")
            optimizer = planned(net)
        names = [group["param_names"] for group in optimizer.param_groups]
        assert ["body.weight"] in names
        train(net, optimizer, model=model)
        assert same(by_hand(), net)

    def test_a_plan_may_be_applied_to_the_compiled_model(self):
        """Names are looked up without `_orig_mod.`."""
        net = Net()
        plan = nnlr.resolve(net, FROZEN, lr=BASE, weight_decay=0.1)
        model = torch.compile(net, backend="eager")
        optimizer = plan.optimizer(torch.optim.AdamW, model=model)
        assert not net.stem.weight.requires_grad
        train(net, optimizer)
        assert same(by_hand(frozen=["stem"]), net)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # its own, on import
class TestCompiledSteps:
    @pytest.mark.parametrize(
        ("tensor_lr", "expected"), [pytest.param(False, 2, marks=pytest.mark.full), (True, 1)]
    )
    def test_regroup_in_between(self, tensor_lr, expected):
        """A schedule costs no more graphs than torch's own; other groups cost one."""
        torch._dynamo.reset()
        graphs = []

        def backend(graph, _):
            graphs.append(graph)
            return graph.forward

        def run(compiled):
            net = Net()
            optimizer = planned(net, tensor_lr=tensor_lr)
            scheduler = nnlr.schedule(optimizer, cosine)
            step = optimizer.step
            if compiled:
                step = torch.compile(step, backend=backend)
            train(net, optimizer, scheduler, step=step)
            first = len(graphs)
            plan = nnlr.resolve(net, nnlr.rule("head.*", lr_mult=2), lr=BASE, weight_decay=0.1)
            nnlr.regroup(optimizer, plan)
            train(net, optimizer, scheduler, step=step)
            return net, first

        net, first = run(compiled=True)
        assert expected == first
        assert first + 1 == len(graphs)
        plain, _ = run(compiled=False)
        for one, other in zip(plain.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=5e-6)


class TestGradScaler:
    @pytest.mark.parametrize("fused", [False, True])
    def test_unscale_and_clip(self, fused):
        """A scale is a power of two: it changes no bit, and the clipped norm is the true one."""
        net = Net()
        optimizer = planned(net, FROZEN, fused=fused)
        scheduler = nnlr.schedule(optimizer, cosine)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for x in batches():
            scaler.scale(loss_of(net, x)).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 0.05)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            scheduler.step()
        expected = by_hand(clip=0.05, frozen=["stem"], fused=fused)
        assert same(expected, net)
        assert not same(by_hand(frozen=["stem"], fused=fused), net)


class TestClippingAndAccumulation:
    def test_both_equal_the_loop_by_hand(self):
        """Two batches to a step; a schedule that counts steps."""

        def half(optimizer):
            return lrs.CosineAnnealingLR(optimizer, T_max=STEPS // 2, eta_min=5e-3)

        net = Net()
        optimizer = planned(net)
        scheduler = nnlr.schedule(optimizer, half)
        for at, x in enumerate(batches(), start=1):
            (loss_of(net, x) / 2).backward()
            if at % 2 == 0:
                nn.utils.clip_grad_norm_(net.parameters(), 0.05)
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
        assert same(by_hand(half, every=2, clip=0.05), net)

    def test_locked_parameters_do_not_count_in_the_norm(self):
        """Kept at a rate of 0 they would, and the others would move less."""
        norms = {}
        for locked in ("drop", "keep"):
            net = Net()
            planned(net, FROZEN, locked=locked)
            loss_of(net, batches()[0]).backward()
            norms[locked] = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        net = Net()
        loss_of(net, batches()[0]).backward()
        trained = [p for name, p in net.named_parameters() if "stem" not in name]
        assert nn.utils.get_total_norm([p.grad for p in trained]) == norms["drop"]
        assert norms["keep"] > norms["drop"]


class TestAveraging:
    def test_an_exponential_average(self):
        """AveragedModel of a planned model, frozen part and all."""

        def ema(net):
            function = get_ema_multi_avg_fn(0.8)
            return AveragedModel(net, multi_avg_fn=function, use_buffers=True)

        net = Net()
        optimizer = planned(net, FROZEN)
        scheduler, averaged = nnlr.schedule(optimizer, cosine), ema(net)
        for x in batches():
            loss_of(net, x).backward()
            optimizer.step()
            averaged.update_parameters(net)
            optimizer.zero_grad()
            scheduler.step()
        expected = ema(Net())
        by_hand(frozen=["stem"], after_step=expected.update_parameters)
        assert same(expected, averaged)
        assert torch.equal(Net().stem.weight, averaged.module.stem.weight)

    def test_stochastic_weight_averaging(self):
        """A schedule, then SWALR through nnlr.schedule; update_bn at the end."""

        def halfway(optimizer):
            before = cosine(optimizer)
            after = SWALR(optimizer, swa_lr=2e-2, anneal_epochs=2)
            return lrs.SequentialLR(optimizer, [before, after], milestones=[4])

        net = Net()
        optimizer = planned(net)
        scheduler, averaged = nnlr.schedule(optimizer, halfway), AveragedModel(net)
        seen = []
        for at, x in enumerate(batches()):
            loss_of(net, x).backward()
            optimizer.step()
            seen.append([group["lr"] for group in optimizer.param_groups])
            if at >= 4:
                averaged.update_parameters(net)
            optimizer.zero_grad()
            scheduler.step()
        update_bn(batches(), averaged)
        expected, taken = AveragedModel(Net()), []

        def average(net):
            taken.append(None)
            if len(taken) > 4:
                expected.update_parameters(net)

        by_hand(halfway, after_step=average)
        update_bn(batches(), expected)
        assert same(expected, averaged)
        assert 2e-2 == pytest.approx(seen[-1][0])
        assert all(pytest.approx(head * 0.1) == body for head, _, body, _ in seen)

    def test_the_average_resolves_like_the_model(self):
        """Its names lose `module.`; its plan is the model's."""
        net = Net()
        expected = nnlr.resolve(net, FROZEN, lr=BASE, weight_decay=0.1)
        averaged = AveragedModel(net)
        found = nnlr.resolve(averaged, FROZEN, lr=BASE, weight_decay=0.1)
        assert expected.rows == found.rows
        optimizer = expected.optimizer(torch.optim.AdamW, model=averaged)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        inside = {id(p) for p in averaged.module.parameters() if p.requires_grad}
        assert inside == held
        assert all(parameter.requires_grad for parameter in net.parameters())

    def test_a_copy_of_a_locked_model_is_locked(self):
        """What nnlr locked it may unlock in the copy too; the original stays as it is."""
        net = Net()
        planned(net, FROZEN)
        twin = copy.deepcopy(net)
        nnlr.resolve(twin, SCHEME, lr=BASE, weight_decay=0.1).lock()
        assert all(parameter.requires_grad for parameter in twin.parameters())
        assert not net.stem.weight.requires_grad


class TestSeveralAlgorithms:
    MATRICES = ("stem.weight", "body.weight")

    def by_hand(self, make):
        """Two optimizers, two schedulers, one norm."""
        net = Net()
        optimizers = algorithms.several_of(net, self.MATRICES)
        schedulers = [make(optimizer) for optimizer in optimizers]
        for x in batches():
            loss_of(net, x).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            algorithms.step_all(optimizers, schedulers)
        return net

    @pytest.mark.parametrize("ours", [False, True])
    def test_trained_and_resumed(self, ours):
        """One of all: interrupted in the middle, it ends where two of all end."""

        def linear(optimizer):
            return lrs.LinearLR(optimizer, 1.0, 0.1, total_iters=STEPS)

        def built(net):
            optimizer = algorithms.one_of(net)
            schedule = nnlr.schedule(optimizer, linear) if ours else linear(optimizer)
            return net, optimizer, schedule

        net, optimizer, scheduler = built(Net())
        for at, x in enumerate(batches()):
            if at == STEPS // 2:
                kept = copy.deepcopy([each.state_dict() for each in (net, optimizer, scheduler)])
                net, optimizer, scheduler = built(Net())
                for thing, state in zip((net, optimizer, scheduler), kept, strict=True):
                    thing.load_state_dict(state)
            loss_of(net, x).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        assert same(self.by_hand(linear), net)
