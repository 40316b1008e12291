"""Phases in real trainers: when they begin, and that a resumed run goes on to the last bit."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import nnlr
from nnlr.errors import ConfigError, NnlrError, NnlrWarning
from tests.helpers import same_weights

BATCHES = 3
SCORES = [1.0, 0.8, 0.9, 0.85, 0.7, 0.6, 0.65, 0.64]
PHASES = [
    {"train": "head.*"},
    {"train": "body.*", "epoch": 1, "warmup": 4, "earlier": 0.5},
    {"train": "*", "patience": 2, "warmup": 5},
]
SCHEME = nnlr.unfreeze(PHASES, restore_best=True) * nnlr.no_weight_decay()
OPEN = [1, 2, 2, 2, 3, 3, 3, 3]  # in each epoch: the metric has stalled when the fourth ends


class Net(nn.Module):
    """A stem with a norm, a body and a head; gives a loss, as models of transformers do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body, self.head = (nn.Linear(4, n) for n in (4, 4, 1))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x, labels=None):
        hidden = torch.tanh(self.body(self.norm(torch.tanh(self.stem(x)))))
        return {"loss": (self.head(hidden).squeeze(-1) - x.sum(-1)).square().mean()}


def rows():
    """Batches of two that are all alike: Lightning begins an epoch's data again on resume."""
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).repeat(BATCHES, 1)


def opened(net):
    """How many of the three layers are trained."""
    return sum(layer.weight.requires_grad for layer in (net.stem, net.body, net.head))


lightning = pytest.importorskip("lightning")
callbacks = pytest.importorskip("lightning.pytorch.callbacks")
light = nnlr.integrations.lightning


class Module(lightning.LightningModule):
    """The network under Lightning, with made up scores."""

    def __init__(self, scheme=SCHEME):
        super().__init__()
        self.net, self.scheme, self.opened, self.rates = Net(), scheme, [], []

    def training_step(self, batch, _):
        loss = self.net(batch)["loss"]
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, _):
        self.log("val_loss", SCORES[self.current_epoch])

    def on_train_epoch_start(self):
        self.opened.append(opened(self.net))

    def on_train_batch_start(self, *_):
        groups = self.trainer.optimizers[0].param_groups
        self.rates.append([group["lr"] for group in groups])

    def configure_optimizers(self):
        plan = nnlr.resolve(self.net, self.scheme, lr=1e-2, weight_decay=0.1)
        return light.configure(
            self,
            plan,
            torch.optim.AdamW,
            interval="step",
            schedule=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30),
        )


class Quiet(Module):
    """Logs nothing."""

    def training_step(self, batch, _):
        return self.net(batch)["loss"]


def fit(module, *more, epochs=8, path=None, loader=True, **settings):
    """Train a module; the trainer."""
    usual = {
        "accelerator": "cpu",
        "max_epochs": epochs,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, callbacks.ModelCheckpoint) for c in more),
        "callbacks": [*more],
    }
    trainer = lightning.Trainer(**{**usual, **settings})
    data = DataLoader(rows(), batch_size=2)
    trainer.fit(module, data, data if loader else None, ckpt_path=path)
    return trainer


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, loggers and more
class TestLightning:
    """EpochCallback of nnlr.integrations.lightning in a real Trainer."""

    def test_phases_begin_by_the_metric_and_the_sanity_check_does_not_count(self):
        """One end for each epoch, whatever the validation does within it."""
        module = Module()
        fit(module, light.EpochCallback("val_loss"), epochs=5, val_check_interval=1)
        assert OPEN[:5] == module.opened

    @pytest.mark.parametrize(
        "when",
        [
            "step",
            pytest.param("validation", marks=pytest.mark.full),  # 1 s
            pytest.param("train", marks=pytest.mark.full),  # 1 s
        ],
    )
    def test_a_resumed_run_goes_on_to_the_last_bit(self, tmp_path, when):
        """From checkpoints after validation, after the epoch, and in the middle of an epoch."""
        settings = {
            "validation": {"save_on_train_epoch_end": False},
            "train": {"save_on_train_epoch_end": True},
            "step": {"every_n_train_steps": 11},
        }[when]
        whole, resumed = Module(), Module()
        saving = callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **settings)
        fit(whole, light.EpochCallback("val_loss"), saving)
        step = 11 if when == "step" else 12
        fit(resumed, light.EpochCallback("val_loss"), path=tmp_path / f"step={step}.ckpt")
        assert same_weights(whole, resumed)
        assert whole.rates[step:] == resumed.rates
        assert whole.opened[-4:] == resumed.opened[-4:]

    def test_a_checkpoint_of_the_last_step_of_an_epoch_misses_no_epoch(self, tmp_path):
        """It is saved before the epoch ends, and the trainer goes on with the next one."""
        scheme = nnlr.unfreeze([{"train": "head.*"}, {"train": "*", "epoch": 2}])
        whole, resumed = Module(scheme), Module(scheme)
        saving = callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=BATCHES * 2)
        fit(whole, light.EpochCallback(), saving, epochs=3)
        fit(resumed, light.EpochCallback(), path=tmp_path / "step=6.ckpt", epochs=3)
        assert whole.rates[6:] == resumed.rates
        assert same_weights(whole, resumed)

    def test_without_a_metric_or_a_validation_epochs_end_with_training(self):
        """Then a training metric may be followed."""
        phases = [{"train": "head.*"}, {"train": "*", "epoch": 2}]
        module = Module(nnlr.unfreeze(phases))
        fit(module, light.EpochCallback(), epochs=3, check_val_every_n_epoch=2)
        assert [1, 1, 3] == module.opened
        module = Module(nnlr.unfreeze(phases, patience=1, min_delta=9))
        fit(module, light.EpochCallback("loss_epoch"), epochs=3, loader=False)
        assert [1, 1, 3] == module.opened

    def test_mistakes_are_told(self):
        """No callback, nothing attached, a metric that nobody logs."""
        with pytest.warns(NnlrWarning, match=r"goes by epochs, and nothing tells it .* end_epoch"):
            fit(Module(), epochs=1)
        still = Module(nnlr.rule("head.*", lr_mult=2))
        with pytest.raises(ConfigError, match=r"no optimizer of this trainer is attached"):
            fit(still, light.EpochCallback(), epochs=1)
        with pytest.raises(NnlrError, match=r"'val_los'\): no metric .* Nearest: 'val_loss'"):
            fit(Module(), light.EpochCallback("val_los"), epochs=1)
        late = Module(nnlr.unfreeze([{"train": "head.*"}, {"train": "*", "epoch": 1}]))
        with pytest.warns(NnlrWarning, match="when 1 epoch has ended, and the run has 1: what it"):
            fit(late, light.EpochCallback(), epochs=1)
        with pytest.raises(NnlrError, match=r"'val_loss'\): no metric .* log it in a validation"):
            fit(Quiet(), light.EpochCallback("val_loss"), epochs=1, loader=False)

    def test_a_validation_by_itself_ends_no_epoch(self):
        """trainer.validate is not part of a run."""
        callback = light.EpochCallback("val_loss")
        module = Module()
        trainer = fit(module, callback, epochs=1)
        trainer.validate(module, DataLoader(rows(), batch_size=2), verbose=False)
        assert 0 == callback.state_dict()["ended"]


transformers = pytest.importorskip("transformers")
hf = nnlr.integrations.transformers


class Watch(transformers.TrainerCallback):
    """How many layers each epoch trains, and the rates of each step."""

    def __init__(self):
        self.opened, self.rates = [], []

    def on_epoch_begin(self, args, state, control, **run):
        self.opened.append(opened(run["model"]))

    def on_step_begin(self, args, state, control, **run):
        self.rates.append([group["lr"] for group in run["optimizer"].param_groups])


class Scored(transformers.Trainer):
    """A Trainer whose evaluation gives made up scores."""

    def evaluate(self, *_, **__):
        epoch = round(self.state.epoch * 2 + 1e-6) / 2
        metrics = {"eval_score": SCORES[max(int(epoch + 0.5) - 1, 0)], "epoch": self.state.epoch}
        self.log(metrics)
        arguments = (self.args, self.state, self.control, metrics)
        self.control = self.callback_handler.on_evaluate(*arguments)
        return metrics


class Stream(torch.utils.data.IterableDataset):
    """Rows without a length."""

    def __iter__(self):
        return iter({"x": row, "labels": row.sum()} for row in rows())


def train(path, *more, resume=None, scheme=SCHEME, attach=True, data=None, **settings):
    """Train the network; the network and what was watched."""
    usual = {
        "per_device_train_batch_size": 2,
        "num_train_epochs": 8,
        "max_grad_norm": 0.0,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "eval_strategy": "epoch",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine",
    }
    net, watch = Net(), Watch()
    args = transformers.TrainingArguments(str(path), **{**usual, **settings})
    plan = nnlr.resolve(net, scheme, lr=1e-2, weight_decay=0.1)
    optimizer = plan.optimizer(torch.optim.AdamW)
    if attach:
        nnlr.attach(optimizer, plan)
    data = data or [*Stream()]

    class Ours(hf.RatioTrainer, Scored):
        pass

    trainer = Ours(
        net,
        args,
        train_dataset=data,
        eval_dataset=data,
        optimizers=(optimizer, None),
        callbacks=[*more, watch],
    )
    trainer.train(resume_from_checkpoint=resume)
    return net, watch, trainer


@pytest.mark.filterwarnings("ignore")  # of torch's scheduler, and of transformers
class TestTransformers:
    """EpochCallback of nnlr.integrations.transformers in a real Trainer."""

    def test_phases_begin_by_the_metric_of_the_evaluation(self, tmp_path):
        """With the evaluation after each epoch; by its whole name."""
        _, watch, _ = train(tmp_path, hf.EpochCallback("eval_score"), num_train_epochs=5)
        assert OPEN[:5] == watch.opened

    def test_of_evaluations_by_steps_the_last_of_an_epoch_counts(self, tmp_path):
        """One in the middle of it, or none at all; an epoch without one leaves the counter."""
        settings = {"eval_strategy": "steps", "eval_steps": 2, "num_train_epochs": 5}
        _, watch, trainer = train(tmp_path, hf.EpochCallback("score"), **settings)
        assert OPEN[:5] == watch.opened
        trainer.evaluate()  # after the run: no epoch has ended
        settings["eval_steps"] = 100
        with pytest.warns(NnlrWarning, match="ended without a metric"):
            _, watch, _ = train(tmp_path, hf.EpochCallback("score"), **settings)
        assert [1, 2, 2, 2, 2] == watch.opened

    @pytest.mark.parametrize("step", [11, pytest.param(12, marks=pytest.mark.full)])  # 1 s
    def test_a_resumed_run_goes_on_to_the_last_bit(self, tmp_path, step):
        """In the middle of an epoch, and where a phase has just begun."""
        settings = {"save_strategy": "steps", "save_steps": 11}
        if step == 12:
            settings = {"save_strategy": "epoch"}
        net, watch, _ = train(tmp_path, hf.EpochCallback("score"), **settings)
        again, resumed, _ = train(
            tmp_path / "again",
            hf.EpochCallback("score"),
            resume=str(tmp_path / f"checkpoint-{step}"),
        )
        assert same_weights(net, again)
        assert watch.rates[step:] == resumed.rates

    def test_a_checkpoint_of_the_last_step_of_an_epoch_misses_no_epoch(self, tmp_path):
        """It is saved before the epoch ends, and the Trainer goes on with the next one."""
        scheme = nnlr.unfreeze([{"train": "head.*"}, {"train": "*", "epoch": 2}])
        settings = {"save_strategy": "steps", "save_steps": 6, "num_train_epochs": 3}
        train(tmp_path, hf.EpochCallback(), scheme=scheme, **settings)
        path = str(tmp_path / "checkpoint-6")
        _, watch, _ = train(tmp_path, hf.EpochCallback(), scheme=scheme, resume=path, **settings)
        assert [3] == watch.opened

    def test_without_a_metric_epochs_end_as_they_do(self, tmp_path):
        """A run that stops within an epoch does not end it."""
        scheme = nnlr.unfreeze([{"train": "head.*"}, {"train": "*", "epoch": 2}])
        with pytest.warns(
            NnlrWarning, match="2 epochs have ended, and the run has 2: what it opens"
        ):
            net, watch, _ = train(tmp_path, hf.EpochCallback(), scheme=scheme, max_steps=5)
        assert ([1, 1], 1) == (watch.opened, opened(net))

    def test_epochs_of_data_without_a_length_end_as_others_do(self, tmp_path):
        """The Trainer counts them in parts of the whole run; the last evaluation counts."""
        phases = [{"train": "head.*"}, {"train": "*", "patience": 1}]
        settings = {"scheme": nnlr.unfreeze(phases, mode="max"), "data": Stream(), "max_steps": 8}
        settings |= {"eval_strategy": "steps", "eval_steps": 2}
        _, watch, _ = train(tmp_path, hf.EpochCallback("score"), **settings)
        assert [1, 1, 3] == watch.opened

    def test_mistakes_are_told(self, tmp_path):
        """No callback, nothing attached, or a metric that the evaluation has not."""
        net = Net()
        factory = hf.optimizer(SCHEME, cls=torch.optim.AdamW, lr=1e-2, weight_decay=0)
        args = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
        trainer = hf.RatioTrainer(net, args, optimizer_cls_and_kwargs=factory)
        with pytest.warns(
            NnlrWarning, match=r"goes by epochs, and nothing tells it .*EpochCallback"
        ):
            trainer.create_optimizer_and_scheduler(4)
        with pytest.raises(ConfigError, match=r"no optimizer of this trainer is attached"):
            train(tmp_path, hf.EpochCallback(), attach=False)
        with pytest.raises(
            NnlrError, match=r"'skore'\): no metric .* There are: epoch, eval_score"
        ):
            train(tmp_path, hf.EpochCallback("skore"))
