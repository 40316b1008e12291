"""A long run costs at its end what it cost at its beginning."""

import gc
import io
import operator
from functools import partial
from statistics import median

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import nnlr
from tests.cost import calls

pytestmark = pytest.mark.no_cover

LAYERS = 1000  # of two tensors each


def rounds(times, layers=LAYERS):
    """Steps, new plans, and loading now and then; yields what the parts of every tenth cost."""
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

    def step():
        for _ in range(3):
            optimizer.step()
            scheduler.step()

    def resume():
        file = io.BytesIO()
        torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
        file.seek(0)
        saved, progress = torch.load(file, weights_only=True)
        optimizer.load_state_dict(saved)
        scheduler.load_state_dict(progress)

    for number in range(times):
        plan = plans[number % len(plans)]
        measure = calls if number % 10 == 0 else operator.call
        costs = {
            "step": measure(step),
            "regroup": measure(partial(nnlr.regroup, optimizer, plan)),
        }
        for tensor in model.parameters():
            if tensor.requires_grad and tensor.grad is None:
                tensor.grad = torch.ones_like(tensor)
        if number % 20 == 0:
            costs["resume"] = measure(resume)
        yield costs if measure is calls else {}


def objects():
    """How many objects are alive, of all kinds, and how many of them are tensors."""
    gc.collect()
    alive = gc.get_objects()
    return len(alive), sum(issubclass(type(each), torch.Tensor) for each in alive)


def test_nothing_piles_up():
    """After 160 rounds there are as many objects as after 100, when all caches are filled."""
    played = enumerate(rounds(161, layers=20))
    counts = [objects() for number, _ in played if number in {100, 160}]
    (early, tensors), (late, others) = counts
    assert others <= tensors
    assert late - early < 20, "objects of 60 more rounds"


@pytest.mark.full
@pytest.mark.usefixtures("one_thread")
def test_two_thousand_tensors_for_thousands_of_steps():
    """3,000 steps, 1,000 plans and 50 checkpoints: no more memory, no more work."""
    counts, costs = [], {"step": [], "regroup": [], "resume": []}
    for number, cost in enumerate(rounds(1001)):
        for part, number_of_calls in cost.items():
            costs[part].append(number_of_calls)
        if number in {100, 1000}:
            counts.append(objects())  # while the model still lives
    (early, tensors), (late, others) = counts
    assert tensors == others
    assert late - early < 200, "objects of 900 more rounds"
    for part, all_of_them in costs.items():
        tenth = len(all_of_them) // 10
        first, last = median(all_of_them[:tenth]), median(all_of_them[-tenth:])
        assert last < 1.02 * first, f"{part}: {first} calls at first, {last} at last"
