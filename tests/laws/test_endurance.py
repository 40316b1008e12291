"""A long run costs at its end what it cost at its beginning."""

import gc
import io
from statistics import median
from time import process_time

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import nnlr

LAYERS = 1000  # of two tensors each


def rounds(times, layers=LAYERS):
    """Steps, new plans, and loading now and then; yields what each part of a round took."""
    model = nn.ModuleList(nn.Linear(2, 2) for _ in range(layers))
    for tensor in model.parameters():
        tensor.grad = torch.ones_like(tensor)
    schemes = [
        nnlr.rule("*.bias", lr_mult=0.5) * nnlr.no_weight_decay(),
        nnlr.rule(nnlr.regex(r"\d*[02468]\..*"), lr_mult=0.1, wd_mult=2.0),
        nnlr.rule("1*", lr_mult=0),
    ]
    plans = [nnlr.resolve(model, each, lr=1e-3, weight_decay=0.1) for each in schemes]
    optimizer = plans[0].optimizer(torch.optim.AdamW, fused=True)
    scheduler = nnlr.schedule(optimizer, CosineAnnealingLR, T_max=50, eta_min=1e-4)
    for number in range(times):
        took = {}
        start = process_time()
        for _ in range(3):
            optimizer.step()
            scheduler.step()
        took["step"] = process_time() - start
        start = process_time()
        nnlr.regroup(optimizer, plans[number % len(plans)])
        took["regroup"] = process_time() - start
        for tensor in model.parameters():
            if tensor.requires_grad and tensor.grad is None:
                tensor.grad = torch.ones_like(tensor)
        start = process_time()
        if number % 20 == 0:
            file = io.BytesIO()
            torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
            file.seek(0)
            saved, progress = torch.load(file, weights_only=True)
            optimizer.load_state_dict(saved)
            scheduler.load_state_dict(progress)
            took["resume"] = process_time() - start
        yield took


def objects():
    """How many objects are alive, of all kinds, and how many of them are tensors."""
    gc.collect()
    alive = gc.get_objects()
    return len(alive), sum(issubclass(type(each), torch.Tensor) for each in alive)


def test_nothing_piles_up():
    """After a hundred rounds there are as many objects as after forty."""
    played = enumerate(rounds(101, layers=20))
    counts = [objects() for number, _ in played if number in {40, 100}]
    (early, tensors), (late, others) = counts
    assert others <= tensors
    assert late - early < 20, "objects of 60 more rounds"


@pytest.mark.full
@pytest.mark.usefixtures("one_thread")
def test_two_thousand_tensors_for_thousands_of_steps():
    """3,000 steps, 1,000 plans and 50 checkpoints: no more memory, no more time."""
    times = {"step": [], "regroup": [], "resume": []}
    for number, took in enumerate(rounds(1001)):
        for part, seconds in took.items():
            times[part].append(seconds)
        if number == 100:
            before = objects()
    alive, tensors = objects()
    assert before[1] == tensors
    assert alive - before[0] < 200, "objects of 900 more rounds"
    for part, all_of_them in times.items():
        tenth = len(all_of_them) // 10
        first, last = median(all_of_them[:tenth]), median(all_of_them[-tenth:])
        assert last < 1.5 * first, (
            f"{part}: {first:.4f} s at first, {last:.4f} s at last"
        )
