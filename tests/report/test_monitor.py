"""nnlr.report.Monitor: the numbers of each step, for every kind of optimizer and parameter."""

import copy
import io
import math
import pickle
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.optim.lr_scheduler import LambdaLR

import nnlr
from nnlr.report import Monitor
from nnlr.report._monitor.layers import layer_names
from nnlr.report._monitor.sums import here


def network(dtype=torch.float32):
    """Two layers and their plan: the first at a tenth of the rate."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
    scheme = nnlr.rule("0.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)
    return net, nnlr.resolve(net, scheme, lr=0.1, weight_decay=0.1)


def backward(net, seed=0):
    """A gradient of a fixed batch."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 4, generator=source).to(next(net.parameters()).dtype)
    loss = net(x).square().mean()
    loss.backward()
    return loss


def norm(tensors):
    """The norm of all elements, in float64."""
    wide = [
        tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)
        for tensor in tensors
    ]
    return math.sqrt(sum(float(tensor.abs().square().sum()) for tensor in wide))


class TestNumbers:
    @pytest.mark.parametrize(
        "cls",
        [
            partial(torch.optim.SGD, momentum=0.9),
            torch.optim.AdamW,
            partial(torch.optim.AdamW, fused=True),
            partial(torch.optim.AdamW, foreach=True),
            nnlr.optim.AdamW,
            torch.optim.Adafactor,
        ],
        ids=["SGD", "AdamW", "fused", "foreach", "one pass", "Adafactor"],
    )
    def test_they_are_those_of_the_weights_before_and_after(self, cls):
        """Rate, step, weights and gradient of each layer, at each reading, against copies."""
        net, plan = network()
        optimizer = plan.optimizer(cls)
        monitor = Monitor(plan, optimizer, every=2)
        for step in range(1, 5):
            backward(net, step)
            before = copy.deepcopy(net.state_dict())
            gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
            optimizer.step()
            optimizer.zero_grad()
            if step == 3:
                assert 2 == len(monitor.history)
                continue
            after = net.state_dict()
            reading = monitor.history[-1]
            assert step == reading.step
            for layer in reading.layers:
                names = [f"{layer.name}.weight", f"{layer.name}.bias"]
                update = norm(after[name] - before[name] for name in names)
                assert update == pytest.approx(layer.update, rel=1e-5)
                assert norm(before[name] for name in names) == pytest.approx(layer.weight)
                assert norm(gradients[name] for name in names) == pytest.approx(layer.gradient)
                assert layer.update / layer.weight == layer.ratio
        assert [1, 2, 4] == [reading.step for reading in monitor.history]
        assert [0.01, 0.1] == pytest.approx([layer.lr for layer in reading.layers])

    def test_several_algorithms_are_one_optimizer(self):
        """Each group under its name, each with the rate of its algorithm."""
        net, _ = network()
        bases = {"muon": 0.02, "adamw": 1e-3}
        plan = nnlr.resolve(net, nnlr.route("muon", "adamw"), lr=bases, weight_decay=0)
        optimizer = plan.optimizer({"muon": torch.optim.Muon, "adamw": torch.optim.AdamW})
        monitor = Monitor(plan, optimizer, by="parameter")
        before = copy.deepcopy(net.state_dict())
        backward(net)
        optimizer.step()
        (reading,) = monitor.history
        assert {group["name"]: group["lr"] for group in optimizer.param_groups} == reading.rates
        for layer in reading.layers:
            moved = norm([net.state_dict()[layer.name] - before[layer.name]])
            assert moved == pytest.approx(layer.update, rel=1e-5)
            assert bases[plan[layer.name].algorithm] == layer.lr

    def test_a_closure_makes_its_gradients_in_the_step(self):
        """As LBFGS has it, and Lightning: what was there before is not what the step used."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer)
        for param in net.parameters():
            param.grad = torch.full_like(param, 1e6)

        def closure():
            optimizer.zero_grad()
            return backward(net)

        optimizer.step(closure)
        layer = monitor.history[0].layers[1]
        assert norm(p.grad for p in net[2].parameters()) == pytest.approx(layer.gradient)
        assert layer.gradient < 10
        optimizer.step(closure=closure)
        assert 1 == len(monitor.history)

    def test_the_rate_is_the_one_that_the_step_used(self):
        """Not the plan's, and not that of the next step; also where it lives in a tensor."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.AdamW, tensor_lr=True)
        scheduler = nnlr.schedule(optimizer, LambdaLR, lr_lambda=lambda step: 0.5**step)
        monitor = Monitor(plan, optimizer, every=1, by="group")
        for _ in range(3):
            backward(net)
            optimizer.step()
            scheduler.step()
        rates = [reading.layers[0].lr for reading in monitor.history]
        assert [0.01, 0.005, 0.0025] == pytest.approx(rates)
        assert ["lr0.1_wd1", "lr0.1_wd0", "lr1_wd1", "lr1_wd0"] == [
            layer.name for layer in reading_names(monitor)
        ]

    def test_groups_of_one_name_and_without_a_rate(self):
        """Each has its own rate; some classes make theirs: NaN, which JSON has not."""
        net, plan = network()
        parts = [list(net[at].parameters()) for at in (0, 2)]
        groups = [
            {"params": part, "name": "all", "lr": lr}
            for part, lr in zip(parts, (1, 2), strict=True)
        ]
        optimizer = torch.optim.SGD(groups)
        monitor = Monitor(plan, optimizer, every=1)
        backward(net)
        optimizer.step()
        assert {"all": 1.0, "all (group 1)": 2.0} == monitor.history[0].rates
        assert [1.0, 2.0] == [layer.lr for layer in monitor.history[0].layers]

        class OwnRate(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    for param in group["params"]:
                        param.data.sub_(param.grad)

        optimizer = OwnRate(net.parameters())
        optimizer.param_groups[0]["lr"] = None
        monitor = Monitor(plan, optimizer)
        optimizer.step()
        assert math.isnan(monitor.history[0].layers[0].lr)
        assert monitor.history[0].to_dict()["lr"] == {"group0": None}

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64])
    def test_any_type_of_number(self, dtype):
        """Half precision and complex weights."""
        net, plan = network()
        net = nn.Sequential(nn.Linear(4, 2, dtype=dtype))
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer)
        before = copy.deepcopy(net.state_dict())
        net(torch.ones(1, 4, dtype=dtype)).abs().sum().backward()
        optimizer.step()
        (layer,) = monitor.history[0].layers
        moved = norm(net.state_dict()[name] - before[name] for name in before)
        assert moved == pytest.approx(layer.update, rel=5e-3)
        assert norm(before.values()) == pytest.approx(layer.weight)
        assert norm(p.grad for p in net.parameters()) == pytest.approx(layer.gradient)

    def test_sparse_and_missing_gradients(self):
        """An embedding's rows that were read, and a layer that the loss does not use."""
        net = nn.ModuleDict({"table": nn.Embedding(9, 2, sparse=True), "spare": nn.Linear(2, 1)})
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer)
        net["table"](torch.tensor([1, 1, 3])).sum().backward()
        optimizer.step()
        table, spare = monitor.history[0].layers
        assert math.sqrt(2 * 4 + 2) == pytest.approx(table.gradient)
        assert 0.1 * table.gradient == pytest.approx(table.update, rel=1e-5)
        assert (None, 0.0, 0.0) == (spare.gradient, spare.update, spare.ratio)
        assert "grad_norm/spare" not in monitor.history[0].scalars()

    @pytest.mark.filterwarnings("ignore:Sparse CSR")
    def test_compressed_rows(self):
        """Gradients of sparse layouts count by their values."""
        assert [1.0, 1.0, 1.0] == here(torch.eye(3).to_sparse_csr()).tolist()

    def test_a_layer_of_zeros_is_at_infinity_once_it_moves(self):
        """There is nothing to relate its step to; JSON has no number for it."""
        net = nn.Sequential(nn.Linear(2, 1, bias=False))
        nn.init.zeros_(net[0].weight)
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer)
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        (layer,) = monitor.history[0].layers
        assert math.inf == layer.ratio
        assert layer.to_dict()["ratio"] is None

    def test_long_tensors_are_summed_in_pieces(self):
        """Torch adds float32 up one by one on a CPU: two million equal numbers are 0.1 % off."""
        net = nn.ParameterDict({"long": nn.Parameter(torch.full((2_000_000,), 0.1))})
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer)
        net["long"].grad = torch.zeros(2_000_000)
        optimizer.step()
        assert math.sqrt(2e4) == pytest.approx(monitor.history[0].layers[0].weight, rel=2e-5)


def reading_names(monitor):
    return monitor.history[-1].layers


class TestMixedPrecision:
    def scaled(self, cls, gradient):
        """One step of a scaler; every gradient is this number times the scale."""
        net, plan = network()
        optimizer = plan.optimizer(cls)
        monitor = Monitor(plan, optimizer, every=5)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        scaler.scale(torch.ones(()))  # it has to have scaled once
        for value in (gradient, 2.0):
            for param in net.parameters():
                param.grad = torch.full_like(param, value * scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
        return monitor

    @pytest.mark.parametrize("fused", [False, True])
    def test_gradients_are_those_without_the_scale(self, fused):
        """Whether the scaler unscales them, or the class does within its step."""
        monitor = self.scaled(partial(torch.optim.AdamW, fused=fused), 2.0)
        (reading,) = monitor.history
        assert math.sqrt(40 * 4) == pytest.approx(reading.layers[0].gradient)

    @pytest.mark.parametrize("fused", [False, True])
    def test_a_step_that_is_skipped_is_not_read(self, fused):
        """The next one is in its place; the overflow is no fault."""
        monitor = self.scaled(partial(torch.optim.AdamW, fused=fused), math.inf)
        (reading,) = monitor.history
        assert math.sqrt(40 * 4) == pytest.approx(reading.layers[0].gradient)
        assert () == monitor.findings


class TestCadence:
    def test_between_readings_nothing_is_measured(self, monkeypatch):
        """No copy, no norm, no transfer."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, every=3)
        backward(net)
        optimizer.step()

        def refuse(*_):
            raise AssertionError("measured")

        monkeypatch.setattr("nnlr.report._monitor.monitor.Look", refuse)
        optimizer.step()
        with pytest.raises(AssertionError, match="measured"):
            optimizer.step()
        assert 1 == len(monitor.history)

    def test_a_resumed_run_goes_on_counting(self):
        """`start` are the steps taken before."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, every=50, start=98)
        backward(net)
        for _ in range(3):
            optimizer.step()
        assert [99, 100] == [reading.step for reading in monitor.history]

    def test_a_step_that_raises_is_not_read(self):
        """And the next one is in order."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, every=1)

        def closure():
            raise ArithmeticError("no loss")

        with pytest.raises(ArithmeticError, match="no loss"):
            optimizer.step(closure)
        backward(net)
        optimizer.step()
        assert [2] == [reading.step for reading in monitor.history]

    def test_close_ends_it(self):
        """Twice too; the readings stay."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        with Monitor(plan, optimizer, every=1) as monitor:
            backward(net)
            optimizer.step()
        optimizer.step()
        monitor.close()
        assert 1 == len(monitor.history)
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks


class TestSurroundings:
    def test_copies_and_checkpoints_are_as_without_it(self):
        """Pickle, deepcopy, state dict: no hook is in them, and weights train the same."""
        net, plan = network()
        twin, plan_of_twin = network()
        plain = plan_of_twin.optimizer(torch.optim.AdamW)
        optimizer = plan.optimizer(torch.optim.AdamW)
        monitor = Monitor(plan, optimizer, every=1)
        for one, other in ((net, optimizer), (twin, plain)):
            backward(one)
            other.step()
        assert all(map(torch.equal, net.parameters(), twin.parameters()))
        mine, theirs = io.BytesIO(), io.BytesIO()
        torch.save(optimizer.state_dict(), mine)
        torch.save(plain.state_dict(), theirs)
        assert theirs.getvalue() == mine.getvalue()
        pickle.loads(pickle.dumps(optimizer)).step()
        copy.deepcopy(optimizer).step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        assert [1, 2] == [reading.step for reading in monitor.history]

    def test_it_follows_a_regroup(self):
        """What the new plan unlocks is trained, and what it locks is locked: no finding."""
        net, _ = network()
        bases = {"lr": 0.1, "weight_decay": 0}
        head_first = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0), **bases)
        optimizer = head_first.optimizer(torch.optim.AdamW)
        monitor = Monitor(head_first, optimizer, every=1, patience=1)
        states = []
        for scheme in (None, nnlr.rule("*", lr_mult=1), nnlr.rule("2.*", lr_mult=0)):
            if scheme is not None:
                nnlr.regroup(optimizer, nnlr.resolve(net, scheme, **bases))
            backward(net)
            optimizer.step()
            optimizer.zero_grad()
            states.append([layer.state for layer in monitor.history[-1].layers])
        assert [["locked", "trained"], ["trained", "trained"], ["trained", "locked"]] == states
        assert () == monitor.findings

    def test_it_follows_tensors_that_are_replaced(self):
        """As where a model is sharded, or given other weights, and regrouped."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, every=1, patience=1)
        net[0].weight = nn.Parameter(net[0].weight.detach().clone())
        nnlr.regroup(optimizer, plan)
        backward(net)
        optimizer.step()
        assert monitor.history[0].layers[0].update > 0
        assert () == monitor.findings

    def test_an_optimizer_of_none_of_its_parameters(self):
        """The step runs, and the finding says what is wrong."""
        _net, plan = network()
        other = nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([other], lr=0.1)
        monitor = Monitor(plan, optimizer, every=1)
        other.grad = torch.ones(1)
        with pytest.warns(nnlr.NnlrWarning, match="does not have 4 parameters"):
            optimizer.step()
        assert 1 == len(monitor.history)
        assert "in no group" == monitor.history[0].layers[0].state

    def test_a_module_that_is_added_later_ends_no_run(self):
        """A warning says that the plan does not know it; what it watched it goes on to watch."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, every=1)
        net.add_module("3", nn.Linear(2, 2))
        optimizer.add_param_group({"params": list(net[3].named_parameters(prefix="3"))})
        backward(net)
        with pytest.warns(nnlr.NnlrWarning, match=r"goes on.*'3\.weight', which the plan does not"):
            optimizer.step()
        assert ["0", "2"] == [layer.name for layer in monitor.history[0].layers]
        assert 0 < monitor.history[0].layers[0].update

    def test_wrappers_of_trainers_are_opened(self):
        """Those of Accelerate, DeepSpeed and Lightning hold the real one."""

        class Wrapper:
            def __init__(self, optimizer):
                self._optimizer = optimizer

        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, Wrapper(optimizer))
        backward(net)
        optimizer.step()
        assert 1 == len(monitor.history)

    def test_a_part_of_the_model(self):
        """One stage, with an optimizer of its own."""
        net, plan = network()
        stage = {name: p for name, p in net.named_parameters() if name.startswith("2.")}
        optimizer = plan.optimizer(torch.optim.SGD, model=stage, partial=True)
        monitor = Monitor(plan, optimizer, model=stage, partial=True)
        backward(net)
        optimizer.step()
        assert ["2"] == [layer.name for layer in monitor.history[0].layers]

    def test_wrapped_and_tied_names(self):
        """DDP's prefix and a second name change nothing."""
        net = nn.ModuleDict({"embed": nn.Embedding(3, 2), "head": nn.Linear(2, 3, bias=False)})
        net["head"].weight = net["embed"].weight
        plan = nnlr.resolve(net, lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, model=nn.DataParallel(net))
        net["head"](net["embed"](torch.tensor([0]))).sum().backward()
        optimizer.step()
        assert ["embed"] == [layer.name for layer in monitor.history[0].layers]

    @pytest.mark.full  # 12 s
    @pytest.mark.no_cover
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, as it compiles
    def test_beside_torch_compile(self):
        """A compiled model is watched; a compiled step runs no hooks, and nothing breaks."""
        net, plan = network()
        compiled = torch.compile(net, backend="aot_eager")
        optimizer = plan.optimizer(torch.optim.AdamW)
        monitor = Monitor(plan, optimizer, every=1)
        backward(compiled)
        optimizer.step()
        assert monitor.history[0].layers[0].update > 0
        torch.compile(optimizer.step, backend="aot_eager")()
        assert 1 == len(monitor.history)


@pytest.fixture
def mesh(tmp_path):
    """A mesh of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield dist.device_mesh.init_device_mesh("cpu", (1, 1))
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo")
def test_sharded_weights(mesh):
    """One axis with shards and one with copies; a gradient that is still to be added up."""
    net = nn.ModuleDict({name: nn.Linear(4, 4, bias=False) for name in ("a", "b", "c")})
    layout = [Replicate(), Shard(0)]
    for module in net.values():
        module.weight = nn.Parameter(distribute_tensor(module.weight.detach(), mesh, layout))
    plan = nnlr.resolve(net, nnlr.rule("c.*", lr_mult=0), lr=0.1, weight_decay=0)
    optimizer = plan.optimizer(torch.optim.SGD)
    monitor = Monitor(plan, optimizer)
    part = DTensor.from_local(torch.ones(4, 4), mesh, [Partial(), Shard(0)])
    net["a"].weight.grad = part
    before = net["a"].weight.full_tensor().clone()
    optimizer.step()
    a, b, c = monitor.history[0].layers
    assert (4.0, None, None) == (pytest.approx(a.gradient), b.gradient, c.gradient)
    assert norm([before]) == pytest.approx(a.weight)
    assert pytest.approx(a.update) == 0.4
    assert ["trained", "trained", "locked"] == [a.state, b.state, c.state]


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo")
def test_the_first_process_writes(mesh, monkeypatch):
    """The others have the readings and are silent."""
    net, plan = network()
    optimizer = plan.optimizer(torch.optim.SGD)
    calls = []
    monitor = Monitor(plan, optimizer, every=1, log=lambda *call: calls.append(call))
    backward(net)
    optimizer.step()
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    optimizer.step()
    assert (2, 1) == (len(monitor.history), len(calls))


class TestLayers:
    def test_the_outermost_list_of_three_or_more(self):
        """Blocks, not the parts inside; also in a model that is part of a pair."""
        names = ["0.blocks.0.mlp.0.weight", "0.blocks.1.mlp.2.weight", "0.blocks.2.a.b.weight"]
        names += ["1.weight", "1.bias"]
        assert ["0.blocks.0", "0.blocks.1", "0.blocks.2", "1", "1"] == list(
            layer_names(names).values()
        )

    def test_else_of_two_else_the_module(self):
        """ResNets have stages of two blocks; a stem has no number."""
        names = ["stem.conv.weight", "layer1.0.conv.weight", "layer1.1.conv.weight", "token"]
        assert ["stem.conv", "layer1.0", "layer1.1", "token"] == list(layer_names(names).values())

    def test_a_function_says_what_belongs_together(self):
        """It is called with the name of each parameter."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        monitor = Monitor(plan, optimizer, by=lambda name: name.rpartition(".")[2])
        backward(net)
        optimizer.step()
        weights, biases = monitor.history[0].layers
        assert ("weight", 0.1, 0.01) == (weights.name, weights.lr, pytest.approx(weights.lr_min))
        assert "bias" == biases.name

    def test_groups_and_what_is_in_none(self):
        """Locked parameters are in no group."""
        net, _ = network()
        plan = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=0), lr=0.1, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.SGD, names=False)
        del optimizer.param_groups[0]["name"]
        monitor = Monitor(plan, optimizer, by="group")
        backward(net)
        optimizer.step()
        names = [(layer.name, layer.state) for layer in monitor.history[0].layers]
        assert [("(no group)", "locked"), ("group0", "trained")] == names


class TestRefusals:
    def call(self, **changes):
        net, plan = network()
        settings = {"plan": plan, "optimizer": plan.optimizer(torch.optim.SGD)} | changes
        self.net = net
        return Monitor(settings.pop("plan"), settings.pop("optimizer"), **settings)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"plan": 3}, r"plan must be a Plan, got 3: Monitor\(plan, optimizer\)"),
            ({"optimizer": 3}, "optimizer must be a torch optimizer that runs the hooks"),
            ({"every": 0}, "every must be a whole number >= 1"),
            ({"start": -1}, "start must be a whole number >= 0"),
            ({"patience": 0}, "patience must be a whole number >= 1"),
            ({"by": "module"}, "by must be 'layer', 'group', 'parameter' or a function"),
            ({"partial": 1}, "partial must be True or False"),
            ({"live": 1}, "live must be True or False"),
            ({"jsonl": 3}, "jsonl must be the path of a file"),
            ({"jsonl": "nowhere/run.jsonl"}, r"folder 'nowhere' does not exist.\n  Fix: Path"),
            ({"tensorboard": "logs"}, "tensorboard must be a SummaryWriter"),
            ({"log": "wandb"}, "log must be a function such as wandb.log"),
        ],
        ids=lambda value: "-".join(map(str, value.items())) if isinstance(value, dict) else "",
    )
    def test_each_argument_is_checked(self, changes, message):
        """Where it is received, before anything is hooked."""
        with pytest.raises(nnlr.NnlrError, match=message):
            self.call(**changes)

    def test_another_model_is_refused(self):
        """One that lacks parameters, and one that has others; with the way out."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        with pytest.raises(nnlr.PlanMismatchError, match=r"lacks 2 parameters of the plan: 2\."):
            Monitor(plan, optimizer, model=net[:2])
        other = nn.Sequential(*net, nn.Linear(2, 2))
        with pytest.raises(nnlr.PlanMismatchError, match=r"has the parameter '3\.weight'"):
            Monitor(plan, optimizer, model=other)

    def test_weights_on_meta_are_refused(self):
        """There is nothing to measure yet."""
        net, plan = network()
        optimizer = plan.optimizer(torch.optim.SGD)
        with pytest.raises(nnlr.NnlrError, match="on the meta device and have no values yet"):
            Monitor(plan, optimizer, model=copy.deepcopy(net).to("meta"))
