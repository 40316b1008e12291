"""nnlr.integrations.lightning in a real Trainer, against loops by hand."""

import runpy
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.data import DataLoader

import nnlr
from tests.helpers import same_weights
from tests.integrations import algorithms

lightning = pytest.importorskip("lightning")
callbacks = pytest.importorskip("lightning.pytorch.callbacks")

from nnlr.integrations.lightning import LayerMonitor, RateMonitor, configure  # noqa: E402 - after the skip

# Lightning's advice on workers, loggers and more.
pytestmark = pytest.mark.filterwarnings("ignore")

BASE, BATCHES = 1e-2, 6
SCORES = [3.0, 2.0, 2.5, 1.0, 1.5, 1.25]  # worse after epochs 3, 5 and 6
SCHEME = nnlr.rule("body.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)


class Net(nn.Module):
    """A stem, a body and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body, self.head = (nn.Linear(4, n) for n in (4, 4, 1))

    def forward(self, x):
        return self.head(torch.tanh(self.body(torch.tanh(self.stem(x)))))


def batches():
    """Six batches of two rows; the loss pulls the output to the sum."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2 * BATCHES, 4, generator=generator)


def loader():
    return DataLoader(batches(), batch_size=2)


def loss_of(net, x):
    return (net(x).squeeze(-1) - x.sum(-1)).square().mean()


class Module(lightning.LightningModule):
    """The network under Lightning; what tests vary comes as arguments."""

    def __init__(self, scheme=SCHEME, cls=torch.optim.AdamW, **settings):
        super().__init__()
        self.net, self.lr, self.rates = Net(), BASE, []
        self.scheme, self.cls, self.settings = scheme, cls, settings

    def training_step(self, batch, _):
        loss = loss_of(self.net, batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, _):
        self.log("score", SCORES[self.current_epoch])

    def configure_optimizers(self):
        plan = nnlr.resolve(self.net, self.scheme, lr=self.lr, weight_decay=0.1)
        return configure(self, plan, self.cls, **self.settings)

    def on_before_optimizer_step(self, optimizer):
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])


def trainer(epochs=2, **settings):
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        **{
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **settings,
        },
    )


def base_rate(make, base=BASE):
    """A scheduler on one rate of its own; no line of nnlr."""
    one = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=base)
    scheduler = make(one)
    one.step()  # in the order that torch asks for
    return one.param_groups[0], scheduler


def groups_by_hand(net):
    """What SCHEME means, written as one would without nnlr: (group, multiplier)."""
    body = [net.body]
    rest = [net.stem, net.head]
    return [
        ({"params": [layer.weight for layer in rest], "weight_decay": 0.1}, 1.0),
        ({"params": [layer.bias for layer in rest], "weight_decay": 0.0}, 1.0),
        ({"params": [layer.weight for layer in body], "weight_decay": 0.1}, 0.1),
        ({"params": [layer.bias for layer in body], "weight_decay": 0.0}, 0.1),
    ]


def by_hand(
    make=None,
    *,
    epochs=2,
    per_epoch=False,
    every=1,
    clip=None,
    metric=False,
    frozen=None,
    before_step=None,
    after_step=None,
):
    """The loop without Lightning and without nnlr."""
    net = Net()
    if frozen:
        net.get_submodule(frozen).requires_grad_(False)
    groups, mults = zip(*groups_by_hand(net), strict=True)
    optimizer = torch.optim.AdamW(groups, lr=BASE)
    now, scheduler = base_rate(make or (lambda o: lrs.LambdaLR(o, lambda _: 1.0)))
    taken = 0
    for epoch in range(epochs):
        for at, x in enumerate(loader(), start=1):
            if before_step:
                before_step(net, taken)
            (loss_of(net, x) / every).backward()
            if at % every:
                continue
            if clip:
                clipped = (p for group in groups for p in group["params"])
                nn.utils.clip_grad_norm_(clipped, clip)
            for group, mult in zip(optimizer.param_groups, mults, strict=True):
                group["lr"] = now["lr"] * mult
                group["betas"] = now["betas"]
            optimizer.step()
            optimizer.zero_grad()
            taken += 1
            if after_step:
                after_step(net)
            if not per_epoch:
                scheduler.step()
        if per_epoch:
            scheduler.step(*([SCORES[epoch]] if metric else []))
    return net


def floor(opt):
    return lrs.CosineAnnealingLR(opt, T_max=2 * BATCHES, eta_min=5e-3)


def peak(opt):
    return lrs.OneCycleLR(opt, max_lr=5e-2, total_steps=2 * BATCHES + 1)


def warmup_then_floor(opt):
    parts = [lrs.LinearLR(opt, 0.1, total_iters=4), floor(opt)]
    return lrs.SequentialLR(opt, parts, milestones=[4])


def plateau(opt):
    return lrs.ReduceLROnPlateau(opt, patience=0, factor=0.3, min_lr=2e-3)


class TestMoves:
    """Multipliers that move: configure attaches by itself."""

    SCHEME = nnlr.rule("body.*", lr_mult=0.1).at(lambda t: 1 - t) * nnlr.rule("*.bias", wd_mult=0)

    @pytest.mark.parametrize("every", [1, 2])
    def test_fit_and_resume(self, tmp_path, every):
        """The length of the run is the trainer's; the second half equals that of the whole run."""
        settings = {"schedule": lambda opt: lrs.ConstantLR(opt, 1.0), "interval": "step"}
        whole, half, resumed = (Module(self.SCHEME, **settings) for _ in "123")
        accumulate = {"accumulate_grad_batches": every}
        trainer(**accumulate).fit(whole, loader())
        steps = 2 * BATCHES // every
        wanted = [0.1 * BASE * (1 - step / steps) for step in range(steps)]
        assert [rates[2] for rates in whole.rates] == pytest.approx(wanted)
        assert {rates[0] for rates in whole.rates} == {BASE}
        first = trainer(max_steps=steps // 2, **accumulate)
        half.settings["total_steps"] = steps
        first.fit(half, loader())
        first.save_checkpoint(tmp_path / "half.ckpt")
        trainer(**accumulate).fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt")
        assert resumed.rates == whole.rates[steps // 2 :]
        assert same_weights(whole.net, resumed.net)

    def test_without_a_trainer_the_length_is_passed(self):
        """configure_optimizers may be called by hand."""
        module = Module(self.SCHEME, total_steps=4)
        optimizer = module.configure_optimizers()["optimizer"]
        optimizer.step()
        assert optimizer.param_groups[-1]["lr"] == pytest.approx(0.1 * BASE * 3 / 4)
        with pytest.raises(nnlr.ConfigError, match="Say how long the run is"):
            Module(self.SCHEME).configure_optimizers()

    def test_measured_multipliers_see_the_gradients_of_the_step(self):
        """Lightning computes them in a closure, within the step."""

        class Norm(nnlr.Move):
            """The norm of the gradient."""

            def measures(self, now, units):
                """At every step."""
                return True

            def measure(self, now, units):
                """Note it."""
                units[0].memory["norm"] = float(units[0].tensors[0].grad.norm())

            def due(self, now, units):
                """Only after that."""
                return False

            def mults(self, now, units):
                """It is the multiplier."""
                return [units[0].memory.get("norm", 1.0)]

        class Watching(Module):
            def on_before_zero_grad(self, optimizer):
                if (gradient := self.net.body.weight.grad) is not None:
                    due = BASE * float(gradient.norm())
                    self.rates.append((optimizer.param_groups[-1]["lr"], due))

            def on_before_optimizer_step(self, optimizer):
                pass

        module = Watching(nnlr.rule("body.*").at(Norm()))
        trainer().fit(module, loader())
        assert len(module.rates) == 2 * BATCHES - 1
        assert all(rate == pytest.approx(due) for rate, due in module.rates)

    def test_locks_inside_a_wrapper_that_waits_for_all_gradients_are_refused(self):
        """Lightning has wrapped the module by then, and the strategy is named by the fix."""

        class Locking(nnlr.Move):
            """It locks in the first steps."""

            locks = True

            def mults(self, now, units):
                """0, then 1."""
                return [float(now.step > 2)] * len(units)

        wrapper = DistributedDataParallel.__new__(DistributedDataParallel)
        nn.Module.__init__(wrapper)
        module = Module(nnlr.rule("body.*").at(Locking()))
        wrapper.module, wrapper.static_graph = module, False
        strategy = SimpleNamespace(model=wrapper)
        run = SimpleNamespace(strategy=strategy, callbacks=[], estimated_stepping_batches=-1)
        module._trainer = run
        wrapper.find_unused_parameters = False
        with pytest.raises(nnlr.ConfigError, match="find_unused_parameters=True"):
            module.configure_optimizers()
        wrapper.find_unused_parameters = True
        module.configure_optimizers()
        assert not module.net.body.weight.requires_grad


class TestConfigure:
    @pytest.mark.parametrize("make", [floor, peak, warmup_then_floor])
    def test_fit_and_resume_equal_the_loop_by_hand(self, tmp_path, make):
        """Floors, peaks and chains, stepped per step; interrupted after one epoch."""
        whole, half, resumed = (Module(schedule=make, interval="step") for _ in "123")
        expected = by_hand(make)
        trainer().fit(whole, loader())
        assert same_weights(expected, whole.net)
        assert not same_weights(Net(), whole.net)
        first = trainer(epochs=1)
        first.fit(half, loader())
        first.save_checkpoint(tmp_path / "half.ckpt")
        trainer().fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt")
        assert same_weights(expected, resumed.net)

    def test_the_trainer_knows_the_number_of_steps(self):
        """The function of an optimizer is called when the trainer can be asked."""

        class Asking(Module):
            def configure_optimizers(self):
                plan = nnlr.resolve(self.net, SCHEME, lr=self.lr, weight_decay=0.1)
                return configure(
                    self,
                    plan,
                    torch.optim.AdamW,
                    interval="step",
                    schedule=lambda opt: lrs.OneCycleLR(
                        opt, 5e-2, self.trainer.estimated_stepping_batches + 1
                    ),
                )

        module = Asking()
        trainer().fit(module, loader())
        assert same_weights(by_hand(peak), module.net)

    def test_constant_rates(self):
        """Without a schedule there is an optimizer and nothing else."""
        module = Module()
        trainer().fit(module, loader())
        assert same_weights(by_hand(), module.net)

    def test_a_plateau_follows_its_metric(self, tmp_path):
        """Per epoch, on a validation metric; resumed from a checkpoint of after the fit."""
        settings = {"schedule": plateau, "interval": "epoch", "monitor": "score"}
        whole, half, resumed = (Module(**settings) for _ in range(3))
        expected = by_hand(plateau, epochs=6, per_epoch=True, metric=True)
        trainer(6).fit(whole, loader(), loader())
        assert same_weights(expected, whole.net)
        heads = [head for head, *_ in whole.rates[::BATCHES]]
        assert [BASE, BASE, BASE, 3e-3, 3e-3, 2e-3] == pytest.approx(heads)
        first = trainer(3)
        first.fit(half, loader(), loader())
        first.save_checkpoint(tmp_path / "half.ckpt")
        trainer(6).fit(resumed, loader(), loader(), ckpt_path=tmp_path / "half.ckpt")
        assert same_weights(expected, resumed.net)

    def test_weight_decay_is_scheduled_too(self):
        """The second function schedules the base weight decay."""
        module = Module(
            schedule=floor,
            interval="step",
            decay_schedule=lambda opt: lrs.LinearLR(opt, 1.0, 0.5, total_iters=12),
        )
        run = trainer()
        run.fit(module, loader())
        decays = {group["weight_decay"] for group in run.optimizers[0].param_groups}
        assert [0.0, 0.05] == pytest.approx(sorted(decays))

    def test_resuming_with_another_scheme(self, tmp_path):
        """Two groups were saved, six go on: state by name, new multipliers, same schedule."""
        first = nnlr.rule("body.*", lr_mult=0.1)
        second = SCHEME * nnlr.rule("head.*", lr_mult=2)
        settings = {"schedule": floor, "interval": "step"}
        half, resumed = (Module(scheme, **settings) for scheme in (first, second))
        run = trainer(epochs=1)
        run.fit(half, loader())
        assert 2 == len(run.optimizers[0].param_groups)
        run.save_checkpoint(tmp_path / "half.ckpt")
        run = trainer()
        with pytest.warns(nnlr.NnlrWarning, match="lr_mult is 1 in .* and 2 in the code"):
            run.fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt")
        assert 6 == len(run.optimizers[0].param_groups)

        net = Net()
        named = dict(net.named_parameters())
        optimizer = torch.optim.AdamW([{"params": [p]} for p in named.values()])
        now, scheduler = base_rate(floor)
        for epoch in range(2):
            for x in loader():
                loss_of(net, x).backward()
                for name, group in zip(named, optimizer.param_groups, strict=True):
                    mult = 0.1 if name.startswith("body") else 1.0
                    group["weight_decay"] = 0.1
                    if epoch and name.startswith("head"):
                        mult = 2.0
                    if epoch and name.endswith("bias"):
                        group["weight_decay"] = 0.0
                    group["lr"] = now["lr"] * mult
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
        assert same_weights(net, resumed.net)

    def test_accumulation_and_clipping(self):
        """Three batches to a step, each step's gradient cut to a norm."""
        module = Module(schedule=lambda opt: lrs.CosineAnnealingLR(opt, 4, 5e-3), interval="step")
        settings = {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5}
        trainer(**settings).fit(module, loader())
        expected = by_hand(lambda opt: lrs.CosineAnnealingLR(opt, 4, 5e-3), every=3, clip=0.5)
        assert same_weights(expected, module.net)

    def test_locked_parameters_do_not_count_in_the_norm(self):
        """Clipping cuts the same gradient as in a network that never had them trainable."""
        module = Module(nnlr.freeze("stem.*") * SCHEME)
        trainer(gradient_clip_val=0.05).fit(module, loader())
        expected = by_hand(clip=0.05, frozen="stem")
        assert same_weights(expected, module.net)
        assert not same_weights(by_hand(clip=0.05), module.net)

    def test_the_plan_may_be_of_the_whole_module(self):
        """Then names begin with the attribute, and `within` leaves them out again."""
        module = Module()
        whole = nnlr.resolve(module, SCHEME.within("net"), lr=BASE, weight_decay=0.1)
        part = nnlr.resolve(module.net, SCHEME, lr=BASE, weight_decay=0.1)
        assert [f"net.{row.name}" for row in part] == [row.name for row in whole]
        assert [row.lr for row in part] == [row.lr for row in whole]
        module.configure_optimizers = lambda: configure(module, whole, torch.optim.AdamW)
        trainer().fit(module, loader())
        assert same_weights(by_hand(), module.net)

    def test_learning_rate_monitor_shows_the_groups(self):
        """Lightning's own callback names curves after the plan's groups."""
        module = Module(schedule=floor, interval="step")
        monitor = callbacks.LearningRateMonitor()
        trainer(logger=Remember(), log_every_n_steps=1, callbacks=[monitor]).fit(module, loader())
        plan = nnlr.resolve(module.net, SCHEME, lr=BASE, weight_decay=0.1)
        assert [f"lr-AdamW/{group.name}" for group in plan.groups] == list(monitor.lrs)
        assert module.rates == [list(rates) for rates in zip(*monitor.lrs.values(), strict=True)]

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"schedule": floor}, "Say when the schedule is stepped: interval='step'"),
            ({"interval": "step"}, "interval= needs a schedule="),
            ({"monitor": "score"}, "monitor= needs a schedule="),
            ({"frequency": 2}, "frequency= needs a schedule="),
            ({"schedule": floor, "interval": "batch"}, "follows .*; got 'batch'"),
            ({"schedule": floor, "interval": "step", "frequency": 0}, ">= 1"),
            ({"schedule": floor, "interval": "step", "frequency": "1"}, ">= 1"),
            ({"schedule": floor, "interval": "step", "frequency": 0.5}, ">= 1"),
            ({"schedule": floor, "interval": "step", "frequency": True}, ">= 1"),
            ({"decay_schedule": floor}, "decay_schedule= needs a schedule="),
            ({"betas": (0.9, 0.9), "nesterov": True}, "no argument 'nesterov'"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, settings, said):
        """By nnlr, where the call is made."""
        with pytest.raises(nnlr.NnlrError, match=said):
            Module(**settings).configure_optimizers()

    @pytest.mark.parametrize("wrong", [SCHEME, nn.Linear(1, 1), torch.optim.AdamW])
    def test_what_is_no_plan_is_refused(self, wrong):
        """A scheme in its place, or arguments in another order; the error has the line."""
        with pytest.raises(nnlr.NnlrError, match=r"needs a plan, got .*nnlr\.resolve\("):
            configure(Module(), wrong, torch.optim.AdamW)

    def test_the_plan_of_another_network_is_refused(self):
        """It would train what nobody looks at; nothing is locked there."""
        other = Net()
        scheme = nnlr.freeze("stem.*")
        plan = nnlr.resolve(other, scheme, lr=BASE, weight_decay=0.1)
        said = r"The plan is of Net, whose stem.weight, .*not in the Module that is trained"
        with pytest.raises(nnlr.NnlrError, match=said):
            configure(Module(), plan, torch.optim.AdamW)
        assert all(parameter.requires_grad for parameter in other.parameters())
        module = Module()
        made = configure(module, plan, torch.optim.AdamW, model=module.net)
        held = {id(p) for g in made["optimizer"].param_groups for p in g["params"]}
        assert held == {id(p) for p in module.parameters() if p.requires_grad}

    def test_locking_inside_ddp_is_refused(self, tmp_path):
        """Lightning wraps before it asks for optimizers; the error says where to lock."""
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
        try:
            module = Module(nnlr.freeze("stem.*"))
            strategy = SimpleNamespace(model=DistributedDataParallel(module))
            module.trainer = SimpleNamespace(strategy=strategy)
            with pytest.raises(nnlr.NnlrError, match=r"stem.*inside Distr.*def setup"):
                module.configure_optimizers()
            assert all(parameter.requires_grad for parameter in module.parameters())
            module.settings = {"locked": "keep"}
            assert {0.0, BASE} == {
                group["lr"] for group in module.configure_optimizers()["optimizer"].param_groups
            }
        finally:
            dist.destroy_process_group()


class Remember(lightning.pytorch.loggers.logger.DummyLogger):
    """A logger that keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def log_metrics(self, metrics, step=None):
        self.told.append(metrics)


class TestSeveralAlgorithms:
    """Automatic optimization takes one optimizer; it may be of several algorithms."""

    def test_fit_and_resume_equal_two_optimizers(self, tmp_path):
        """Clipped by the trainer, scheduled per step, interrupted after one epoch."""

        class Routed(Module):
            def configure_optimizers(self):
                plan = algorithms.plan_of(self.net)
                return configure(self, plan, algorithms.CLASSES, schedule=halved, interval="step")

        def halved(opt):
            return lrs.LinearLR(opt, 1.0, 0.5, total_iters=2 * BATCHES)

        expected = Net()
        optimizers = algorithms.several_of(expected, ["stem.weight", "body.weight"])
        schedulers = [halved(optimizer) for optimizer in optimizers]
        for _ in range(2):
            for x in loader():
                loss_of(expected, x).backward()
                nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
                algorithms.step_all(optimizers, schedulers)
        whole, half, resumed = Routed(), Routed(), Routed()
        trainer(gradient_clip_val=0.5).fit(whole, loader())
        assert same_weights(expected, whole.net)
        first = trainer(epochs=1, gradient_clip_val=0.5)
        first.fit(half, loader())
        first.save_checkpoint(tmp_path / "half.ckpt")
        again = trainer(gradient_clip_val=0.5)
        again.fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt")
        assert same_weights(expected, resumed.net)


class TestManual:
    def test_two_optimizers_two_plans(self):
        """As for a GAN: each has its own plan, and Lightning gets a list of two."""

        class Two(Module):
            automatic_optimization = False

            def __init__(self):
                super().__init__()
                self.other = Net()

            def training_step(self, batch, _):
                schedulers = self.lr_schedulers()
                for net, optimizer, scheduler in zip(
                    (self.net, self.other), self.optimizers(), schedulers, strict=True
                ):
                    optimizer.zero_grad()
                    self.manual_backward(loss_of(net, batch))
                    optimizer.step()
                    scheduler.step()

            def configure_optimizers(self):
                return [
                    configure(
                        self,
                        nnlr.resolve(net, SCHEME, lr=BASE, weight_decay=0.1),
                        torch.optim.AdamW,
                        schedule=make,
                        interval="step",
                    )
                    for net, make in ((self.net, floor), (self.other, peak))
                ]

        module, logger = Two(), Remember()
        settings = {"logger": logger, "log_every_n_steps": 1}
        trainer(callbacks=[RateMonitor()], **settings).fit(module, loader())
        assert same_weights(by_hand(floor), module.net)
        assert same_weights(by_hand(peak), module.other)
        logged = [row for row in logger.told if "optimizer1/lr" in row]
        assert 2 * BATCHES == len(logged)
        assert BASE == pytest.approx(logged[0]["optimizer0/lr"])
        assert 5e-2 / 25 == pytest.approx(logged[0]["optimizer1/lr"])
        assert 5e-2 / 250 == pytest.approx(logged[0]["optimizer1/lr_min"])


class TestRateMonitor:
    def test_it_logs_what_each_step_uses(self):
        """Reference, least and largest; one row for each step."""
        module, logger = Module(schedule=floor, interval="step"), Remember()
        settings = {"logger": logger, "log_every_n_steps": 1}
        run = trainer(callbacks=[RateMonitor()], **settings)
        run.fit(module, loader())
        logged = [row for row in logger.told if "lr" in row]
        expected = [
            {"lr": rates[0], "lr_min": min(rates), "lr_max": max(rates)} for rates in module.rates
        ]
        assert 2 * BATCHES == len(expected)
        for want, got in zip(expected, logged, strict=True):
            assert want == pytest.approx({name: got[name] for name in want})
        assert 0.1 == pytest.approx(expected[0]["lr_min"] / expected[0]["lr"])
        assert expected[-1]["lr"] == pytest.approx(run.callback_metrics["lr"].item())


class TestLayerMonitor:
    def test_loggers_have_what_each_step_does(self):
        """The monitor's readings, by the plan of `configure`; it ends with the training."""
        module, logger, watch = Module(), Remember(), LayerMonitor(every=2)
        run = trainer(callbacks=[watch], logger=logger)
        run.fit(module, loader())
        (monitor,) = watch.monitors
        steps = [reading.step for reading in monitor.history]
        assert [1, *range(2, 2 * BATCHES + 1, 2)] == steps
        logged = [row for row in logger.told if "update_ratio/body" in row]
        assert [reading.scalars() for reading in monitor.history] == logged
        assert all(reading.layers[0].gradient for reading in monitor.history)
        assert () == monitor.findings
        assert not run.optimizers[0]._optimizer_step_pre_hooks

    def test_an_optimizer_of_another_hand_needs_the_plan(self):
        """With it all is well, and `log` takes the place of the loggers."""

        class ByHand(Module):
            def configure_optimizers(self):
                self.plan = nnlr.resolve(self.net, self.scheme, lr=self.lr, weight_decay=0.1)
                return self.plan.optimizer(torch.optim.SGD)

        module = ByHand()
        with pytest.raises(nnlr.NnlrError, match=r"not built by configure.\n  Fix: LayerMonitor"):
            trainer(callbacks=[LayerMonitor()]).fit(module, loader())
        logger, steps = Remember(), []
        watch = LayerMonitor(module.plan, log=lambda _, step: steps.append(step), every=5)
        trainer(callbacks=[watch], logger=logger).fit(module, loader())
        assert [1, 5, 10] == steps
        assert not any("update_ratio/body" in row for row in logger.told)

    def test_a_run_that_fails_is_not_watched_any_more(self):
        """The hooks are gone."""
        module, watch = Module(), LayerMonitor()
        module.training_step = lambda *_: 1 / 0
        with pytest.raises(ZeroDivisionError, match="zero"):
            trainer(callbacks=[watch]).fit(module, loader())
        assert [] == watch.monitors[0]._hooks

    def test_a_plan_is_checked(self):
        """At once."""
        with pytest.raises(nnlr.NnlrError, match="plan must be a Plan, got 3"):
            LayerMonitor(3)


class Backbone(Module):
    """What BackboneFinetuning freezes and unfreezes is the body."""

    @property
    def backbone(self):
        return self.net.body

    def on_train_start(self):
        if self.current_epoch > 1:  # Lightning restores its group, and leaves it frozen
            self.backbone.requires_grad_(True)


class Finder(callbacks.LearningRateFinder):
    """Hands what Lightning's callback suggests to the schedule; as docs/trainers says."""

    def on_fit_start(self, trainer, pl_module):
        super().on_fit_start(trainer, pl_module)
        trainer.lr_scheduler_configs[0].scheduler.set_base_lr(pl_module.lr)


SWEPT = 19


class TestCallbacks:
    @pytest.fixture
    def found(self, tmp_path):
        """A module whose rates Lightning's finder has looked for, and then fitted."""

        def fit(finder=None):
            module = Module(schedule=floor, interval="step", keep_ratios=True)
            settings = {"enable_checkpointing": True, "default_root_dir": tmp_path}
            if finder is None:
                run = trainer(4, **settings)
                tuner = pytest.importorskip("lightning.pytorch.tuner").Tuner(run)
                tuner.lr_find(module, loader(), num_training=SWEPT)
            else:
                one = finder(num_training_steps=SWEPT)
                run = trainer(4, callbacks=[one], **settings)
            run.fit(module, loader())
            assert SWEPT + 4 * BATCHES == len(module.rates)
            assert module.lr != BASE
            for head, _, body, _ in module.rates:
                assert head * 0.1 == pytest.approx(body)
            return module

        return fit

    @pytest.mark.parametrize("finder", [None, Finder], ids=["tuner", "callback"])
    def test_the_learning_rate_finder_suggests_a_base_rate(self, found, finder):
        """It sweeps the layered model; the suggestion is the base, by both its ways."""
        module = found(finder)
        swept, trained = module.rates[:SWEPT], module.rates[SWEPT:]
        assert SWEPT == len({head for head, *_ in swept})
        assert module.lr == pytest.approx(trained[0][0])
        assert trained[1][0] / module.lr == pytest.approx(1, abs=0.02)

    def test_without_a_word_the_schedule_takes_the_suggestion_back(self, found):
        """Lightning's callback writes rates; the schedule goes on from the base it knows."""
        module = found(callbacks.LearningRateFinder)
        first, second = (rates[0] for rates in module.rates[SWEPT : SWEPT + 2])
        assert module.lr == pytest.approx(first)
        assert pytest.approx(1, abs=0.02) == second / BASE

    def test_weight_averaging_of_lightning_takes_over_the_schedule(self):
        """StochasticWeightAveraging swaps in a scheduler of one rate; ratios hold."""
        module = Module(schedule=floor, interval="epoch", keep_ratios=True)
        averaging = callbacks.StochasticWeightAveraging(
            swa_lrs=5e-2, swa_epoch_start=2, annealing_epochs=2
        )
        trainer(5, callbacks=[averaging]).fit(module, loader())
        assert pytest.approx(5e-2) == module.rates[-1][0]
        for head, _, body, _ in module.rates:
            assert head * 0.1 == pytest.approx(body)

    def test_without_keep_ratios_weight_averaging_flattens(self):
        """The healthy twin is above: this is what it is healed of."""
        module = Module(schedule=floor, interval="epoch")
        averaging = callbacks.StochasticWeightAveraging(
            swa_lrs=5e-2, swa_epoch_start=2, annealing_epochs=2
        )
        with pytest.warns(nnlr.NnlrWarning, match=r"StochasticWeightAveraging writes one .* rate"):
            trainer(5, callbacks=[averaging]).fit(module, loader())
        assert [5e-2] * 4 == pytest.approx(module.rates[-1])

    def test_an_exponential_average(self, tmp_path):
        """EMAWeightAveraging, resumed too, gives the average of the loop by hand."""

        def ema():
            return callbacks.EMAWeightAveraging(decay=0.8)

        scheme = nnlr.freeze("stem.*") * SCHEME
        settings = {"schedule": floor, "interval": "step"}
        whole, half, resumed = (Module(scheme, **settings) for _ in range(3))
        trainer(callbacks=[ema()]).fit(whole, loader())
        averaged = AveragedModel(Net(), avg_fn=get_ema_avg_fn(0.8), use_buffers=True)
        by_hand(floor, frozen="stem", after_step=averaged.update_parameters)
        assert same_weights(averaged.module, whole.net)
        path = tmp_path / "half.ckpt"

        class Save(callbacks.Callback):
            def on_train_epoch_end(self, trainer, _):
                if trainer.current_epoch == 0:
                    trainer.save_checkpoint(path)

        trainer(callbacks=[ema(), Save()]).fit(half, loader())
        trainer(callbacks=[ema()]).fit(resumed, loader(), ckpt_path=path)
        assert same_weights(averaged.module, resumed.net)

    @pytest.mark.parametrize("interval", ["epoch", "step"])
    def test_backbone_finetuning_from_the_first_epoch_to_the_last(self, tmp_path, interval):
        """Its group is adopted; a run that is interrupted after that equals the whole one."""

        def finetuned(epochs, path=None, **settings):
            callback = callbacks.BackboneFinetuning(
                unfreeze_backbone_at_epoch=1,
                lambda_func=lambda _: 1.5,
                backbone_initial_lr=1e-3,
                should_align=False,
            )
            module = Backbone(
                nnlr.rule("head.*", lr_mult=0.5), schedule=floor, interval=interval, adopt=True
            )
            run = trainer(epochs, callbacks=[callback], **settings)
            run.fit(module, loader(), ckpt_path=path)
            return module, run

        whole, run = finetuned(4)
        assert [2, 3, 3, 3] == [len(rates) for rates in whole.rates[::BATCHES]]
        assert 0.5 == pytest.approx(whole.rates[-1][1] / whole.rates[-1][0])
        due = [1e-3, 1.5e-3, 2.25e-3]  # the callback's own
        assert due == pytest.approx([rates[2] for rates in whole.rates[BATCHES::BATCHES]])
        base = [rates[0] for rates in whole.rates]
        for at in range(BATCHES + 1, 4 * BATCHES):
            if at % BATCHES:
                moved = whole.rates[at][2] / whole.rates[at - 1][2]
                assert base[at] / base[at - 1] == pytest.approx(moved)
        _, run = finetuned(3)
        run.save_checkpoint(tmp_path / "three.ckpt")
        resumed, _ = finetuned(4, tmp_path / "three.ckpt")
        for one, other in zip(whole.rates[-BATCHES:], resumed.rates, strict=True):
            assert one == pytest.approx(other, rel=1e-12)
        for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
            assert torch.allclose(one, other, rtol=1e-6)

    def test_backbone_finetuning_is_refused_at_the_start_without_it(self):
        """Torch would fail at the epoch at which the group is added."""
        module = Backbone(schedule=floor, interval="epoch")
        finetuning = callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1)
        with pytest.raises(nnlr.NnlrError, match=r"BackboneFinetuning will add .* adopt=True"):
            trainer(2, callbacks=[finetuning]).fit(module, loader())
        assert [] == module.rates

    def test_groups_may_have_courses_of_their_own(self):
        """A mapping goes through to nnlr.schedule."""
        module = Module(schedule={"lr0.1*": floor}, interval="step")
        trainer().fit(module, loader())
        assert {BASE} == {rates[0] for rates in module.rates}
        assert 6e-4 > module.rates[-1][2]

    def test_without_a_schedule_its_group_is_let_in_too(self):
        """`adopt=True` or `names=False`: the rates are the callback's."""
        for settings in ({"adopt": True}, {"names": False}):
            module = Backbone(nnlr.rule("head.*", lr_mult=0.5), **settings)
            finetuning = callbacks.BackboneFinetuning(
                unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3
            )
            trainer(2, callbacks=[finetuning]).fit(module, loader())
            assert [BASE, BASE / 2, 1e-3] == module.rates[-1]

    def test_regroup_unfreezes_at_an_epoch(self):
        """The way of nnlr: another plan, the same optimizer, state and schedule."""

        class Unfreezing(Module):
            def on_train_epoch_start(self):
                if self.current_epoch == 1:
                    plan = nnlr.resolve(self.net, SCHEME, lr=self.lr, weight_decay=0.1)
                    nnlr.regroup(self.optimizers().optimizer, plan)

        module = Unfreezing(nnlr.freeze("stem.*") * SCHEME, schedule=floor, interval="step")
        trainer().fit(module, loader())

        def unfreeze(net, step):
            if step == BATCHES:
                net.stem.requires_grad_(True)

        assert same_weights(by_hand(floor, frozen="stem", before_step=unfreeze), module.net)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"optimizer": "plain"}, marks=pytest.mark.full),  # 1 s
        {"optimizer": "plan"},
    ],
)
def test_lightning_forgets_one_step_of_a_plateau(tmp_path, settings):
    """A checkpoint written while fit runs lacks the epoch's step, and resuming skips it.

    It is so with one group and torch's own scheduler, and so it is with a plan: the run
    that is resumed goes on one step behind.
    """

    class Plain(Module):
        def configure_optimizers(self):
            if settings["optimizer"] == "plan":
                return super().configure_optimizers()
            optimizer = torch.optim.AdamW(self.net.parameters(), lr=BASE)
            told = {"scheduler": plateau(optimizer), "monitor": "score"}
            return {"optimizer": optimizer, "lr_scheduler": told}

    def module():
        return Plain(schedule=plateau, interval="epoch", monitor="score")

    whole, resumed = module(), module()
    checkpoint = callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    enabled = {"enable_checkpointing": True, "callbacks": [checkpoint]}
    trainer(6, **enabled).fit(whole, loader(), loader())
    trainer(6).fit(resumed, loader(), loader(), ckpt_path=tmp_path / "epoch=2.ckpt")
    expected = [3e-3, 3e-3, 2e-3]
    assert expected == pytest.approx([head for head, *_ in whole.rates[3 * BATCHES :: 6]])
    late = [head for head, *_ in resumed.rates[::6]]
    assert [BASE, BASE, 3e-3] == pytest.approx(late)


class TestTwice:
    def test_a_second_fit_starts_at_the_base_rate(self):
        """Also where the module keeps its optimizer, and only the schedule is new."""

        class Keeping(Module):
            def configure_optimizers(self):
                if not hasattr(self, "kept"):
                    plan = nnlr.resolve(self.net, self.scheme, lr=self.lr, weight_decay=0.1)
                    self.kept = [plan.optimizer(self.cls)]
                scheduler = nnlr.schedule(self.kept[0], peak)
                step = {"scheduler": scheduler, "interval": "step"}
                return {"optimizer": self.kept[0], "lr_scheduler": step}

        for module in (Module(schedule=peak, interval="step"), Keeping()):
            for _ in range(2):
                trainer().fit(module, loader())
            half = len(module.rates) // 2
            assert module.rates[:half] == module.rates[half:]

    def test_a_warm_up_each_step_and_a_plateau_each_epoch(self):
        """Two schedulers of one optimizer, at intervals of their own; no loop by hand does it."""

        class Both(Module):
            def configure_optimizers(self):
                plan = nnlr.resolve(self.net, self.scheme, lr=self.lr, weight_decay=0.1)
                optimizer = plan.optimizer(self.cls)
                warm_up = nnlr.schedule(optimizer, lrs.LinearLR, start_factor=0.1, total_iters=12)
                falling = nnlr.schedule(
                    optimizer, lrs.ReduceLROnPlateau, patience=0, factor=0.5, beside=warm_up
                )
                return [optimizer], [
                    {"scheduler": warm_up, "interval": "step"},
                    {"scheduler": falling, "interval": "epoch", "monitor": "score"},
                ]

        module = Both()
        trainer(6).fit(module, loader(), loader())
        due = [min(0.1 + 0.9 * step / 12, 1.0) * BASE for step in range(36)]
        worse = [0, 0, 0, 1, 1, 2]  # epochs of SCORES that were no better, before each epoch
        due = [rate * 0.5 ** worse[step // 6] for step, rate in enumerate(due)]
        assert due == pytest.approx([rates[0] for rates in module.rates])
        assert [0.1 * rate for rate in due] == pytest.approx([rates[2] for rates in module.rates])


class TestPackages:
    def test_the_older_package_gives_the_base_where_it_is_in_use(self, monkeypatch):
        """Whichever of the two has been imported; without either, what is installed."""
        older = ModuleType("pytorch_lightning")
        older.Callback = type("Callback", (), {})
        older.callbacks = ModuleType("pytorch_lightning.callbacks")
        monkeypatch.setitem(sys.modules, "lightning", None)
        monkeypatch.setitem(sys.modules, "pytorch_lightning", older)
        monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", older.callbacks)
        loaded = runpy.run_path(nnlr.integrations.lightning.__file__)
        assert (older.Callback,) == loaded["RateMonitor"].__bases__
        assert (callbacks.Callback,) == RateMonitor.__bases__

    def test_without_either_it_says_what_to_install(self, monkeypatch):
        """The message has the line to paste."""
        for name in ("lightning", "pytorch_lightning"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(nnlr.NnlrError, match="Fix: pip install lightning"):
            runpy.run_path(nnlr.integrations.lightning.__file__)

    @pytest.mark.full  # imports a second Lightning
    def test_the_older_package_is_as_good(self):
        """A fit of pytorch_lightning, with the newer package not there."""
        code = """
import warnings
warnings.simplefilter("ignore")
import torch, pytorch_lightning as pl, sys
sys.modules["lightning"] = None  # not installed
import nnlr
from nnlr.integrations.lightning import RateMonitor, configure  # noqa: E402 - after the skip
class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 1)
    def training_step(self, batch, _):
        return self.net(batch).square().mean()
    def configure_optimizers(self):
        plan = nnlr.resolve(self.net, nnlr.rule("bias", lr_mult=0.1), lr=0.1, weight_decay=0)
        return configure(self, plan, torch.optim.SGD)
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, callbacks=RateMonitor())
trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(4, 4)))
assert isinstance(RateMonitor(), pl.Callback)
print({name: round(rate.item(), 6) for name, rate in trainer.callback_metrics.items()})
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        expected = "{'lr': 0.1, 'lr_min': 0.01, 'lr_max': 0.1}"
        assert expected == done.stdout.strip().splitlines()[-1]
