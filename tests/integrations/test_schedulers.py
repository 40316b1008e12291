"""nnlr.schedule and nnlr.keep_ratios in the hands of real trainers."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.utils.data import DataLoader

import nnlr
from tests.helpers import same_weights

pytestmark = pytest.mark.no_cover

BASE, STEPS = 1e-2, 12
COSINE = {"T_max": STEPS, "eta_min": 5e-3}


class Tiny(nn.Module):
    """Two layers; gives a loss, as models of transformers do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x, labels=None):
        found = self.head(torch.tanh(self.body(x))).squeeze(-1)
        return {"loss": (found - labels).square().mean(), "logits": found}


def optimizer_of(model):
    """The body learns at a tenth of the rate."""
    plan = nnlr.resolve(model, nnlr.rule("*body.*", lr_mult=0.1), lr=BASE, weight_decay=0.01)
    return plan.optimizer(torch.optim.AdamW)


def data():
    """Twelve batches of two."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2 * STEPS, 4, generator=generator)
    return [{"x": row, "labels": row.sum()} for row in inputs]


def loader():
    return DataLoader(data(), batch_size=2)


def plain(make=lrs.CosineAnnealingLR, kwargs=COSINE, every=1):
    """The loop by hand: no line of nnlr but the groups."""
    model = Tiny()
    optimizer = optimizer_of(model)
    one = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = make(one, **kwargs)
    for step, batch in enumerate(loader(), start=1):
        (model(**batch)["loss"] / every).backward()
        if step % every == 0:
            for group in optimizer.param_groups:
                group["lr"] = one.param_groups[0]["lr"] * group["lr_mult"]
                group["betas"] = one.param_groups[0]["betas"]
            optimizer.step()
            optimizer.zero_grad()
            one.step()
            scheduler.step()
    return model


MAKERS = [
    pytest.param(lrs.CosineAnnealingLR, COSINE, id="floor"),
    pytest.param(lrs.OneCycleLR, {"max_lr": 5e-2, "total_steps": STEPS + 1}, id="peak"),
]


class TestTransformers:
    @pytest.mark.parametrize(("make", "kwargs"), MAKERS)
    def test_trainer_trains_and_resumes(self, tmp_path, make, kwargs):
        """Twelve steps, and six after six from a checkpoint, equal the loop by hand."""
        transformers = pytest.importorskip("transformers")

        def trainer(model):
            optimizer = optimizer_of(model)
            settings = transformers.TrainingArguments(
                str(tmp_path),
                max_steps=STEPS,
                per_device_train_batch_size=2,
                save_steps=6,
                logging_steps=1,
                max_grad_norm=0.0,
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                dataloader_pin_memory=False,
            )
            made = transformers.Trainer(
                model,
                settings,
                train_dataset=data(),
                optimizers=(optimizer, nnlr.schedule(optimizer, make, **kwargs)),
            )
            made._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(data())
            return made

        whole, resumed = Tiny(), Tiny()
        first = trainer(whole)
        first.train()
        assert same_weights(plain(make, kwargs), whole)
        logged = [row["learning_rate"] for row in first.state.log_history[:-1]]
        assert STEPS == len(logged)
        trainer(resumed).train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
        assert same_weights(whole, resumed)

    @pytest.mark.filterwarnings("ignore:The ratios between groups:nnlr.NnlrWarning")
    def test_keep_ratios_mends_what_the_trainer_builds(self, tmp_path):
        """`cosine_with_min_lr` keeps ratios itself; `min_lr` of the plateau does not."""
        transformers = pytest.importorskip("transformers")
        model = Tiny()
        optimizer = optimizer_of(model)
        nnlr.keep_ratios(optimizer)
        seen = []
        optimizer.register_step_pre_hook(
            lambda opt, *_: seen.append([group["lr"] for group in opt.param_groups])
        )
        settings = transformers.TrainingArguments(
            str(tmp_path),
            num_train_epochs=3,
            per_device_train_batch_size=2,
            lr_scheduler_type="reduce_lr_on_plateau",
            lr_scheduler_kwargs={"patience": 0, "min_lr": 4e-3, "threshold": 9.0},
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = transformers.Trainer(
            model,
            settings,
            train_dataset=data(),
            eval_dataset=data(),
            optimizers=(optimizer, None),
        )
        trainer.train()
        assert [BASE, 4e-3] == sorted({rates[0] for rates in seen}, reverse=True)
        assert all(pytest.approx(head * 0.1) == body for head, body in seen)


class TestAccelerate:
    @pytest.mark.parametrize("every", [1, 3])
    @pytest.mark.parametrize(("make", "kwargs"), MAKERS)
    def test_prepare_accumulate_save_and_load(self, tmp_path, make, kwargs, every):
        """With accumulation, and interrupted in the middle by save_state and load_state."""
        accelerate = pytest.importorskip("accelerate")
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=every)

        def prepared():
            model = Tiny()
            optimizer = optimizer_of(model)
            scheduler = nnlr.schedule(optimizer, make, **kwargs)
            return model, *accelerator.prepare(model, optimizer, scheduler)

        def train(run, batches):
            _, model, optimizer, scheduler = run
            for batch in batches:
                with accelerator.accumulate(model):
                    accelerator.backward(model(**batch)["loss"])
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()

        run, batches = prepared(), list(loader())
        train(run, batches[:6])
        accelerator.save_state(tmp_path)
        train(run, batches[6:])
        expected = plain(make, kwargs, every)
        assert same_weights(expected, run[0])
        accelerator.free_memory()
        again = prepared()
        accelerator.load_state(tmp_path)
        train(again, batches[6:])
        assert same_weights(expected, again[0])


def lightning_module(scheduled):
    """A module of Lightning around the same network."""
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.lr, self.rates = Tiny(), BASE, []

        def training_step(self, batch, _):
            return self.net(**batch)["loss"]

        def on_before_optimizer_step(self, optimizer):
            optimizer.register_step_pre_hook(self.note)

        def note(self, optimizer, *_):
            self.rates.append([group["lr"] for group in optimizer.param_groups])

        def configure_optimizers(self):
            return scheduled(optimizer_of(self.net))

    return Module()


def lightning_trainer(**settings):
    lightning = pytest.importorskip("lightning")
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, "max_epochs": 1, **settings},
    )


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, loggers and more
class TestLightning:
    @pytest.mark.parametrize(("make", "kwargs"), MAKERS)
    def test_fit_and_resume(self, tmp_path, make, kwargs):
        """A scheduler per step, twelve of them, and six after six from a checkpoint."""

        def scheduled(optimizer):
            scheduler = nnlr.schedule(optimizer, make, **kwargs)
            step = {"scheduler": scheduler, "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": step}

        whole, half, resumed = (lightning_module(scheduled) for _ in range(3))
        lightning_trainer().fit(whole, loader())
        assert same_weights(plain(make, kwargs), whole.net)
        trainer = lightning_trainer(max_steps=6)
        trainer.fit(half, loader())
        trainer.save_checkpoint(tmp_path / "half.ckpt")
        rest = DataLoader(data()[STEPS:], batch_size=2)
        trainer = lightning_trainer(max_epochs=2)
        trainer.fit(resumed, rest, ckpt_path=tmp_path / "half.ckpt")
        assert same_weights(plain(make, kwargs), resumed.net)

    def test_the_learning_rate_finder_leaves_ratios(self, tmp_path):
        """Its callback writes one suggestion into every group of the running optimizer."""
        callbacks = pytest.importorskip("lightning.pytorch.callbacks")

        def held(optimizer):
            nnlr.keep_ratios(optimizer)
            return optimizer

        module = lightning_module(held)
        finder = callbacks.LearningRateFinder(num_training_steps=20)
        settings = {"enable_checkpointing": True, "default_root_dir": tmp_path}
        lightning_trainer(callbacks=[finder], **settings).fit(module, loader())
        assert len({head for head, _ in module.rates}) > 10
        assert all(pytest.approx(head * 0.1) == body for head, body in module.rates)

    def test_weight_averaging_leaves_ratios(self):
        """Its own scheduler takes one rate for all groups."""
        callbacks = pytest.importorskip("lightning.pytorch.callbacks")

        def held(optimizer):
            nnlr.keep_ratios(optimizer)
            return optimizer

        module = lightning_module(held)
        averaging = callbacks.StochasticWeightAveraging(
            swa_lrs=5e-2, swa_epoch_start=1, annealing_epochs=2
        )
        lightning_trainer(callbacks=[averaging], max_epochs=4).fit(module, loader())
        assert pytest.approx(5e-2) == module.rates[-1][0]
        assert all(pytest.approx(head * 0.1) == body for head, body in module.rates)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # its own, on import
class TestCompiled:
    @pytest.mark.parametrize(
        "tensor_lr",
        [pytest.param(False, marks=pytest.mark.full), True],  # 4 s: it compiles at each rate
    )
    def test_a_compiled_step_follows_the_schedule(self, tensor_lr):
        """Few graphs for twelve rates: one if the rate is a tensor, as torch's own."""
        torch._dynamo.reset()
        graphs = []

        def backend(graph, _):
            graphs.append(graph)
            return graph.forward

        model = Tiny()
        plan = nnlr.resolve(model, nnlr.rule("body.*", lr_mult=0.1), lr=BASE, weight_decay=0)
        optimizer = plan.optimizer(torch.optim.AdamW, tensor_lr=tensor_lr)
        scheduler = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, **COSINE)
        step = torch.compile(optimizer.step, backend=backend)
        for batch in loader():
            model(**batch)["loss"].backward()
            step()
            scheduler.step()
        assert len(graphs) <= 3
        rates = [float(rate) for rate in scheduler.get_last_lr()]
        assert [5e-3, 5e-4] == pytest.approx(rates)

    def test_a_gradient_scaler_may_skip_a_step(self):
        """An overflow skips the optimizer, not the schedule; ratios hold."""
        model = Tiny()
        optimizer = optimizer_of(model)
        scheduler = nnlr.schedule(optimizer, lrs.CosineAnnealingLR, **COSINE)
        scaler = torch.amp.GradScaler("cpu")
        for step, batch in enumerate(loader()):
            scaler.scale(model(**batch)["loss"]).backward()
            if step == 4:
                model.head.bias.grad.fill_(torch.inf)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            scheduler.step()
        assert 11 == optimizer.state[model.head.bias]["step"]
        assert [5e-3, 5e-4] == pytest.approx(scheduler.get_last_lr())
