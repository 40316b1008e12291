"""Set-ups from the documentation of torch, timm, transformers and others: nothing is found."""

import copy
import functools
import warnings

import pytest
import timm.optim
import timm.scheduler
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR, AveragedModel
from transformers import SchedulerType, get_scheduler
from transformers.optimization import Adafactor

import nnlr
from nnlr.integrations.timm import param_group_fn, to_timm
from tests.helpers import thinned

LR = 1e-2

# Models of plans, which hold theirs weakly.
MODELS = []


def network():
    torch.manual_seed(0)
    MODELS[:] = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))]
    return MODELS[0]


def slow_first(net, mult=0.1, **bases):
    return nnlr.resolve(
        net, nnlr.rule("0.*", lr_mult=mult), **{"lr": LR, "weight_decay": 0, **bases}
    )


def train(net, optimizer, scheduler=None, steps=3):
    for _ in range(steps):
        net(torch.randn(2, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step(*[1.0] * isinstance(scheduler, lrs.ReduceLROnPlateau))


def findings(*args, **kwargs):
    return str(nnlr.check(*args, **kwargs))


TIMM = ("cosine", "tanh", "step", "multistep", "plateau", "poly")


def of_timm(optimizer, name, *, epochs=True):
    """A scheduler of timm, with a warm-up."""
    with warnings.catch_warnings(action="ignore"):  # one of them is deprecated
        return timm.scheduler.create_scheduler_v2(
            optimizer,
            name,
            num_epochs=10,
            warmup_epochs=2,
            decay_epochs=3,
            decay_milestones=(3, 5),
            step_on_epochs=epochs,
            updates_per_epoch=7,
            min_lr=0.0 if name == "plateau" else 1e-5,
            cycle_decay=0.5,
        )[0]


class TestTimm:
    @pytest.mark.parametrize("epochs", [True, False])
    @pytest.mark.parametrize("name", TIMM)
    def test_each_scheduler_on_the_plans_groups_for_timm(self, name, epochs):
        """They hold the base rate and the multiplier apart, and the scheduler multiplies."""
        if name == "plateau" and not epochs:
            pytest.skip("timm has it for epochs only")
        net = network()
        plan = slow_first(net)
        optimizer = torch.optim.AdamW(to_timm(plan), lr=LR, weight_decay=0)
        scheduler = of_timm(optimizer, name, epochs=epochs)
        assert "nothing found" == findings(plan, optimizer, scheduler)
        for epoch in range(1, 5):
            train(net, optimizer, steps=1)
            scheduler.step(epoch, 1.0)
            scheduler.step_update(epoch * 7)
        assert "nothing found" == findings(plan, optimizer, scheduler)

    @pytest.mark.parametrize("name", TIMM)
    def test_each_scheduler_under_ours(self, name):
        """On the base rate, from its warm-up on."""
        net = network()
        plan = slow_first(net)
        optimizer = plan.optimizer(torch.optim.AdamW)
        scheduler = nnlr.schedule(optimizer, of_timm, name=name)
        assert "nothing found" == findings(plan, optimizer, scheduler)

    def test_its_own_layer_decay_and_ours_inside_its_factory(self):
        """With a model in place of a plan too."""
        net = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2)
        settings = {"lr": 1e-3, "weight_decay": 0.05}
        scheme = nnlr.layer_decay(0.75) * nnlr.no_weight_decay()
        for how in ({"layer_decay": 0.75}, {"param_group_fn": param_group_fn(scheme, **settings)}):
            optimizer = timm.optim.create_optimizer_v2(net, "adamw", **settings, **how)
            scheduler = of_timm(optimizer, "cosine")
            assert "nothing found" == findings(net, optimizer, scheduler)
        plan = nnlr.resolve(net, scheme, **settings)
        optimizer = timm.optim.create_optimizer_v2(to_timm(plan), "adamw", **settings)
        assert "nothing found" == findings(plan, optimizer, of_timm(optimizer, "cosine"))

    @pytest.mark.full
    @pytest.mark.parametrize("name", timm.optim.list_optimizers())
    def test_each_optimizer_of_its_factory(self, name):
        """Those that are for GPUs alone cannot be built here."""
        try:
            with warnings.catch_warnings(action="ignore"):  # one recommends a library
                net = network()
                optimizer = timm.optim.create_optimizer_v2(net, name, lr=1e-3, weight_decay=0.05)
        except AssertionError as refusal:
            pytest.skip(str(refusal))
        assert "nothing found" == findings(net, optimizer)

    @pytest.mark.parametrize("name", ["lamb", "lion", "adafactor", "adahessian", "novograd"])
    def test_optimizers_of_its_factory(self, name):
        """A sample of the above."""
        self.test_each_optimizer_of_its_factory(name)


SCHEDULERS = {
    "LambdaLR": lambda opt: lrs.LambdaLR(opt, lambda step: min(1.0, step / 3)),
    "MultiplicativeLR": lambda opt: lrs.MultiplicativeLR(opt, lambda _: 0.9),
    "StepLR": lambda opt: lrs.StepLR(opt, 2),
    "MultiStepLR": lambda opt: lrs.MultiStepLR(opt, [1, 2]),
    "ConstantLR": lrs.ConstantLR,
    "LinearLR": lrs.LinearLR,
    "ExponentialLR": lambda opt: lrs.ExponentialLR(opt, 0.9),
    "PolynomialLR": lambda opt: lrs.PolynomialLR(opt, 9),
    "CosineAnnealingLR": lambda opt: lrs.CosineAnnealingLR(opt, 9, eta_min=1e-3),
    "CosineAnnealingWarmRestarts": lambda opt: lrs.CosineAnnealingWarmRestarts(opt, 3),
    "OneCycleLR": lambda opt: lrs.OneCycleLR(opt, 0.1, total_steps=20),
    "CyclicLR": lambda opt: lrs.CyclicLR(opt, 1e-3, 1e-1, cycle_momentum=False),
    "ReduceLROnPlateau": lambda opt: lrs.ReduceLROnPlateau(opt, patience=0),
    "SWALR": lambda opt: SWALR(opt, 0.05, anneal_epochs=2),
    "SequentialLR": lambda opt: lrs.SequentialLR(
        opt, [lrs.LinearLR(opt, 0.1, total_iters=2), lrs.CosineAnnealingLR(opt, 5)], [2]
    ),
    "ChainedScheduler": lambda opt: lrs.ChainedScheduler([lrs.LinearLR(opt), lrs.StepLR(opt, 2)]),
}

TRANSFORMERS = {
    "cosine_with_min_lr": {"min_lr": 1e-4},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-4},
    "warmup_stable_decay": {"num_decay_steps": 4},
}

ALL = {
    **SCHEDULERS,
    **{
        kind.value: functools.partial(
            lambda opt, kind: get_scheduler(
                kind, opt, 3, 12, scheduler_specific_kwargs=TRANSFORMERS.get(kind.value, {})
            ),
            kind=kind,
        )
        for kind in SchedulerType
    },
}


class TestSchedulers:
    def test_every_scheduler_of_torch_is_here(self):
        """One that is added fails here until it has an entry."""
        assert set(lrs.__all__) - {"LRScheduler"} <= SCHEDULERS.keys()

    # In the short run the one and the other class in turn.
    @pytest.mark.parametrize(
        "case", thinned([(at + k, n) for at, n in enumerate(ALL) for k in (0, 1)], 2)
    )
    def test_each_through_ours(self, case):
        """At its start, where warm-ups are at 0, and in its middle; passed to check, or not."""
        at, name = case
        net = network()
        plan = slow_first(net)
        optimizer = (
            plan.optimizer(torch.optim.SGD, momentum=0.9)
            if at % 2
            else plan.optimizer(torch.optim.AdamW)
        )
        scheduler = nnlr.schedule(optimizer, ALL[name])
        for steps in (0, 3):
            train(net, optimizer, scheduler, steps)
            assert "nothing found" == findings(plan, optimizer, scheduler)
            assert "nothing found" == findings(plan, optimizer)

    @pytest.mark.parametrize("name", SCHEDULERS)
    def test_each_on_groups_that_are_alike(self, name):
        """Plain torch, without a plan."""
        net = network()
        optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=0)
        scheduler = SCHEDULERS[name](optimizer)
        for steps in (0, 3):
            train(net, optimizer, scheduler, steps)
            assert "nothing found" == findings(net, optimizer, scheduler)


class TestCourses:
    def test_a_new_schedule_after_a_finished_one(self):
        """It is the course that counts."""
        net = network()
        plan = slow_first(net)
        optimizer = plan.optimizer(torch.optim.AdamW)
        first = nnlr.schedule(optimizer, lrs.LinearLR, total_iters=3, end_factor=0.5)
        train(net, optimizer, first)
        second = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, T_max=5)
        assert "nothing found" == findings(plan, optimizer, second)
        train(net, optimizer, second)
        assert "nothing found" == findings(plan, optimizer, second)

    def test_courses_beside_and_after_each_other_and_by_groups(self):
        """A warm-up beside a plateau; SWA built up front; a bias warm-up; a constant group."""
        net = network()
        plan = slow_first(net, weight_decay=0.0)
        optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
        plateau = nnlr.schedule(optimizer, lrs.ReduceLROnPlateau, patience=0)
        warmup = nnlr.schedule(optimizer, ALL["LambdaLR"], beside=plateau)
        for _ in range(4):
            assert "nothing found" == findings(plan, optimizer, [plateau, warmup])
            train(net, optimizer, warmup, steps=1)
            plateau.step(1.0)
        optimizer = plan.optimizer(torch.optim.SGD)
        cosine = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, T_max=9)
        swa = nnlr.schedule(optimizer, SWALR, swa_lr=0.05, after=cosine)
        for scheduler in (cosine, swa):
            train(net, optimizer, scheduler)
            assert "nothing found" == findings(plan, optimizer, [cosine, swa])
        name = optimizer.param_groups[-1]["name"]
        for rest in (lambda opt: lrs.LinearLR(opt, 0.1, total_iters=5), None):
            optimizer = plan.optimizer(torch.optim.SGD)
            courses = {name: lambda opt: lrs.ExponentialLR(opt, 0.9), "*": rest}
            scheduler = nnlr.schedule(optimizer, courses)
            for steps in (0, 3):
                train(net, optimizer, scheduler, steps)
                assert "nothing found" == findings(plan, optimizer, scheduler)
                assert "nothing found" == findings(plan, optimizer)

    def test_multipliers_edited_by_hand(self):
        """As the schedule's documentation says; the rate follows at the next step."""
        net = network()
        plan = slow_first(net)
        optimizer = plan.optimizer(torch.optim.AdamW)
        scheduler = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, T_max=9)
        train(net, optimizer, scheduler)
        optimizer.param_groups[-1]["lr_mult"] = 0.5
        assert "nothing found" == findings(plan, optimizer, scheduler)
        train(net, optimizer, scheduler)
        assert "nothing found" == findings(plan, optimizer, scheduler)

    def test_rates_by_hand_in_the_ratio_of_the_multipliers(self):
        """A warm-up that a loop writes, before its first step and after."""
        net = network()
        plan = slow_first(net)
        optimizer = plan.optimizer(torch.optim.AdamW)
        for step in range(3):
            for group in optimizer.param_groups:
                group["lr"] = LR * 0.1 * (step + 1) * group["lr_mult"]
            assert "nothing found" == findings(plan, optimizer)
            train(net, optimizer, steps=1)

    def test_functions_of_their_own_for_groups(self):
        """A bias warm-up that falls while the rest rises, with multipliers and without."""
        net = network()
        plan = slow_first(net)
        functions = [lambda step: 1 - 0.05 * min(step, 9), lambda step: min(1.0, 0.1 * (step + 1))]
        optimizer = plan.optimizer(torch.optim.SGD)
        assert "nothing found" == findings(plan, optimizer, lrs.LambdaLR(optimizer, functions))
        groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[2].parameters()}]
        optimizer = torch.optim.SGD(groups, lr=0.01)
        assert "nothing found" == findings(net, optimizer, lrs.LambdaLR(optimizer, functions))

    def test_another_base_for_the_rest_of_the_run(self):
        """``set_base_lr`` is meant."""
        net = network()
        plan = slow_first(net)
        optimizer = plan.optimizer(torch.optim.AdamW)
        scheduler = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, T_max=9)
        train(net, optimizer, scheduler)
        scheduler.set_base_lr(LR / 2)
        assert "nothing found" == findings(plan, optimizer, scheduler)


class TestOptimizers:
    @pytest.mark.parametrize("resumed", [False, True])
    @pytest.mark.parametrize("name", ["adafactor", "adamp", "lamb", "lion", "madgrad"])
    def test_those_of_others_after_a_load(self, name, resumed):
        """Torch adds a default to whatever it loads; no step reads it."""
        net = network()
        plan = slow_first(net)
        if name == "adafactor":
            settings = {"relative_step": False, "scale_parameter": False}
            optimizer = plan.optimizer(Adafactor, **settings)
        else:
            optimizer = plan.optimizer(timm.optim.get_optimizer_class(name, bind_defaults=False))
        train(net, optimizer)
        if resumed:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            assert "differentiable" in optimizer.defaults
        assert "nothing found" == findings(plan, optimizer)

    def test_a_resumed_run(self):
        """Under the code's policy and the checkpoint's; another base, other multipliers."""
        net = network()
        plan = slow_first(net)
        optimizer = plan.optimizer(torch.optim.AdamW)
        scheduler = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, T_max=9)
        train(net, optimizer, scheduler)
        state = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
        for resume in ("code", "checkpoint"):
            for other in (plan, plan.with_rates(lr=LR / 2), slow_first(net, mult=0.5)):
                optimizer = other.optimizer(torch.optim.AdamW, resume=resume)
                scheduler = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, T_max=9)
                with warnings.catch_warnings(action="ignore"):  # of what is not the same
                    optimizer.load_state_dict(copy.deepcopy(state[0]))
                    scheduler.load_state_dict(copy.deepcopy(state[1]))
                assert "nothing found" == findings(other, optimizer, scheduler)
                train(net, optimizer, scheduler)
                assert "nothing found" == findings(other, optimizer, scheduler)

    def test_states_of_peculiar_shapes(self):
        """Factored, by rows, and of a size that depends on values: a step runs on each."""

        class Peculiar(torch.optim.Optimizer):
            def __init__(self, params, lr):
                super().__init__(params, {"lr": lr})

            def step(self, closure=None):
                for group in self.param_groups:
                    for param in group["params"]:
                        state = self.state[param]
                        if not state:
                            state["mask"] = param.detach() > 0
                            state["some"] = torch.zeros(int(state["mask"].sum()))
                            state["row"] = torch.zeros(param.shape[:1])
                        state["some"] += param.grad[state["mask"]]
                        state["row"] += param.grad.flatten(1).mean(1)

        net = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 300, bias=False))
        for width in (8, 10_000):
            net[1] = nn.Linear(8, width, bias=False)
            optimizer = Peculiar(net.parameters(), lr=LR)
            train(net, optimizer)
            assert "nothing found" == findings(net, optimizer)

    def test_what_an_optimizer_counts_in_its_groups_is_no_option(self):
        """It differs between groups, and nobody has set it."""

        class Counting(torch.optim.SGD):
            def __init__(self, params, lr):
                super().__init__(params, lr=lr)
                self.defaults["highest"] = -1.0
                for group in self.param_groups:
                    group["highest"] = -1.0

            def step(self, closure=None):
                super().step(closure)
                for group in self.param_groups:
                    group["highest"] = group["lr"]

        net = network()
        optimizer = slow_first(net).optimizer(Counting)
        train(net, optimizer)
        assert "nothing found" == findings(net, optimizer)

    def test_an_option_whose_effect_is_not_seen_in_a_few_steps_is_read(self):
        """The step looks it up: to drop it would end the run."""

        class Projecting(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    if "rank" in group:
                        assert group["update_gap"] > 0
                super().step(closure)

        net = network()
        options = {"rank": 128, "update_gap": 200}
        groups = [{"params": net[0].parameters(), **options}, {"params": net[2].parameters()}]
        optimizer = Projecting(groups, lr=LR)
        plan = nnlr.resolve(net, nnlr.rule("0.*", options=options), lr=LR, weight_decay=0)
        assert "nothing found" == findings(plan, optimizer)

    def test_two_of_one_model_and_of_two(self):
        """Their groups have the same names; Lightning's monitor takes that."""
        net = network()
        halves = [dict(net[at].named_parameters()) for at in (0, 2)]
        plans = [nnlr.resolve(half, lr=LR, weight_decay=0) for half in halves]
        both = [plan.optimizer(torch.optim.SGD) for plan in plans]
        schedulers = [nnlr.schedule(each, lrs.StepLR, step_size=3) for each in both]
        assert "nothing found" == findings(net, both, schedulers)
        for plan, optimizer in zip(plans, both, strict=True):
            assert "nothing found" == findings(plan, optimizer)

    def test_the_backward_of_one_of_two(self):
        """A discriminator's step leaves the generator without gradients."""
        net = nn.ModuleDict({"generator": nn.Linear(3, 4), "discriminator": nn.Linear(4, 1)})
        both = [torch.optim.Adam(part.parameters(), 2e-4) for part in net.values()]
        net["discriminator"](net["generator"](torch.randn(2, 3)).detach()).sum().backward()
        assert "nothing found" == findings(net, both)

    def test_weights_in_half_precision(self):
        """Where a step goes by the size of the gradient, nobody can say that it vanishes."""
        net = network().bfloat16()
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-5, momentum=0.9)
        assert "nothing found" == findings(net, optimizer)

    def test_weights_in_half_precision_whose_rounding_is_kept(self):
        """Compensated sums move them in time; DeepSpeed keeps a copy in float32."""

        class Compensated(torch.optim.Optimizer):
            def __init__(self, params, lr):
                super().__init__(params, {"lr": lr})

            def step(self, closure=None):
                for group in self.param_groups:
                    for param in group["params"]:
                        lost = self.state[param].get("lost", torch.zeros(param.shape))
                        exact = param.detach().float() + lost - group["lr"] * param.grad.sign()
                        param.detach().copy_(exact)
                        self.state[param]["lost"] = exact - param.detach().float()

        net = network().bfloat16()
        assert "nothing found" == findings(net, Compensated(net.parameters(), lr=1e-5))
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, weight_decay=0)
        assert "nothing found" != findings(net, optimizer)
        assert "nothing found" == findings(net, optimizer, deepspeed={"bf16": {"enabled": True}})


class TestModels:
    @pytest.mark.parametrize(
        "average", [AveragedModel, copy.deepcopy], ids=["AveragedModel", "deepcopy"]
    )
    def test_an_average_of_the_model_inside_the_same_module(self, average):
        """As in a LightningModule: no optimizer should have it."""
        net = nn.ModuleDict({"net": network()})
        net["ema"] = average(net["net"])
        optimizer = torch.optim.SGD(net["net"].parameters(), lr=LR)
        assert "nothing found" == findings(net, optimizer)
        train(net["net"], optimizer)
        assert "nothing found" == findings(net, optimizer)

    def test_a_twin_that_is_no_average_is_missed(self):
        """The second of two critics, or one that is called a target and holds something else."""
        twins = nn.ModuleDict({"q1": nn.Linear(3, 1), "q2": nn.Linear(3, 1)})
        optimizer = torch.optim.SGD(twins["q1"].parameters(), lr=LR)
        assert "untrained-parameter" in findings(twins, optimizer)
        other = nn.ModuleDict({"net": nn.Linear(3, 1), "target_head": nn.Linear(3, 2)})
        optimizer = torch.optim.SGD(other["net"].parameters(), lr=LR)
        assert "untrained-parameter" in findings(other, optimizer)

    def test_lora_behind_its_zeros(self):
        """In the first backward A has a gradient of 0 everywhere."""
        peft = pytest.importorskip("peft")
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        model = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["0"]))
        MODELS[:] = [model]
        plan = nnlr.resolve(model, nnlr.lora_plus(16), lr=LR, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.AdamW)
        model(torch.randn(2, 4)).sum().backward()
        assert "nothing found" == findings(plan, optimizer)
        trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
        assert "nothing found" == findings(model, torch.optim.AdamW(trained, weight_decay=0))

    def test_tied_weights_and_what_is_frozen_on_purpose(self):
        """Neither is missing in the groups."""
        net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
        net[2].weight = net[0].weight
        net[1].bias.requires_grad_(False)
        MODELS[:] = [net]
        plan = nnlr.resolve(net, nnlr.rule("1.weight", lr_mult=0.1), lr=LR, weight_decay=0)
        assert "nothing found" == findings(plan, plan.optimizer(torch.optim.SGD))
        trained = [tensor for tensor in net.parameters() if tensor.requires_grad]
        assert "nothing found" == findings(net, torch.optim.SGD(trained, lr=LR))

    def test_a_gradient_scaler_that_skips_the_first_step(self):
        """The scheduler has gone one step, and the optimizer none."""
        net = network()
        plan = slow_first(net)
        optimizer = plan.optimizer(torch.optim.SGD)
        scheduler = nnlr.schedule(optimizer, lrs.StepLR, step_size=2)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        for scale in (torch.inf, 1.0, 1.0):
            scaler.scale(net(torch.randn(2, 4)).sum() * scale).backward()
            scaler.step(optimizer)
            scaler.update()
            if scale == 1.0:
                scheduler.step()
            assert "nothing found" == findings(plan, optimizer, scheduler)
            optimizer.zero_grad()

    def test_groups_of_one_name_on_different_meshes(self):
        """A group is judged by itself, not with those that are called alike."""

        class Sharded(nn.Parameter):
            device_mesh = "mesh"

        net = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        for key, tensor in list(net[0].named_parameters()):
            setattr(net[0], key, Sharded(tensor.detach()))
        both = [
            torch.optim.SGD([{"params": part.parameters(), "name": "all"}], lr=LR) for part in net
        ]
        assert "mixed-mesh" not in findings(net, both)


def test_settings_that_a_constructor_writes_into_groups_are_no_options():
    """Some are read under conditions only; nobody has set them."""

    class Writing(torch.optim.SGD):
        def __init__(self, params, lr=0.1, resets=(2,)):
            super().__init__(params, lr=lr)
            for group in self.param_groups:
                group.setdefault("resets", resets)

    net = nn.Linear(3, 2)
    plan = nnlr.resolve(net, nnlr.rule("bias", lr_mult=0.5), lr=0.1, weight_decay=0)
    assert [] == [found.kind for found in nnlr.check(plan, plan.optimizer(Writing))]


class TestSeveralAlgorithms:
    """Muon and AdamW, in one optimizer and side by side."""

    def gpt(self):
        torch.manual_seed(0)
        net = nn.ModuleDict(
            {
                "wte": nn.Embedding(64, 32),
                "blocks": nn.ModuleList(
                    nn.ModuleDict({"norm": nn.LayerNorm(32), "fc": nn.Linear(32, 32)})
                    for _ in range(3)
                ),
                "head": nn.Linear(32, 64, bias=False),
            }
        )
        MODELS[:] = [net]
        return net

    def step(self, net, optimizer):
        for param in net.parameters():
            param.grad = torch.randn_like(param)
        optimizer.step()
        optimizer.zero_grad()

    @pytest.mark.parametrize("cls", [torch.optim.Adam, nnlr.optim.AdamW, torch.optim.NAdam])
    def test_a_plan_of_two(self, cls):
        """Before and after steps, and after a copy."""
        net = self.gpt()
        indexer = {"wte.*": 0, **{f"blocks.{k}.*": k + 1 for k in range(3)}, "head.*": 4}
        scheme = nnlr.route("muon", "adamw") * nnlr.no_weight_decay()
        scheme *= nnlr.layer_decay(0.75, indexer)
        lr, wd = {"muon": 0.02, "adamw": 3e-4}, {"muon": 0.1, "adamw": 0.01}
        plan = nnlr.resolve(net, scheme, lr=lr, weight_decay=wd)
        optimizer = plan.optimizer({"muon": torch.optim.Muon, "adamw": cls})
        assert "nothing found" == findings(plan, optimizer)
        self.step(net, optimizer)
        assert "nothing found" == findings(plan, optimizer)
        assert "nothing found" == findings(net, optimizer)

    def test_separate_optimizers(self):
        """Two objects, as most scripts have them; also with the groups of a plan."""
        net = self.gpt()
        lr = {"muon": 0.02, "adamw": 3e-4}
        scheme = nnlr.route("muon", "adamw") * nnlr.no_weight_decay()
        plan = nnlr.resolve(net, scheme, lr=lr, weight_decay=0.1)
        both = []
        for name, cls in (("muon", torch.optim.Muon), ("adamw", torch.optim.AdamW)):
            groups = [group for group in plan.param_groups() if group["algorithm"] == name]
            both.append(cls(groups, lr=lr[name], weight_decay=0.1))
            nnlr.checkpoint.on_load(both[-1], model=net)
        assert "nothing found" == findings(plan, both)
        bare = [torch.optim.Muon([net["blocks"][0]["fc"].weight], lr=0.02, weight_decay=0)]
        others = [p for p in net.parameters() if p is not net["blocks"][0]["fc"].weight]
        bare.append(torch.optim.AdamW(others, lr=3e-4, weight_decay=0))
        assert "nothing found" == findings(net, bare)

    @pytest.mark.parametrize("kind", ["ours", "each", "torch", "keep"])
    def test_schedules(self, kind):
        """By one factor, each by its own, and by torch's own where it multiplies."""
        net = self.gpt()
        scheme = nnlr.route("muon", "adamw") * nnlr.no_weight_decay()
        lr = {"muon": 0.02, "adamw": 3e-4}
        plan = nnlr.resolve(net, scheme, lr=lr, weight_decay=0.1)
        optimizer = plan.optimizer({"muon": torch.optim.Muon, "adamw": torch.optim.AdamW})
        if kind == "each":
            courses = {
                name: lambda proxy, by=by: lrs.ExponentialLR(proxy, by)
                for name, by in (("muon", 0.9), ("adamw", 0.8))
            }
            scheduler = nnlr.schedule(optimizer, courses)
        elif kind == "ours":
            scheduler = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, T_max=9, eta_min=1e-3)
        else:
            scheduler = lrs.CosineAnnealingLR(optimizer, T_max=9)
        if kind == "keep":
            nnlr.keep_ratios(optimizer)
        for _ in range(3):
            assert "nothing found" == findings(plan, optimizer, scheduler)
            self.step(net, optimizer)
            scheduler.step()
        assert "nothing found" == findings(plan, optimizer, scheduler)

    def test_resumed_and_regrouped(self):
        """State by name, in another process as it were, and under another plan."""
        net = self.gpt()
        scheme = nnlr.route("muon", "adamw") * nnlr.no_weight_decay()
        lr = {"muon": 0.02, "adamw": 3e-3}
        classes = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}
        plan = nnlr.resolve(net, scheme, lr=lr, weight_decay=0.1)
        optimizer = plan.optimizer(classes)
        self.step(net, optimizer)
        again = plan.optimizer(classes)
        again.load_state_dict(optimizer.state_dict())
        assert "nothing found" == findings(plan, again)
        more = scheme * nnlr.rule("blocks.1.fc.weight", algorithm="adamw", lr_mult=1.5)
        new = nnlr.resolve(net, more, lr=lr, weight_decay=0.1)
        with pytest.warns(nnlr.NnlrWarning, match="start afresh: blocks.1.fc.weight"):
            nnlr.regroup(again, new)
        assert "nothing found" == findings(new, again)
        self.step(net, again)
        assert "nothing found" == findings(new, again)

    def test_published_rates(self):
        """Those of nanochat: tables at 0.2, the head at 0.004, scalars at 0.5."""
        net = self.gpt()
        net.scale = nn.Parameter(torch.ones(()))
        scheme = nnlr.route("muon", "adamw") * nnlr.no_weight_decay()
        scheme *= nnlr.rule("wte.*", lr=0.2) * nnlr.rule("scale", lr=0.5)
        scheme *= nnlr.rule(nnlr.role("norm", "bias"), lr=0.004)
        lr = {"muon": 0.02, "adamw": 0.004}
        plan = nnlr.resolve(net, scheme, lr=lr, weight_decay=0)
        optimizer = plan.optimizer({"muon": torch.optim.Muon, "adamw": torch.optim.AdamW})
        assert "nothing found" == findings(plan, optimizer)

    @pytest.mark.parametrize("flags", [True, False])
    def test_the_muon_of_timm(self, flags):
        """It hands what is no matrix to its fallback, with and without flags on groups."""
        net = self.gpt()
        tables = [net["wte"].weight, net["head"].weight]
        groups = [{"params": tables, "use_fallback": True}]
        groups.append(
            {"params": [p for p in net["blocks"].parameters() if p.ndim == 2 or not flags]}
        )
        if flags:
            vectors = [p for p in net["blocks"].parameters() if p.ndim < 2]
            groups.append({"params": vectors, "use_muon": False})
        optimizer = timm.optim.Muon(groups, lr=1e-3)
        assert "nothing found" == findings(net, optimizer)
