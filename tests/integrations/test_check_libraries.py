"""nnlr.check on what real trainers and libraries make of optimizers and schedulers."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from tests.frozen_state import state_of
from tests.helpers import network

LR = 1e-3


def layered(model, mult=0.01, **settings):
    """A plan by which the first layer is slow, and its optimizer."""
    plan = nnlr.resolve(model, nnlr.rule("0.*", lr_mult=mult), lr=LR, weight_decay=0)
    return plan, plan.optimizer(torch.optim.SGD, **settings)


def kinds(*args, **kwargs):
    """The kinds of what is found; nothing may change by looking."""
    before = state_of(args, kwargs)
    found = [finding.kind for finding in nnlr.check(*args, **kwargs)]
    assert before == state_of(args, kwargs)
    return found


class TestPeft:
    @pytest.fixture
    def adapted(self):
        peft = pytest.importorskip("peft")
        return peft.get_peft_model(
            network(4, 6, 1), peft.LoraConfig(target_modules=["0", "2"], r=2)
        )

    def test_after_a_merge_the_optimizer_trains_nothing_of_the_model(self, adapted):
        """0 of its parameters are left in the model, and it would step on."""
        plan = nnlr.resolve(adapted, lr=LR, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.AdamW)
        assert [] == kinds(plan, optimizer)
        merged = adapted.merge_and_unload()
        (found,) = nnlr.check(merged, optimizer)
        assert "stale-parameter" == found.kind
        assert "4 of 4 parameters of the optimizer are not in the model" in found.cause
        assert "0.lora_A.default.weight" in " ".join(found.names)

    def test_the_zeros_of_a_fresh_adapter_are_none(self, adapted):
        """A's gradient is 0 in the first step, because B is; that is how adapters begin."""
        optimizer = nnlr.resolve(adapted, lr=LR, weight_decay=0).optimizer(torch.optim.SGD)
        for is_first in (True, False):
            optimizer.zero_grad()
            adapted(torch.ones(2, 4)).square().sum().backward()
            down = [p for name, p in adapted.named_parameters() if "lora_A" in name]
            assert is_first == (not any(each.grad.any() for each in down))
            assert [] == kinds(adapted, optimizer)
            optimizer.step()

    def test_an_adapter_that_another_took_the_place_of(self, adapted):
        """set_adapter switches gradients: one trains in no group, one is frozen in one."""
        peft = pytest.importorskip("peft")
        optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=LR)
        assert [] == kinds(adapted, optimizer)
        adapted.add_adapter("second", peft.LoraConfig(target_modules=["0"], r=2))
        adapted.set_adapter("second")
        assert ["untrained-parameter", "frozen-in-group"] == kinds(adapted, optimizer)


class TestTimm:
    @pytest.fixture
    def decayed(self):
        """An optimizer with timm's layer decay, and its model."""
        timm = pytest.importorskip("timm")
        optim = pytest.importorskip("timm.optim")
        model = timm.create_model(
            "vit_tiny_patch16_224", depth=2, embed_dim=12, num_heads=2, img_size=32
        )
        made = optim.create_optimizer_v2(model, opt="sgd", lr=LR, weight_decay=0, layer_decay=0.5)
        return model, made

    @pytest.fixture
    def schedulers(self):
        pytest.importorskip("timm")
        from timm import scheduler

        return scheduler

    def test_layer_decay_that_nobody_reads(self, decayed):
        """lr_scale with torch's scheduler: every layer at the base rate."""
        model, optimizer = decayed
        assert ["lr-scale-alone"] == kinds(model, optimizer)
        scheduler = lrs.CosineAnnealingLR(optimizer, 9)
        assert ["lr-scale-unread"] == kinds(model, optimizer, scheduler)
        optimizer.step()
        scheduler.step()
        assert 1 == len({group["lr"] for group in optimizer.param_groups})

    @pytest.mark.parametrize("in_epochs", [True, False])
    def test_timms_own_scheduler_reads_it(self, decayed, schedulers, in_epochs):
        """With a floor, in epochs or in updates."""
        model, optimizer = decayed
        scheduler = schedulers.CosineLRScheduler(
            optimizer, 30, lr_min=1e-5, warmup_t=3, t_in_epochs=in_epochs
        )
        assert [] == kinds(model, optimizer, scheduler)

    @pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated:FutureWarning")
    def test_timms_plateau_forgets_it(self, decayed, schedulers):
        """After its warmup it clamps every group alike."""
        model, optimizer = decayed
        scheduler = schedulers.PlateauLRScheduler(optimizer, patience_t=2, lr_min=1e-4)
        assert ["schedule-drift"] == kinds(model, optimizer, scheduler)

    def test_a_multiplied_rate_beside_it_is_squared(self, schedulers):
        """By timm's scheduler, as the rates show."""
        model = network(4, 6, 1)
        groups = [
            {"params": list(model[2].parameters()), "lr": LR, "lr_scale": 1.0},
            {"params": list(model[0].parameters()), "lr": LR / 2, "lr_scale": 0.5},
        ]
        optimizer = torch.optim.SGD(groups, lr=LR)
        scheduler = schedulers.CosineLRScheduler(optimizer, 30)
        assert "squared-rate" in kinds(model, optimizer, scheduler)
        assert "schedule-drift" in kinds(model, optimizer, scheduler)
        assert pytest.approx([LR, LR / 4]) == [g["lr"] for g in optimizer.param_groups]

    @pytest.mark.parametrize(("lr_min", "lost"), [(0.0, False), (1e-4, True)])
    def test_its_floor_on_a_plans_groups(self, schedulers, lr_min, lost):
        """It has no lr_scale to go by there, and its floor is absolute."""
        model = network(4, 6, 1)
        plan, optimizer = layered(model)
        scheduler = schedulers.CosineLRScheduler(optimizer, 10**6, lr_min=lr_min)
        found = ["schedule-drift"] if lost else []
        assert found == kinds(plan, optimizer, scheduler)

    @pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated:FutureWarning")
    def test_a_scheduler_that_turns_to_the_metric_as_it_likes(self, schedulers):
        """PlateauLRScheduler on a plan's groups is run with a bad metric."""
        model = network(4, 6, 1)
        plan, optimizer = layered(model)
        scheduler = schedulers.PlateauLRScheduler(optimizer, patience_t=1, lr_min=1e-4)
        assert ["schedule-drift"] == kinds(plan, optimizer, scheduler)

    def test_lookahead_runs_no_hooks(self, schedulers):
        """It has dicts for them, and its step is not torch's: keep_ratios would never act."""
        from timm.optim import Lookahead

        model = network(4, 6, 1)
        plan, optimizer = layered(model)
        ahead = Lookahead(optimizer)
        seen = []
        ahead.register_step_pre_hook(lambda *_: seen.append(1))
        ahead.step()
        assert [] == seen
        assert "no-hooks" in kinds(plan, ahead)
        with pytest.raises(nnlr.ConfigError, match="Lookahead runs no step hooks"):
            nnlr.keep_ratios(ahead)

    def test_a_schedule_of_lookahead_is_not_called_early(self, schedulers):
        """Nobody tells it of steps, so it does not ask for any."""
        from timm.optim import Lookahead

        _, optimizer = layered(network(4, 6, 1))
        ahead = Lookahead(optimizer)
        scheduler = nnlr.schedule(ahead, lrs.StepLR, step_size=1)
        ahead.step()
        scheduler.step()  # a warning would be an error
        assert pytest.approx([LR / 10, LR / 1000]) == scheduler.get_last_lr()

    @pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
    @pytest.mark.no_cover
    @pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.full)])
    def test_every_optimizer_of_timm_reads_its_rates(self, step):
        """Those that run here; Adahessian wants second derivatives, and gets them."""
        optim = pytest.importorskip("timm.optim")
        names = optim.list_optimizers(exclude_filters=["bnb*", "fused*", "apex*"])[::step]
        seen = {}
        for name in names:
            model = {key: nn.Parameter(torch.randn(4, 4)) for key in "ab"}
            groups = [
                {"params": [each], "lr": LR * mult}
                for each, mult in zip(model.values(), (1, 0.1), strict=True)
            ]
            optimizer = optim.create_optimizer_v2(groups, opt=name, lr=LR)
            seen[name] = [
                found.kind
                for found in nnlr.check(model, optimizer)
                if found.kind in {"ignores-rate", "refuses-rates", "unprobed"}
            ]
        assert len(seen) > 50 / step
        assert {} == {k: v for k, v in seen.items() if v}


def kept_by_transformers():
    """For every scheduler type of transformers whether it keeps ratios."""
    transformers = pytest.importorskip("transformers")
    lost = {"reduce_lr_on_plateau", "greedy"}
    return {kind.value: kind.value not in lost for kind in transformers.SchedulerType}


class TestTransformers:
    def test_every_scheduler_type(self):
        """Built by get_scheduler as the Trainer builds it, for a long run."""
        transformers = pytest.importorskip("transformers")
        special = {
            "cosine_with_min_lr": {"min_lr": 1e-4},
            "cosine_warmup_with_min_lr": {"min_lr": 1e-4},
            "warmup_stable_decay": {"num_decay_steps": 5000},
            "reduce_lr_on_plateau": {"min_lr": 1e-4},
        }
        for name, keeps in kept_by_transformers().items():
            model = network(4, 6, 1)
            plan, optimizer = layered(model)
            scheduler = transformers.get_scheduler(
                name,
                optimizer,
                num_warmup_steps=100,
                num_training_steps=50_000,
                scheduler_specific_kwargs=special.get(name, {}),
            )
            found = kinds(plan, optimizer, scheduler)
            assert ([] if keeps else ["schedule-drift"]) == found, name

    def test_a_relative_step_does_not_read_rates(self):
        """Transformers' Adafactor by default; not with its rate switched on."""
        adafactor = pytest.importorskip("transformers").Adafactor
        model = network(4, 6, 1)
        for settings, found in (
            ({}, ["ignores-rate"]),
            ({"lr": 0.1, "relative_step": False}, []),
        ):
            groups = [
                {"params": list(model[0].parameters()), "lr": 0.1},
                {"params": list(model[2].parameters()), "lr": 0.01},
            ]
            assert found == kinds(model, adafactor(groups, **settings))

    def test_an_optimizer_section_flattens_the_groups(self, monkeypatch):
        """The function by which Trainer asks for optimizers under DeepSpeed, itself."""
        deepspeed = pytest.importorskip("transformers.integrations.deepspeed")
        placeholders = pytest.importorskip("accelerate.utils.deepspeed")
        utils = pytest.importorskip("accelerate.utils")
        for name in ("DummyOptim", "DummyScheduler"):  # there if DeepSpeed is
            given = getattr(placeholders, name)
            monkeypatch.setattr(utils, name, given, raising=False)
        model = network(4, 6, 1)
        plan, optimizer = layered(model)
        sections = {"optimizer": {"type": "AdamW", "params": {"lr": LR}}}
        for config in (sections, {}):
            made, _ = deepspeed.deepspeed_optim_sched(
                SimpleNamespace(create_optimizer=lambda: optimizer),
                SimpleNamespace(config=dict(config), is_offload=lambda: False),
                None,
                10,
                list(model.parameters()),
            )
            found = kinds(plan, optimizer, deepspeed=config)
            if config:
                assert all(isinstance(each, torch.Tensor) for each in made.params)
                assert ["deepspeed-optimizer"] == found
                with pytest.raises(nnlr.NnlrError, match="placeholder such as DummyOptim"):
                    nnlr.check(plan, made)
            else:
                assert made is optimizer
                assert [] == found


class TestAccelerate:
    @pytest.mark.parametrize(("floor", "found"), [(0, []), (1e-4, ["schedule-drift"])])
    def test_what_was_prepared_is_looked_through(self, floor, found):
        """The model, the optimizer and the scheduler as prepare gives them back."""
        accelerate = pytest.importorskip("accelerate")
        accelerator = accelerate.Accelerator(cpu=True)
        model = network(4, 6, 1)
        plan, optimizer = layered(model)
        scheduler = lrs.CosineAnnealingLR(optimizer, 20, eta_min=floor)
        prepared = accelerator.prepare(model, optimizer, scheduler)
        assert found == kinds(plan, *prepared[1:])
        assert found == kinds(*prepared)


class TestLightning:
    @pytest.mark.parametrize(("floor", "found"), [(0, []), (1e-4, ["schedule-drift"])])
    def test_what_it_keeps_is_looked_through(self, floor, found):
        """Its optimizers, and schedulers as configure_optimizers returns them."""
        core = pytest.importorskip("lightning.pytorch.core.optimizer")
        model = network(4, 6, 1)
        plan, optimizer = layered(model)
        scheduler = lrs.CosineAnnealingLR(optimizer, 20, eta_min=floor)
        wrapped = core.LightningOptimizer(optimizer)
        entry = {"scheduler": scheduler, "interval": "step"}
        assert found == kinds(plan, wrapped, entry)
        config = SimpleNamespace(scheduler=scheduler, interval="step")
        assert found == kinds(plan, wrapped, [config])
