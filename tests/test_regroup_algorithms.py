"""A new plan for an optimizer of several algorithms."""

import copy
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

import nnlr

LR = {"muon": 0.02, "adamw": 1e-3}
CLASSES = {
    "muon": torch.optim.Muon,
    "adamw": partial(torch.optim.AdamW, betas=(0.8, 0.95)),
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))


def plan(model, *schemes, lr=LR, decay=0.1):
    routing = [
        nnlr.rule(selector, algorithm=name, optional=True)
        for selector, name in (("*.weight", "muon"), ("*.bias", "adamw"))
    ]
    routed = nnlr.rules([*schemes, *routing])
    return nnlr.resolve(model, routed, lr=lr, weight_decay=decay)


def train(model, optimizer, steps=3, first=0):
    for step in range(first, first + steps):
        for p in model.parameters():
            generator = torch.Generator().manual_seed(step)
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def trained(model, *schemes, classes=("muon", "adamw"), **settings):
    chosen = {name: CLASSES[name] for name in classes}
    optimizer = plan(model, *schemes, **settings).optimizer(chosen)
    train(model, optimizer)
    return optimizer


def fresh(model, *schemes, classes=("muon", "adamw"), **settings):
    """The optimizer that a new run builds and gives the old state."""
    return plan(model, *schemes, **settings).optimizer({name: CLASSES[name] for name in classes})


LR3 = {**LR, "sgd": 0.01}
TO_SGD = nnlr.rule("1.weight", algorithm="sgd")
TO_ADAMW = nnlr.rule("1.weight", algorithm="adamw")
FIVE = nnlr.rule("0.weight", algorithm="muon", lr_mult=0.5, options={"nesterov": False})
LOCK = nnlr.rule("0.weight", algorithm="muon", lr_mult=0)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ([], [FIVE], None),
        ([LOCK], [], None),
        ([], [LOCK], None),
        ([], [TO_ADAMW], "1.weight"),
        ([TO_ADAMW], [FIVE], "1.weight"),
        ([], [TO_SGD], "1.weight"),
        ([TO_SGD], [], "1.weight"),
        ([], [nnlr.rule("*", algorithm="adamw")], "0.weight, 1.weight, 2.weight"),
        ([nnlr.rule("*", algorithm="adamw")], [], "0.weight, 1.weight, 2.weight"),
    ],
)
def test_equals_a_new_run_that_loads(before, after, named):
    """Groups, state and what training makes of them; whose algorithm changed is named."""
    model = network()
    optimizer = trained(model, *before, classes=CLASSES, lr=LR3)
    twin = copy.deepcopy(model)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.requires_grad_(p.requires_grad)
    saved = copy.deepcopy(optimizer.state_dict())
    with warnings.catch_warnings(record=True, action="always") as warned:
        nnlr.regroup(optimizer, plan(model, *after, lr=LR3))
    if named:
        assert str(warned[0].message).endswith(f"start afresh: {named}.")
    assert len(warned) == bool(named)
    for p in twin.parameters():
        p.requires_grad_(True)
    second = fresh(twin, *after, classes=CLASSES, lr=LR3)
    with warnings.catch_warnings(action="ignore"):
        second.load_state_dict(saved)
    assert list(optimizer.algorithms) == list(second.algorithms)
    for one, other in zip(optimizer.param_groups, second.param_groups, strict=True):
        assert {**one, "params": 0} == {**other, "params": 0}
    train(model, optimizer, first=3)
    train(twin, second, first=3)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_bases_of_each():
    """A schedule goes on from the new ones, as far as it has come."""
    model = network()
    optimizer = trained(model)
    scheduler = nnlr.schedule(optimizer, lrs.ExponentialLR, gamma=0.5)
    train(model, optimizer)
    scheduler.step()
    nnlr.regroup(optimizer, plan(model, lr={"muon": 0.04, "adamw": 4e-3}))
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 2e-3]
    assert {n: m.defaults["lr"] for n, m in optimizer.algorithms.items()} == {
        "muon": 0.04,
        "adamw": 4e-3,
    }
    assert optimizer.defaults["lr"] == 0.04
    train(model, optimizer)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 1e-3]


def test_courses_of_their_own():
    """Who is rerouted follows the course of its new algorithm."""
    model = network()
    optimizer = trained(model)
    halve, keep = partial(lrs.ExponentialLR, gamma=0.5), partial(lrs.ConstantLR, factor=1.0)
    scheduler = nnlr.schedule(optimizer, {"muon": halve, "adamw": keep})
    train(model, optimizer)
    scheduler.step()
    with pytest.warns(nnlr.NnlrWarning, match="start afresh"):
        nnlr.regroup(optimizer, plan(model, nnlr.rule("*", algorithm="adamw")))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3]
    nnlr.regroup(optimizer, plan(model))  # nothing has stepped in between
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 1e-3]


def test_an_algorithm_that_it_was_not_built_with():
    """The way out is said; nothing is changed."""
    model = network()
    optimizer = trained(model)
    before = str(optimizer.state_dict())
    with pytest.raises(nnlr.ConfigError, match=r"routes parameters to 'sgd', .* 'muon', 'adamw'"):
        nnlr.regroup(optimizer, plan(model, TO_SGD, lr=LR3))
    with pytest.raises(nnlr.CoverageError, match=r"No algorithm trains 6 parameters"):
        nnlr.regroup(optimizer, nnlr.resolve(model, lr=0.1, weight_decay=0))
    plain = torch.optim.SGD(model.named_parameters(), lr=0.1)
    with pytest.raises(nnlr.ConfigError, match=r"is one class\. Pass one for each"):
        nnlr.regroup(plain, plan(model))
    assert before == str(optimizer.state_dict())
    way_out = fresh(model, TO_SGD, classes=CLASSES, lr=LR3)
    with pytest.warns(nnlr.NnlrWarning, match="start afresh"):
        way_out.load_state_dict(optimizer.state_dict())


def test_a_class_that_refuses():
    """Groups, state and members are as they were."""

    class Fussy(torch.optim.SGD):
        def add_param_group(self, group):
            if self.param_groups or len(group["params"]) == 1:
                raise ValueError("no")
            super().add_param_group(group)

    model = network()
    two = plan(model, nnlr.rule("2.*", algorithm="sgd"), lr=LR3)
    classes = {**CLASSES, "sgd": Fussy}
    optimizer = two.optimizer(classes)
    train(model, optimizer)
    before = copy.deepcopy(optimizer.state_dict())
    fussy = plan(model, TO_SGD, nnlr.rule("2.bias", algorithm="sgd", lr_mult=0.1), lr=LR3)
    with (
        pytest.warns(nnlr.NnlrWarning, match="start afresh"),
        pytest.raises(nnlr.ConfigError, match="Mixed refused the new groups: no"),
    ):
        nnlr.regroup(optimizer, fussy)
    assert str(before) == str(optimizer.state_dict())
    train(model, optimizer)


def test_a_plan_of_one_algorithm_for_one_class():
    """Its name is a label."""
    model = network()
    one = nnlr.resolve(model, nnlr.rule("*", algorithm="sgd"), lr=0.1, weight_decay=0)
    optimizer = one.optimizer(torch.optim.SGD, momentum=0.9)
    train(model, optimizer)
    nnlr.regroup(optimizer, one.with_rates(lr=0.2))
    assert [group["lr"] for group in optimizer.param_groups] == [0.2]
    assert len(optimizer.state) == 6
