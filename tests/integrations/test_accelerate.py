"""nnlr.integrations.accelerate, and what docs/trainers/accelerate.md says of Accelerate."""

import runpy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr
from tests.helpers import hide_package, network, same_weights
from tests.integrations import algorithms

accelerate = pytest.importorskip("accelerate")

from nnlr.integrations.accelerate import schedule_steps  # noqa: E402 - after the skip

BASE = 1e-2


@pytest.fixture(autouse=True)
def alone():
    """What an earlier test told Accelerate holds for the whole process: forget it."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def accelerator(**settings):
    return accelerate.Accelerator(cpu=True, **settings)


def optimizer_of(model):
    plan = nnlr.resolve(model, nnlr.rule("0.*", lr_mult=0.1), lr=BASE, weight_decay=0.01)
    return plan.optimizer(torch.optim.AdamW)


def batches(number=12):
    source = torch.Generator().manual_seed(1)
    return torch.randn(number, 2, 4, generator=source)


def train(run, model, optimizer, scheduler):
    """The loop of Accelerate's documentation; the rates that each optimizer step used."""
    rates = []
    for x in batches():
        with run.accumulate(model):
            run.backward(model(x).square().mean())
            if run.sync_gradients:
                rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return rates


class TestScheduleSteps:
    def test_one_process_steps_once(self):
        """Then the length is the number of optimizer steps."""
        assert 100 == schedule_steps(accelerator(), 100)

    def test_what_the_scheduler_is_not_tied_to_steps_once(self):
        """Whoever steps it by hand counts by hand."""
        run = accelerator(step_scheduler_with_optimizer=False)
        assert 100 == schedule_steps(run, 100)

    def test_numpys_whole_numbers_are_some(self):
        """Lengths often come out of numpy."""
        found = schedule_steps(accelerator(), np.int64(100))
        assert (int, 100) == (type(found), found)

    def test_the_accelerator_comes_first(self):
        """Its class has properties where it has answers."""
        for wrong in (accelerate.Accelerator, 100):
            with pytest.raises(nnlr.NnlrError, match="needs an Accelerator first, got"):
                schedule_steps(wrong, 100)

    @pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "10", float("inf")])
    def test_something_else_is_refused(self, wrong):
        """An infinite loader has no length to pass on."""
        with pytest.raises(nnlr.NnlrError, match=r"steps must be a whole number >= 1, got"):
            schedule_steps(accelerator(), wrong)


def test_a_total_counts_optimizer_steps_under_accumulation():
    """Three batches to a step: a one-cycle schedule of four steps is used to its end."""
    run, model = accelerator(gradient_accumulation_steps=3), network(4, 4, 1)
    optimizer = optimizer_of(model)
    total = schedule_steps(run, 4)
    scheduler = nnlr.schedule(optimizer, lrs.OneCycleLR, max_lr=5e-2, total_steps=total)
    rates = train(run, *run.prepare(model, optimizer, scheduler))
    one = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=BASE, momentum=0.9)
    alone = lrs.OneCycleLR(one, 5e-2, total_steps=total)
    expected = [alone.get_last_lr()[0]]
    for _ in range(3):
        one.step()
        alone.step()
        expected.append(alone.get_last_lr()[0])
    assert [[rate, rate * 0.1] for rate in expected] == rates


def test_a_scheduler_by_hand_does_not_wait_for_the_optimizer():
    """Then it is to be stepped where gradients are exchanged; the page says so."""
    run, model = accelerator(step_scheduler_with_optimizer=False), network(4, 4, 1)
    optimizer = optimizer_of(model)
    scheduler = nnlr.schedule(optimizer, lrs.StepLR, step_size=100)
    run.gradient_accumulation_steps = 3
    prepared = run.prepare(model, optimizer, scheduler)
    with pytest.warns(nnlr.NnlrWarning, match="stepped before the optimizer"):
        train(run, *prepared)
    assert 12 == scheduler.last_epoch


class TestPlateau:
    def test_it_is_saved_and_loaded_without_being_prepared(self, tmp_path):
        """Stepped by hand, registered for checkpointing."""

        def prepared():
            run, model = accelerator(), network(4, 4, 1)
            optimizer = optimizer_of(model)
            scheduler = nnlr.schedule(
                optimizer, lrs.ReduceLROnPlateau, patience=1, factor=0.5, min_lr=4e-3
            )
            model, optimizer = run.prepare(model, optimizer)
            run.register_for_checkpointing(scheduler)
            return run, optimizer, scheduler

        def follow(optimizer, scheduler, metrics):
            seen = []
            for metric in metrics:
                scheduler.step(metric)
                seen.append([group["lr"] for group in optimizer.param_groups])
            return seen

        run, optimizer, scheduler = prepared()
        optimizer.step()
        follow(optimizer, scheduler, [1.0, 1.0])
        run.save_state(tmp_path)
        rest = follow(optimizer, scheduler, [1.0, 1.0, 1.0])
        expected = [[5e-3, 5e-4], [5e-3, 5e-4], [4e-3, 4e-4]]
        for want, got in zip(expected, rest, strict=True):
            assert want == pytest.approx(got)
        run, optimizer, scheduler = prepared()
        run.load_state(tmp_path)
        assert rest == follow(optimizer, scheduler, [1.0, 1.0, 1.0])


def test_several_algorithms_are_saved_and_resumed(tmp_path):
    """Accumulated over two batches, clipped, interrupted: equal to two optimizers."""

    def halved(optimizer):
        return lrs.LinearLR(optimizer, 1.0, 0.5, total_iters=6)

    def prepared():
        run, model = accelerator(gradient_accumulation_steps=2), network(4, 5, 4, 1)
        optimizer = algorithms.one_of(model)
        return run, *run.prepare(model, optimizer, halved(optimizer))

    expected = network(4, 5, 4, 1)
    optimizers = algorithms.several_of(expected, ["0.weight", "1.weight"])
    schedulers = [halved(optimizer) for optimizer in optimizers]
    for at, x in enumerate(batches()):
        (expected(x).square().mean() / 2).backward()
        if at % 2:
            nn.utils.clip_grad_norm_(expected.parameters(), 0.1)
            algorithms.step_all(optimizers, schedulers)
    run, model, optimizer, scheduler = prepared()
    for at, x in enumerate(batches()):
        if at == 6:
            run.save_state(tmp_path)
            run, model, optimizer, scheduler = prepared()
            run.load_state(tmp_path)
        with run.accumulate(model):
            run.backward(model(x).square().mean())
            if run.sync_gradients:
                run.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert same_weights(expected, model)


def test_rates_can_be_read_from_the_prepared_optimizer():
    """Accelerate's wrapper has parameter groups as well."""
    run = accelerator()
    optimizer = run.prepare(optimizer_of(network(4, 4, 1)))
    expected = {"lr": BASE, "lr_min": BASE * 0.1, "lr_max": BASE}
    assert expected == pytest.approx(nnlr.rate_summary(optimizer))


def test_without_accelerate_it_says_what_to_install(monkeypatch):
    """The message has the line to paste."""
    hide_package(monkeypatch, "accelerate")
    with pytest.raises(nnlr.NnlrError, match="Fix: pip install accelerate"):
        runpy.run_path(nnlr.integrations.accelerate.__file__)


class TestMoves:
    """Multipliers that move: attach takes what prepare returned."""

    @pytest.mark.parametrize("every", [1, 3])
    def test_they_move_by_optimizer_steps_and_resume(self, tmp_path, every):
        """Accumulated batches are one step; the whole run equals one in two halves."""
        falling = nnlr.rule("0.*").at(lambda t: 1 - t)
        made = []
        for _ in range(2):
            run, model = accelerator(gradient_accumulation_steps=every), network(4, 4, 1)
            plan = nnlr.resolve(model, falling, lr=BASE, weight_decay=0.01)
            model, optimizer = run.prepare(model, plan.optimizer(torch.optim.AdamW))
            attached = nnlr.attach(optimizer, plan, model=model, total_steps=12 // every)
            scheduler = nnlr.schedule(optimizer.optimizer, lrs.ConstantLR, factor=1.0)
            made.append((run, model, optimizer, run.prepare(scheduler), attached))
        (run, model, optimizer, scheduler, attached), second = made
        rates = train(run, model, optimizer, scheduler)
        wanted = [BASE * (1 - at * every / 12) for at in range(12 // every)]
        assert [rate[0] for rate in rates] == pytest.approx(wanted)
        run.save_state(str(tmp_path))
        for each, state in zip(second[1:4], (model, optimizer, scheduler), strict=True):
            each.load_state_dict(state.state_dict())
        assert second[4].progress.step == attached.progress.step == 12 // every
        assert second[2].param_groups[0]["lr"] == 0
