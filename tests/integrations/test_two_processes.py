"""Lightning and Accelerate with two processes on gloo, against loops by hand."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.utils.data import DataLoader

import nnlr
from tests.processes import outcomes, tell

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

WORLD, BASE, STEPS = 2, 1e-2, 6
SCHEME = nnlr.rule("body.*", lr_mult=0.1)


def network():
    torch.manual_seed(0)
    names = ("stem", "body", "head")
    return nn.ModuleDict({name: nn.Linear(4, 4) for name in names})


def loss_of(net, x):
    for layer in net.values():
        x = torch.tanh(layer(x))
    return x.square().mean()


def batches():
    """As many for each process as there are steps; DataLoaders deal them out in turn."""
    source = torch.Generator().manual_seed(1)
    return torch.randn(2 * WORLD * STEPS, 4, generator=source)


def resolved(net, scheme=SCHEME):
    return nnlr.resolve(net, scheme, lr=BASE, weight_decay=0.1)


def one_cycle(total):
    return lambda opt: lrs.OneCycleLR(opt, max_lr=5e-2, total_steps=total)


def by_hand(make, per_step, frozen=()):
    """One process that averages over both batches; no line of nnlr, no wrapper."""
    net = network()
    for name in frozen:
        net[name].requires_grad_(False)
    trained = [name for name in net if name not in frozen]
    groups = [{"params": net[name].parameters()} for name in trained]
    optimizer = torch.optim.AdamW(groups, lr=BASE, weight_decay=0.1)
    one = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=BASE)
    one.step()
    scheduler = make(one)
    for pair in batches().view(STEPS, WORLD, 2, 4):
        for x in pair:
            (loss_of(net, x) / WORLD).backward()
        for name, group in zip(trained, optimizer.param_groups, strict=True):
            group["lr"] = one.param_groups[0]["lr"] * (0.1 if name == "body" else 1.0)
            group["betas"] = one.param_groups[0]["betas"]
        optimizer.step()
        optimizer.zero_grad()
        for _ in range(per_step):
            scheduler.step()
    return net


def assert_same(expected, net):
    for one, other in zip(expected.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def quiet_trainer(**settings):
    """Lightning's trainer of all processes, which writes nothing."""
    import lightning

    return lightning.Trainer(
        accelerator="cpu",
        devices=WORLD,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def lightning_fit(scheme=SCHEME, *, lock=False):
    """A module and a trainer of which each process has its own."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def setup(self, stage):
            self.plan = resolved(self.net, scheme)
            if lock:
                self.plan.lock()

        def training_step(self, batch, _):
            return loss_of(self.net, batch)

        def configure_optimizers(self):
            total = self.trainer.estimated_stepping_batches
            return nnlr.integrations.lightning.configure(
                self,
                self.plan,
                torch.optim.AdamW,
                schedule=one_cycle(total + 1),
                interval="step",
            )

    # Batches are dealt out in turn: the sampler knows of single rows, so one row is a batch.
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return WORLD * STEPS

        def __getitem__(self, index):
            return batches().view(-1, 2, 4)[index]

    module = Module()
    trainer = quiet_trainer(strategy="ddp", max_epochs=1)
    sampler = torch.utils.data.DistributedSampler(Rows(), shuffle=False)
    trainer.fit(module, DataLoader(Rows(), batch_size=None, sampler=sampler))
    return module.net


def lightning_trains():
    """A fit with two processes equals the loop by hand."""
    assert_same(by_hand(one_cycle(STEPS + 1), per_step=1), lightning_fit())


def lightning_locks_in_setup():
    """Locked in `setup`, before DDP: the frozen layer costs nothing and stays."""
    net = lightning_fit(nnlr.freeze("stem.*") * SCHEME, lock=True)
    assert_same(by_hand(one_cycle(STEPS + 1), 1, frozen=["stem"]), net)
    assert torch.equal(network()["stem"].weight, net["stem"].weight)


def lightning_refuses_late_locks():
    """In `configure_optimizers` it is too late for DDP; the error has the way out."""
    with pytest.raises(nnlr.NnlrError, match=r"stem.*inside Distributed.*def setup"):
        lightning_fit(nnlr.freeze("stem.*"))


def accelerate_run(total, split_batches=False, after_step=lambda _: None):
    """Prepared in one call; the loop of Accelerate's documentation."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    accelerator = Accelerator(
        cpu=True,
        dataloader_config=DataLoaderConfiguration(split_batches=split_batches),
    )
    net = network()
    optimizer = resolved(net).optimizer(torch.optim.AdamW)
    steps = total(accelerator)
    scheduler = nnlr.schedule(optimizer, one_cycle(steps))
    loader = DataLoader(batches(), batch_size=2 * (WORLD if split_batches else 1))

    class Whole(nn.Module):  # DDP exchanges gradients of what goes through its forward
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return loss_of(self.net, x)

    model, optimizer, scheduler, loader = accelerator.prepare(Whole(), optimizer, scheduler, loader)
    assert STEPS == len(loader)
    for x in loader:
        accelerator.backward(model(x))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        after_step(scheduler.scheduler.last_epoch)
    return net, scheduler.scheduler


def scheduled_steps(accelerator):
    steps = nnlr.integrations.accelerate.schedule_steps(accelerator, STEPS)
    return steps + 1


def accelerate_trains():
    """Accelerate steps the schedule twice at a time; so does the loop by hand."""
    net, scheduler = accelerate_run(scheduled_steps)
    assert WORLD * STEPS == scheduler.last_epoch
    assert_same(by_hand(one_cycle(WORLD * STEPS + 1), per_step=WORLD), net)


def accelerate_splits_batches():
    """With split_batches it steps once, and that is what schedule_steps says."""
    net, scheduler = accelerate_run(scheduled_steps, split_batches=True)
    assert STEPS == scheduler.last_epoch
    assert_same(by_hand(one_cycle(STEPS + 1), per_step=1), net)


def accelerate_ends_too_soon():
    """A total in optimizer steps is over after half of them, without a word."""
    seen = []
    _, scheduler = accelerate_run(lambda _: STEPS, after_step=seen.append)
    assert STEPS == scheduler.last_epoch
    assert [2, 4, 6, 6, 6, 6] == seen


def accelerate_steps_plateaus_twice():
    """A prepared plateau spends its patience twice as fast; one that is not does not."""
    from accelerate import Accelerator

    for prepare, expected in ((True, [1, 3, 5]), (False, [0, 1, 2])):
        accelerator = Accelerator(cpu=True)
        net = nn.Linear(4, 1)
        optimizer = resolved(net, nnlr.rule("*")).optimizer(torch.optim.SGD)
        scheduler = nnlr.schedule(optimizer, lrs.ReduceLROnPlateau, patience=9)
        plateau, stepped = scheduler, accelerator.prepare(optimizer)
        if prepare:
            stepped = accelerator.prepare(scheduler)
        bad = []
        for _ in expected:
            optimizer.step()
            (stepped if prepare else plateau).step(1.0)
            bad.append(plateau.num_bad_epochs)
        assert expected == bad


def lightning_compares_plans():
    """Other rates on one of two processes stop both, before an optimizer is built."""
    net = network()
    scheme = nnlr.rule("body.*", lr_mult=0.1 + 0.1 * dist.get_rank())
    with pytest.raises(nnlr.PlanMismatchError, match=r"lr of 'body\.weight' is"):
        nnlr.integrations.lightning.configure(net, resolved(net, scheme), torch.optim.SGD)
    nnlr.integrations.lightning.configure(net, resolved(net), torch.optim.SGD)


def lightning_unfreezes_alike():
    """Metrics that differ from process to process begin a phase in all of them at once."""
    import lightning

    from nnlr.integrations.lightning import EpochCallback, configure

    phases = [{"train": "net.head.*"}, {"train": "net.body.*", "epoch": 1}]
    phases.append({"train": "*", "patience": 1})

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.opened = network(), []

        def training_step(self, batch, _):
            return loss_of(self.net, batch)

        def validation_step(self, batch, _):
            score = (1.0, 0.9, 0.95, 0.96)[self.current_epoch]
            self.log("score", score * (1 - 2 * self.global_rank))  # the second one's rises

        def on_train_epoch_start(self):
            self.opened.append(sum(layer.weight.requires_grad for layer in self.net.values()))

        def configure_optimizers(self):
            plan = resolved(self, nnlr.unfreeze(phases, restore_best=True))
            return configure(self, plan, torch.optim.AdamW)

    module, data = Module(), DataLoader(batches(), batch_size=2)
    strategy = "ddp_find_unused_parameters_true"
    trainer = quiet_trainer(strategy=strategy, max_epochs=4, callbacks=[EpochCallback("score")])
    trainer.fit(module, data, data)
    assert [1, 2, 2, 3] == module.opened
    weights = torch.cat([param.detach().flatten() for param in module.parameters()])
    everyones = [torch.empty_like(weights) for _ in range(WORLD)]
    dist.all_gather(everyones, weights)
    assert torch.equal(*everyones)


SCENARIOS = {
    "accelerate": [
        accelerate_trains,
        accelerate_splits_batches,
        accelerate_ends_too_soon,
        accelerate_steps_plateaus_twice,
    ],
    "lightning": [
        lightning_trains,
        lightning_locks_in_setup,
        lightning_refuses_late_locks,
        lightning_compares_plans,
        lightning_unfreezes_alike,
    ],
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Run the scenarios of a package once, in two processes."""
    told = {}

    def of(package):
        pytest.importorskip(package)
        if package not in told:
            folder = tmp_path_factory.mktemp(package)
            told[package] = outcomes(SCENARIOS[package], WORLD, folder)
        return told[package]

    return of


@pytest.mark.parametrize(
    ("package", "scenario"),
    [
        pytest.param(
            package,
            scenario,
            id=scenario.__name__,
            # Its import alone takes as long as all of Accelerate's scenarios.
            marks=[pytest.mark.full] if package == "lightning" else [],
        )
        for package, scenarios in SCENARIOS.items()
        for scenario in scenarios
    ],
)
def test_every_process_agrees(said, package, scenario):
    """The scenario's own docstring is the claim; no process may object."""
    tell(said(package)[scenario.__name__])
