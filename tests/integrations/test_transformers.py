"""Plans in the Trainer of transformers: trained, resumed, scheduled and logged by it."""

import importlib
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler

import nnlr
from tests.helpers import hide_package, same_weights, thinned
from tests.integrations import algorithms

transformers = pytest.importorskip("transformers")
OptimizerNames = pytest.importorskip("transformers.training_args").OptimizerNames
integration_utils = pytest.importorskip("transformers.integrations.integration_utils")
hf = nnlr.integrations.transformers

BASE, DECAY, STEPS = 1e-2, 0.1, 12
SCHEME = nnlr.rule("body.*", lr_mult=0.1) * nnlr.rule("*.bias", wd_mult=0)


class Tiny(nn.Module):
    """Two layers; gives a loss, as models of transformers do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x, labels=None):
        found = self.head(torch.tanh(self.body(x))).squeeze(-1)
        return {"loss": (found - labels).square().mean(), "logits": found}


def data():
    """Twelve batches of two."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2 * STEPS, 4, generator=generator)
    return [{"x": row, "labels": row.sum()} for row in inputs]


def arguments(path, **settings):
    """Twelve steps, nothing on the screen, gradients as they are."""
    usual = {
        "per_device_train_batch_size": 2,
        "learning_rate": BASE,
        "weight_decay": DECAY,
        "max_grad_norm": 0.0,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "max_steps": STEPS,
    }
    return transformers.TrainingArguments(str(path), **{**usual, **settings})


def trainer(kind, model, args, **settings):
    """A Trainer that takes the data in order."""
    if "optimizers" not in settings:
        settings.setdefault(
            "optimizer_cls_and_kwargs",
            hf.optimizer(SCHEME, args=args, cls=torch.optim.AdamW),
        )
    if model is not None:
        settings["model"] = model
    made = kind(args=args, train_dataset=data(), eval_dataset=data(), **settings)
    made._get_train_sampler = lambda *_: SequentialSampler(data())
    return made


def by_hand(steps=STEPS, every=1, scheduler="linear", model=None, **settings):
    """The loop: rates and decays written out, the scheduler on one tensor of no use."""
    model = Tiny() if model is None else model
    groups = [
        {"params": [model.head.weight], "mult": 1.0, "weight_decay": DECAY},
        {"params": [model.head.bias], "mult": 1.0, "weight_decay": 0.0},
        {"params": [model.body.weight], "mult": 0.1, "weight_decay": DECAY},
        {"params": [model.body.bias], "mult": 0.1, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=BASE, **settings)
    one = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=BASE)
    made = transformers.get_scheduler(scheduler, one, 0, steps)
    batches = list(DataLoader(data(), batch_size=2))
    for number in range(steps * every):
        batch = batches[number % len(batches)]
        (model(**batch)["loss"] / every).backward()
        if (number + 1) % every == 0:
            for group in optimizer.param_groups:
                group["lr"] = one.param_groups[0]["lr"] * group["mult"]
            optimizer.step()
            optimizer.zero_grad()
            one.step()
            made.step()
    return model


class Watch(transformers.TrainerCallback):
    """Notes the rates and multipliers that each step used."""

    def __init__(self):
        self.seen = []

    def on_optimizer_step(self, args, state, control, optimizer=None, **_):
        self.seen.append({g["lr_mult"]: g["lr"] for g in optimizer.param_groups})


KINDS = [transformers.Trainer, hf.RatioTrainer]


class TestSeveralAlgorithms:
    def test_it_trains_and_resumes_as_two_optimizers(self, tmp_path):
        """As ``optimizers=``, and as what the Trainer builds; scheduled by the Trainer."""
        args = arguments(tmp_path, save_strategy="steps", save_steps=STEPS // 2)
        expected = Tiny()
        optimizers = algorithms.several_of(expected, ["body.weight"])
        schedulers = [transformers.get_scheduler("linear", o, 0, STEPS) for o in optimizers]
        for batch in DataLoader(data(), batch_size=2):
            expected(**batch)["loss"].backward()
            algorithms.step_all(optimizers, schedulers)

        def ready(model):
            optimizer = algorithms.one_of(model)
            scheduler = transformers.get_scheduler("linear", optimizer, 0, STEPS)
            return {"optimizers": (optimizer, scheduler)}

        def asked(model):
            made = hf.optimizer(
                nnlr.route("muon", "adamw"),
                cls=algorithms.CLASSES,
                lr=algorithms.BASES,
                weight_decay=dict.fromkeys(algorithms.BASES, algorithms.DECAY),
            )
            return {"optimizer_cls_and_kwargs": made}

        half = str(tmp_path / f"checkpoint-{STEPS // 2}")
        for how in (ready, asked):
            for resume in (None, half):
                model = Tiny()
                run = trainer(transformers.Trainer, model, args, **how(model))
                run.train(resume_from_checkpoint=resume)
                assert same_weights(expected, model)


class TestTraining:
    # Either kind with either number; in the short run each once.
    @pytest.mark.parametrize(
        "case", thinned([(KINDS[0], 1), (KINDS[0], 3), (KINDS[1], 3), (KINDS[1], 1)], 2)
    )
    def test_it_trains_and_resumes_as_the_loop_by_hand(self, tmp_path, case):
        """Bit for bit: in one go, and the second half from a checkpoint."""
        kind, every = case
        args = arguments(
            tmp_path,
            save_strategy="steps",
            save_steps=STEPS // 2,
            gradient_accumulation_steps=every,
        )
        expected, whole, resumed = by_hand(every=every), Tiny(), Tiny()
        trainer(kind, whole, args).train()
        assert same_weights(expected, whole)
        half = str(tmp_path / f"checkpoint-{STEPS // 2}")
        trainer(kind, resumed, args).train(resume_from_checkpoint=half)
        assert same_weights(expected, resumed)

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_gets_the_model_that_model_init_made(self, tmp_path, kind):
        """The Trainer makes the model when it trains, and anew when it resumes."""
        args = arguments(tmp_path, save_strategy="steps", save_steps=6)
        expected = by_hand()
        first = trainer(kind, None, args, model_init=Tiny)
        first.train()
        assert same_weights(expected, first.model)
        again = trainer(kind, None, args, model_init=Tiny)
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
        assert same_weights(expected, again.model)

    def test_every_search_trial_is_built_anew(self, tmp_path):
        """A search writes another rate into the arguments, and trains again."""
        args = arguments(tmp_path)
        made = trainer(transformers.Trainer, None, args, model_init=Tiny)
        made.train()
        factory = made.optimizer_cls_and_kwargs[0]
        assert BASE == factory.plan.lr
        made.optimizer, args.learning_rate, args.weight_decay = None, 0.5, 0.0
        made.train()
        assert (0.5, 0.0) == (factory.plan.lr, factory.plan.weight_decay)

    def test_what_it_saves_is_loaded_safely(self, tmp_path):
        """The checkpoint's optimizer and scheduler are plain values and tensors."""
        args = arguments(tmp_path, save_strategy="steps", save_steps=6, max_steps=6)
        trainer(hf.RatioTrainer, Tiny(), args).train()
        for file in ("optimizer.pt", "scheduler.pt"):
            assert torch.load(tmp_path / "checkpoint-6" / file, weights_only=True)

    def test_the_optimizer_of_the_arguments(self, tmp_path):
        """Without a class: the Trainer's own, of its arguments, bit for bit."""
        args = arguments(
            tmp_path,
            optim="adamw_torch",
            adam_beta1=0.5,
            adam_beta2=0.6,
            adam_epsilon=1e-4,
        )
        theirs, ours = Tiny(), Tiny()
        trainer(transformers.Trainer, theirs, args, optimizer_cls_and_kwargs=None).train()
        decay = nnlr.rule("*.bias", wd_mult=0)
        made = hf.optimizer(decay, args=args)
        run = trainer(transformers.Trainer, ours, args, optimizer_cls_and_kwargs=made)
        run.train()
        assert same_weights(theirs, ours)
        assert (0.5, 0.6) == run.optimizer.param_groups[0]["betas"]

    @pytest.mark.parametrize("name", [each.value for each in OptimizerNames])
    def test_every_optimizer_that_the_trainer_can_build(self, tmp_path, name):
        """By its name in the arguments: the Trainer's class and settings, on our groups."""
        args = arguments(tmp_path, optim=name)
        factory, _ = hf.optimizer(SCHEME, args=args)
        try:
            found = transformers.Trainer.get_optimizer_cls_and_kwargs(args, Tiny())
        except (
            ImportError,
            ValueError,
        ) as error:  # a package is missing: it says which
            with pytest.raises(type(error), match=re.escape(str(error))):
                factory()(Tiny())
            return
        cls, settings = found
        theirs, ours = cls(Tiny().parameters(), **settings), factory()(Tiny())
        assert type(theirs) is type(ours)
        rates = {"lr": BASE, "weight_decay": DECAY}
        assert {**theirs.defaults, **rates} == {**ours.defaults, **rates}
        found = {(g["lr"], g["weight_decay"]) for g in ours.param_groups}
        assert {
            (BASE, DECAY),
            (BASE, 0.0),
            (BASE / 10, DECAY),
            (BASE / 10, 0.0),
        } == found

    def test_settings_beside_those_of_the_arguments(self, tmp_path):
        """What is given here goes before what the arguments say."""
        args = arguments(tmp_path, adam_beta1=0.5)
        factory, _ = hf.optimizer(args=args, lr=0.25, betas=(0.1, 0.2), foreach=False)
        built = factory()(Tiny())
        assert (0.25, DECAY) == (factory.plan.lr, factory.plan.weight_decay)
        assert (0.1, 0.2) == built.defaults["betas"]

    def test_a_real_model(self, tmp_path):
        """Layers of DistilBERT at decayed rates: as the loop on groups of torch."""
        config = transformers.DistilBertConfig(
            vocab_size=20, dim=8, hidden_dim=8, n_layers=3, n_heads=2, dropout=0.0,
            attention_dropout=0.0, seq_classif_dropout=0.0, max_position_embeddings=6,
        )  # fmt: skip

        def model():
            torch.manual_seed(0)
            return transformers.DistilBertForSequenceClassification(config)

        generator = torch.Generator().manual_seed(1)
        words = torch.randint(0, 20, (8, 5), generator=generator)
        rows = [{"input_ids": row, "labels": row[0] % 2} for row in words]
        scheme = nnlr.layer_decay(0.5) * nnlr.no_weight_decay()
        args = arguments(tmp_path, max_steps=4, lr_scheduler_type="constant")
        made = hf.optimizer(scheme, args=args, cls=torch.optim.AdamW)
        ours, theirs = model(), model()
        run = hf.RatioTrainer(ours, args, train_dataset=rows, optimizer_cls_and_kwargs=made)
        run._get_train_sampler = lambda *_: SequentialSampler(rows)
        run.train()
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": [tensor],
                    "lr": BASE * 0.5 ** distilbert_depth(name),
                    "weight_decay": DECAY if tensor.ndim > 1 and "position" not in name else 0,
                }
                for name, tensor in theirs.named_parameters()
            ]
        )
        theirs.train()
        for batch in DataLoader(rows, batch_size=2):
            theirs(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert same_weights(theirs, ours)


# Half a run on two groups, the other half on five.
TWO = nnlr.rule("body.*", lr_mult=0.1)
FIVE = {"body.weight": 0.3, "body.bias": 0.2, "head.weight": 1.0, "head.bias": 2.0}


class Three(Tiny):
    """One layer more, so that there can be five groups."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x, labels=None):
        return super().forward(x * self.gain, labels)


@pytest.mark.parametrize("name", thinned(["greedy", "linear", "cosine_with_min_lr"], 3))
@pytest.mark.filterwarnings("ignore:.*:nnlr.NnlrWarning")  # what differs is said
def test_it_resumes_with_another_scheme(tmp_path, name):
    """State follows by name, the schedule goes on, and rates are those of the new scheme."""
    args = arguments(
        tmp_path,
        lr_scheduler_type=name,
        lr_scheduler_kwargs=SETTINGS.get(name, {}),
        save_strategy="steps",
        save_steps=6,
        eval_strategy="steps",
        eval_steps=2,
    )
    five = nnlr.rules([nnlr.rule(key, lr_mult=mult) for key, mult in FIVE.items()])
    five *= nnlr.rule("gain", lr_mult=0.5, wd_mult=0)
    mults = {**FIVE, "gain": 0.5}
    watch, again = Watch(), Watch()
    first, resumed = Three(), Three()
    settings = {"args": args, "cls": torch.optim.AdamW}
    made = hf.optimizer(TWO, **settings)
    run = trainer(hf.RatioTrainer, first, args, optimizer_cls_and_kwargs=made, callbacks=[watch])
    run.train()
    assert 2 == len(run.optimizer.param_groups)
    half = tmp_path / "checkpoint-6"
    made = hf.optimizer(five, **settings)
    run = trainer(hf.RatioTrainer, resumed, args, optimizer_cls_and_kwargs=made, callbacks=[again])
    run.train(resume_from_checkpoint=str(half))
    assert 5 == len(run.optimizer.param_groups)
    # By hand: the state of the checkpoint by name, the base rates of the run.
    model = Three()
    model.load_state_dict(saved_weights(half))
    state = torch.load(half / "optimizer.pt", weights_only=True)
    names = [n for group in state["param_groups"] for n in group["param_names"]]
    groups = [
        {
            "params": [tensor],
            "mult": mults[key],
            "weight_decay": DECAY if key != "gain" else 0.0,
        }
        for key, tensor in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, lr=BASE)
    for key, tensor in model.named_parameters():
        optimizer.state[tensor] = dict(state["state"][names.index(key)])
    for batch, seen in zip(list(DataLoader(data(), batch_size=2))[6:], again.seen, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = seen[1.0] * group["mult"]
        model(**batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert same_weights(model, resumed)
    if name != "greedy":  # that goes by the losses, which are other ones
        assert [step[1.0] for step in watch.seen[6:]] == [step[1.0] for step in again.seen]


@pytest.mark.filterwarnings("ignore:.*:nnlr.NnlrWarning")
def test_the_trainer_as_it_is_cannot_resume_other_groups(tmp_path):
    """Its scheduler's state has a rate for each group, and fits no RatioTrainer either."""
    args = arguments(tmp_path, save_strategy="steps", save_steps=6)

    def run(kind, scheme, **settings):
        made = hf.optimizer(scheme, args=args, cls=torch.optim.AdamW)
        trainer(kind, Tiny(), args, optimizer_cls_and_kwargs=made).train(**settings)

    half = {"resume_from_checkpoint": str(tmp_path / "checkpoint-6")}
    run(transformers.Trainer, TWO)
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        run(transformers.Trainer, SCHEME, **half)
    with pytest.raises(nnlr.ConfigError, match="not the state of such a schedule"):
        run(hf.RatioTrainer, SCHEME, **half)


def saved_weights(folder):
    return pytest.importorskip("safetensors.torch").load_file(folder / "model.safetensors")


def distilbert_depth(name):
    """How many layers below the head: three blocks, and the embeddings under them."""
    if "embeddings" in name:
        return 4
    parts = name.split(".")
    return 3 - int(parts[3]) if "layer" in parts else 0


# What a type needs beside the defaults to be built, or to show what it does in few steps.
SETTINGS = {
    "cosine_with_min_lr": {"min_lr": 4e-3},
    "cosine_warmup_with_min_lr": {"min_lr": 4e-3},
    "warmup_stable_decay": {"num_decay_steps": 4, "min_lr_ratio": 0.2},
    "reduce_lr_on_plateau": {"patience": 0, "min_lr": 4e-3, "threshold": 9.0},
    "greedy": {"patience": 0, "factor": 0.5, "min_lr": 4e-3, "max_lr": 2e-2},
}
TYPES = [each.value for each in transformers.SchedulerType]
# They clamp the rate of each group between the same two numbers.
CLAMPING = {"reduce_lr_on_plateau", "greedy"}


def scheduled(path, kind, name, **settings):
    """The rates of every step of a run with the Trainer's own scheduler."""
    args = arguments(
        path,
        lr_scheduler_type=name,
        lr_scheduler_kwargs=SETTINGS.get(name, {}),
        warmup_steps=3,
        eval_strategy="steps",
        eval_steps=2,
    )
    watch = Watch()
    made = hf.optimizer(SCHEME, args=args, cls=torch.optim.AdamW, **settings)
    trainer(kind, Tiny(), args, optimizer_cls_and_kwargs=made, callbacks=[watch]).train()
    return watch.seen


def kept(rates):
    return all(pytest.approx(step[1.0] * 0.1) == step[0.1] for step in rates)


class TestSchedulers:
    @pytest.mark.parametrize("name", thinned(TYPES, 4))
    @pytest.mark.no_cover
    def test_ratios_hold_in_a_ratio_trainer(self, tmp_path, name):
        """Whatever `lr_scheduler_type` names: the rates are those of the base rate alone."""
        found = scheduled(tmp_path, hf.RatioTrainer, name)
        assert STEPS == len(found)
        assert kept(found)
        assert (name != "constant") == (len({step[1.0] for step in found}) > 1)

    @pytest.mark.parametrize("name", sorted(CLAMPING))
    @pytest.mark.filterwarnings("ignore:The ratios between groups:nnlr.NnlrWarning")
    def test_ratios_hold_with_keep_ratios(self, tmp_path, name):
        """In the Trainer as it is, the other groups follow the first."""
        assert kept(scheduled(tmp_path, transformers.Trainer, name, keep_ratios=True))

    @pytest.mark.parametrize("name", thinned(TYPES, 4))
    @pytest.mark.no_cover
    def test_which_types_lose_them_otherwise(self, tmp_path, name):
        """Those that clamp, and no others: so says the page in the documentation."""
        lost = not kept(scheduled(tmp_path, transformers.Trainer, name))
        assert (name in CLAMPING) == lost

    @pytest.mark.parametrize("name", sorted(CLAMPING))
    @pytest.mark.no_cover
    def test_a_clamping_scheduler_resumes(self, tmp_path, name):
        """Its state fits, and the rates go on as if it had not been interrupted."""
        args = arguments(
            tmp_path,
            lr_scheduler_type=name,
            lr_scheduler_kwargs=SETTINGS[name],
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="steps",
            save_steps=6,
        )
        whole, resumed, watch, again = Tiny(), Tiny(), Watch(), Watch()
        trainer(hf.RatioTrainer, whole, args, callbacks=[watch]).train()
        trainer(hf.RatioTrainer, resumed, args, callbacks=[again]).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-6")
        )
        assert watch.seen[6:] == again.seen
        assert same_weights(whole, resumed)

    @pytest.mark.parametrize("name", thinned(["cosine", "polynomial", "warmup_stable_decay"], 2))
    @pytest.mark.no_cover
    def test_a_second_training_starts_at_the_base_rate(self, tmp_path, name):
        """The Trainer keeps its optimizer and builds a new scheduler."""
        special = {"num_decay_steps": 4} if name == "warmup_stable_decay" else {}
        args = arguments(tmp_path, lr_scheduler_type=name, lr_scheduler_kwargs=special)
        watch = Watch()
        run = trainer(hf.RatioTrainer, Tiny(), args, callbacks=[watch])
        for _ in range(2):
            run.train()
        first, second = watch.seen[:STEPS], watch.seen[STEPS:]
        assert BASE == pytest.approx(first[0][1.0])
        assert first == second
        for rates in watch.seen:
            assert rates[0.1] == pytest.approx(0.1 * rates[1.0])

    def test_a_scheduler_that_was_given_stays(self, tmp_path):
        """As `Trainer(optimizers=...)` promises."""
        model = Tiny()
        plan = nnlr.resolve(model, SCHEME, lr=BASE, weight_decay=DECAY)
        optimizer = plan.optimizer(torch.optim.AdamW)
        given = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5)
        args = arguments(tmp_path)
        run = trainer(hf.RatioTrainer, model, args, optimizers=(optimizer, given))
        run.train()
        assert given is run.lr_scheduler

    def test_it_is_told_which_optimizer(self, tmp_path):
        """Extensions of the Trainer pass one, as DeepSpeed's does."""
        args = arguments(tmp_path)
        run = trainer(hf.RatioTrainer, Tiny(), args)
        optimizer = torch.optim.SGD(run.model.parameters(), lr=0.5)
        assert optimizer is run.create_scheduler(10, optimizer).optimizer

    def test_it_goes_before_other_trainers(self, tmp_path):
        """Put first among the bases of a class, it schedules what that Trainer trains."""

        class Both(hf.RatioTrainer, transformers.Seq2SeqTrainer):
            pass

        args = transformers.Seq2SeqTrainingArguments(
            str(tmp_path),
            report_to=[],
            use_cpu=True,
            lr_scheduler_type="greedy",
            eval_strategy="epoch",
        )
        made = hf.optimizer(SCHEME, args=args, cls=torch.optim.AdamW)
        run = Both(Tiny(), args, eval_dataset=data())
        run.optimizer_cls_and_kwargs = made  # Seq2SeqTrainer takes no such argument
        run.create_optimizer_and_scheduler(10)
        assert args.learning_rate == run.lr_scheduler.base_lr
        assert "GreedyLR" == type(run.lr_scheduler.scheduler).__name__


class Reporter(transformers.TrainerCallback):
    """Stands for TensorBoard or W&B."""

    def __init__(self):
        self.reported = []

    def on_log(self, args, state, control, logs=None, **_):
        self.reported.append(dict(logs))


class WatchBefore(Watch):
    """Notes them before the step: after it multipliers have moved on."""

    on_optimizer_step = transformers.TrainerCallback.on_optimizer_step
    on_pre_optimizer_step = Watch.on_optimizer_step


class TestMoves:
    """Multipliers that move: RatioTrainer attaches by itself, other Trainers say so."""

    SCHEME = nnlr.rule("body.*", lr_mult=0.1).at(lambda t: 1 - t) * nnlr.rule("*.bias", wd_mult=0)

    @pytest.mark.parametrize("every", thinned([1, 2], 1))
    def test_it_trains_and_resumes_as_the_loop_by_hand(self, tmp_path, every):
        """Whole, and the second half from a checkpoint: rates are base times plan times move."""
        args = arguments(
            tmp_path,
            save_strategy="steps",
            save_steps=STEPS // 2,
            gradient_accumulation_steps=every,
            num_train_epochs=every,
        )
        models, watches = [Tiny(), Tiny()], [WatchBefore(), WatchBefore()]
        for half, (model, watch) in enumerate(zip(models, watches, strict=True)):
            made = hf.optimizer(self.SCHEME, args=args, cls=torch.optim.AdamW)
            folder = str(tmp_path / f"checkpoint-{STEPS // 2}") if half else None
            run = trainer(
                hf.RatioTrainer, model, args, optimizer_cls_and_kwargs=made, callbacks=[watch]
            )
            run.train(resume_from_checkpoint=folder)
        assert same_weights(*models)
        assert watches[0].seen[STEPS // 2 :] == watches[1].seen
        for step, rates in enumerate(watches[0].seen):
            base, move = BASE * (1 - step / STEPS), 1 - step / STEPS
            assert rates == pytest.approx({1.0: base, 0.1 * move: 0.1 * base * move})

    def test_another_trainer_does_not_train_as_if_nothing_moved(self, tmp_path):
        """The error names RatioTrainer, and attaching by hand is the other way."""
        args = arguments(tmp_path)
        made = hf.optimizer(self.SCHEME, args=args, cls=torch.optim.AdamW)
        run = trainer(transformers.Trainer, Tiny(), args, optimizer_cls_and_kwargs=made)
        with pytest.raises(nnlr.ConfigError, match=r"nobody moves them.*use RatioTrainer"):
            run.train()

    def test_the_rates_in_the_logs_are_those_of_the_step(self, tmp_path):
        """When a step is over, multipliers have moved on."""
        args = arguments(tmp_path, lr_scheduler_type="constant")
        made = hf.optimizer(self.SCHEME, args=args, cls=torch.optim.AdamW)
        run = trainer(hf.RatioTrainer, Tiny(), args, optimizer_cls_and_kwargs=made)
        callback = hf.log_rates(run, groups=True)
        run.train()
        logs = [entry for entry in run.state.log_history if "lr_min" in entry]
        wanted = [0.1 * BASE * (1 - step / STEPS) for step in range(STEPS)]
        assert [entry["lr_min"] for entry in logs] == pytest.approx(wanted)
        before = dict(callback._rates)
        run.optimizer.step()
        assert callback._rates == before

    def test_an_optimizer_without_hooks_is_logged_after_its_step(self):
        """As those that DeepSpeed builds."""

        class Hookless(torch.optim.Optimizer):
            def __init__(self):
                self.param_groups = [{"lr": 0.1, "lr_mult": 1.0, "wd_mult": 1.0, "params": []}]

        callback, optimizer = hf.RateCallback(), Hookless()
        callback.on_train_begin(optimizer=optimizer)
        callback.on_optimizer_step(optimizer=optimizer)
        assert callback._rates["lr"] == 0.1

    def test_a_schedule_that_was_passed_is_kept(self, tmp_path):
        """Moves are attached under it."""
        args, model = arguments(tmp_path), Tiny()
        plan = nnlr.resolve(model, self.SCHEME, lr=BASE, weight_decay=DECAY)
        watch = WatchBefore()
        optimizer = plan.optimizer(torch.optim.AdamW)
        nnlr.attach(optimizer, plan, total_steps=STEPS)
        constant = nnlr.schedule(optimizer, torch.optim.lr_scheduler.ConstantLR, factor=1.0)
        made = {"optimizers": (optimizer, constant), "callbacks": [watch]}
        trainer(hf.RatioTrainer, model, args, **made).train()
        assert watch.seen[STEPS // 2] == pytest.approx({1.0: BASE, 0.05: 0.05 * BASE})


class TestLogs:
    def test_rates_reach_reporters_and_history(self, tmp_path):
        """As each step used them; the Trainer's own number is that of the first group."""
        reporter, watch = Reporter(), Watch()
        run = trainer(hf.RatioTrainer, Tiny(), arguments(tmp_path), callbacks=[reporter, watch])
        hf.log_rates(run)
        run.train()
        for logs in (reporter.reported[:STEPS], run.state.log_history[:STEPS]):
            for row, used in zip(logs, watch.seen, strict=True):
                assert row["learning_rate"] == row["lr"] == row["lr_max"] == used[1.0]
                assert row["lr_min"] == used[0.1]
        assert "lr" not in run.state.log_history[-1]  # the summary at the end

    def test_each_group_on_request(self, tmp_path):
        """By the name of the group."""
        run = trainer(transformers.Trainer, Tiny(), arguments(tmp_path, max_steps=1))
        hf.log_rates(run, groups=True)
        run.train()
        expected = {"lr/lr1_wd1": BASE, "lr/lr1_wd0": BASE}
        expected |= {"lr/lr0.1_wd1": 0.1 * BASE, "lr/lr0.1_wd0": 0.1 * BASE}
        row = run.state.log_history[0]
        assert expected == {k: v for k, v in row.items() if k.startswith("lr/")}

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_optimizer_of_the_trainers_own_is_refused(self, tmp_path, kind):
        """As when DeepSpeed built it, or the argument was forgotten."""
        run = trainer(
            kind,
            Tiny(),
            arguments(tmp_path),
            optimizer_cls_and_kwargs=None,
        )
        hf.log_rates(run)
        with pytest.raises(nnlr.ConfigError, match="trains with an optimizer of its own"):
            run.train()

    def test_groups_made_by_hand_are_welcome(self):
        """Multipliers are enough, wherever they come from."""
        groups = [{"params": [torch.zeros(1)], "lr_mult": mult} for mult in (1.0, 0.1)]
        hf.RateCallback().on_train_begin(optimizer=torch.optim.SGD(groups, lr=0.1))

    def test_it_wants_a_trainer(self, tmp_path):
        """Not its arguments."""
        with pytest.raises(nnlr.NnlrError, match="log_rates needs a Trainer, got a Tr"):
            hf.log_rates(arguments(tmp_path))


class Tracker(integration_utils.TrackioCallback):
    """Stands for a tracker that `report_to` names."""

    def __init__(self):
        self.reported = []

    def setup(self, *_, **__):
        pass

    def on_log(self, args, state, control, logs=None, **_):
        self.reported.append((state.global_step, logs))

    on_train_begin = on_save = on_push_begin = on_train_end = lambda *_, **__: None


class TestLayers:
    def test_trackers_have_what_each_step_does(self, tmp_path):
        """At the monitor's cadence, under the Trainer's count; the console has it not."""
        tracker, reporter = Tracker(), Reporter()
        run = trainer(hf.RatioTrainer, Tiny(), arguments(tmp_path), callbacks=[tracker, reporter])
        callback = hf.log_layers(run, every=2)
        run.train()
        history = callback.monitor.history
        assert [1, 2, 4] == [reading.step for reading in history][:3]
        own = [entry for entry in tracker.reported if "learning_rate" not in entry[1]]
        own = [entry for entry in own if any(key.startswith("update_ratio/") for key in entry[1])]
        assert [(reading.step, reading.scalars()) for reading in history] == own
        assert not any("update_ratio" in str(logs) for logs in reporter.reported)
        assert all(layer.gradient for reading in history for layer in reading.layers)
        assert () == callback.monitor.findings
        run.train()  # another monitor, from the start
        assert [1, 2, 4] == [reading.step for reading in callback.monitor.history][:3]

    def test_an_optimizer_of_the_trainers_own_needs_the_plan(self, tmp_path):
        """As for groups that were made by hand."""
        run = trainer(
            transformers.Trainer, Tiny(), arguments(tmp_path), optimizer_cls_and_kwargs=None
        )
        callback = hf.log_layers(run)
        with pytest.raises(nnlr.NnlrError, match=r"Fix: log_layers\(trainer, plan\)"):
            run.train()
        run.remove_callback(callback)
        callback = hf.log_layers(run, nnlr.resolve(run.model, lr=BASE, weight_decay=0))
        run.train()
        assert callback.monitor.history

    def test_arguments_are_checked(self, tmp_path):
        """A Trainer, and a plan."""
        with pytest.raises(nnlr.NnlrError, match="log_layers needs a Trainer, got a Tr"):
            hf.log_layers(arguments(tmp_path))
        run = trainer(transformers.Trainer, Tiny(), arguments(tmp_path))
        with pytest.raises(nnlr.NnlrError, match="plan must be a Plan, got 3"):
            hf.log_layers(run, 3)


def planned():
    return nnlr.resolve(Tiny(), SCHEME, lr=BASE, weight_decay=DECAY)


class TestRefusals:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (lambda args: ([planned()], {"args": args}), "takes schemes, got a plan"),
            (lambda args: ([[SCHEME]], {"args": args}), "one by one"),
            (lambda args: ([SCHEME, args], {}), "Name the Trainer's arguments: opt"),
            (lambda args: ([], {"args": type(args)}), "args must be TrainingArguments"),
            (
                lambda args: ([], {"args": args, "cls": "adamw"}),
                "needs an optimizer cl",
            ),
            (
                lambda args: ([], {"args": args, "lr": "1e-3"}),
                "lr must be a finite num",
            ),
            (
                lambda args: ([], {"args": args, "weight_decay": -1}),
                "weight_decay must",
            ),
        ],
    )
    def test_a_wrong_argument_is_refused_at_once(self, tmp_path, wrong, said):
        """And not when the Trainer trains, which may be an hour of data later."""
        schemes, settings = wrong(arguments(tmp_path))
        with pytest.raises(nnlr.NnlrError, match=said):
            hf.optimizer(*schemes, **settings)

    @pytest.mark.parametrize(
        ("given", "missing"),
        [
            (
                {},
                "needs cls and lr and weight_decay: pass cls=, lr=, weight_decay=, or",
            ),
            (
                {"cls": torch.optim.SGD, "lr": 0.1},
                "needs weight_decay: pass weight_decay=",
            ),
        ],
    )
    def test_nowhere_to_take_it_from(self, given, missing):
        """Without arguments of the Trainer, rates and class are needed."""
        with pytest.raises(nnlr.ConfigError, match=missing):
            hf.optimizer(SCHEME, **given)

    def test_deepspeed_with_an_optimizer_of_its_own(self, tmp_path):
        """The Trainer would build none, and the groups would be lost."""
        args = arguments(tmp_path)
        config = {"optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 1}}
        args.deepspeed_plugin = deepspeed_plugin(config)
        with pytest.raises(nnlr.ConfigError, match="section 'optimizer', so DeepSpeed"):
            hf.optimizer(SCHEME, args=args)
        del config["optimizer"]
        args.deepspeed_plugin = deepspeed_plugin(config)
        assert hf.optimizer(SCHEME, args=args)

    def test_an_old_release_of_transformers(self):
        """There the Trainer takes what it is given for a class, and passes groups."""
        factory, _ = hf.optimizer(cls=torch.optim.SGD, lr=0.1, weight_decay=0)
        with pytest.raises(nnlr.ConfigError, match="optimizer classes only, no factor"):
            factory([{"params": []}])

    def test_an_optimizer_that_wants_more_than_groups(self, tmp_path):
        """Some of the Trainer's need the model; the error names the class."""
        args = arguments(tmp_path, optim="sgd", optim_args="nonsense=1")
        factory, _ = hf.optimizer(SCHEME, args=args, nonsense=1)
        with pytest.raises(nnlr.ConfigError, match="SGD has no argument 'nonsense'"):
            factory()(Tiny())


def deepspeed_plugin(config):
    """What TrainingArguments hold of a configuration, where DeepSpeed need not be installed."""
    deepspeed = pytest.importorskip("accelerate.utils.deepspeed")
    return SimpleNamespace(hf_ds_config=deepspeed.HfDeepSpeedConfig(config))


class TestPackage:
    def test_a_missing_library_says_what_to_install(self, monkeypatch):
        """By `import`, and by asking the package."""
        hide_package(monkeypatch, "transformers")
        monkeypatch.delitem(sys.modules, "nnlr.integrations.transformers")
        with pytest.raises(ImportError, match="pip install transformers"):
            importlib.import_module("nnlr.integrations.transformers")
        with pytest.raises(nnlr.NnlrError, match=r"integrations\.transformers needs") as info:
            nnlr.integrations.__getattr__("transformers")
        assert "transformers" == info.value.package

    def test_what_a_library_lacks_is_its_own_error(self):
        """Its message names the package; ours would name another."""
        with (
            pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"),
            nnlr.integrations._installed.installed("transformers"),
        ):
            importlib.import_module("nowhere")

    def test_only_integrations_are_found(self):
        """An unknown name is an AttributeError, and `dir` shows the others."""
        assert {"timm", "transformers"} <= set(dir(nnlr.integrations))
        with pytest.raises(AttributeError, match="no attribute 'keras'"):
            _ = nnlr.integrations.keras
