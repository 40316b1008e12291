"""One optimizer of several classes from a plan: which class trains what, and what does not fit."""

from functools import partial

import pytest
import torch
from torch import nn

import nnlr

RATES = {"muon": 0.02, "adamw": 3e-4}

BOTH = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}


@pytest.fixture
def net():
    return nn.ModuleDict(
        {"up": nn.Linear(8, 16), "down": nn.Linear(16, 8), "head": nn.Linear(8, 2)}
    )


def resolved(net, *schemes, **settings):
    return nnlr.resolve(net, *schemes, **{"lr": RATES, "weight_decay": 0.1, **settings})


def routed(net, *schemes, **settings):
    return resolved(net, nnlr.route("muon", "adamw"), *schemes, **settings)


def test_each_class_gets_its_groups(net):
    """With the settings of its partial, its base rates, and the options of rules."""
    rule = nnlr.rule("head.*", options={"betas": (0.5, 0.6)})
    plan = routed(net, rule, weight_decay={"muon": 0.2, "adamw": 0.01})
    optimizer = plan.optimizer({**BOTH, "muon": partial(torch.optim.Muon, momentum=0.5)})
    groups = {
        (group["algorithm"], group["lr"], group["weight_decay"], group.get("momentum"), betas)
        for group in optimizer.param_groups
        for betas in [group.get("betas")]
    }
    assert groups == {
        ("muon", 0.02, 0.2, 0.5, None),
        ("adamw", 3e-4, 0.01, None, (0.9, 0.999)),
        ("adamw", 3e-4, 0.01, None, (0.5, 0.6)),
    }


def test_an_option_that_its_class_does_not_know(net):
    """That another class knows it does not help."""
    rule = nnlr.rule("up.weight", options={"betas": (0.5, 0.6)})
    with pytest.raises(nnlr.ConfigError, match=r"Muon .*betas"):
        routed(net, rule).optimizer(BOTH)


def test_one_algorithm_of_several_may_have_nothing(net):
    """A recipe for several models: its class is built when it gets a group."""
    plan = resolved(net, nnlr.rule("*", algorithm="adamw"))
    assert ["algorithm-without-parameters"] == [finding.kind for finding in plan.findings]
    optimizer = plan.optimizer(BOTH)
    assert ["adamw"] == list(optimizer.algorithms)
    single = plan.optimizer(torch.optim.AdamW)
    assert [3e-4] == [group["lr"] for group in single.param_groups]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, r"routes parameters to 'muon', and no class has that name: there is none"),
        ({"muon": torch.optim.Muon}, "to 'adamw', and no class has that name: 'muon'"),
        (
            {"muno": torch.optim.Muon, "adamw": torch.optim.AdamW},
            "to 'muon', and no class has that name.*Nearest: 'muno'",
        ),
        (
            {**BOTH, "lion": torch.optim.SGD},
            "The plan routes nothing to 'lion': its algorithms are 'muon', 'adamw'",
        ),
        ({**BOTH, 3: torch.optim.SGD}, "The plan routes nothing to 3"),
        ({**BOTH, "adamw": 3}, "optimizer needs an optimizer class .* got 3"),
        (
            {**BOTH, "adamw": partial(torch.optim.AdamW, lr=1)},
            r"lr={'adamw': 1} is not passed here.* plan\.with_rates\(lr={'adamw': 1}\)",
        ),
        ({**BOTH, "adamw": torch.optim.Muon}, "Muon trains matrices only"),
    ],
)
def test_classes_and_algorithms_match_one_to_one(net, classes, message):
    """Each algorithm has a class, each class an algorithm."""
    with pytest.raises(nnlr.ConfigError, match=message):
        routed(net).optimizer(classes)


def test_what_is_locked_or_elsewhere_needs_no_other_classes(net):
    """The same classes serve the head alone, and each stage of a pipeline."""
    frozen = nnlr.resolve(
        net, nnlr.route(*BOTH), nnlr.rule("*.weight", lr_mult=0), lr=0.1, weight_decay=0
    )
    assert ["adamw"] == list(frozen.optimizer(BOTH).algorithms)
    frozen.unlock()
    whole = nnlr.resolve(net, nnlr.route(*BOTH), lr=0.1, weight_decay=0)
    stage = nn.ModuleDict({"head": net["head"]})
    assert ["adamw"] == list(whole.optimizer(BOTH, model=stage, partial=True).algorithms)
    nothing = nnlr.resolve(
        net, nnlr.route(*BOTH), nnlr.rule("*", lr_mult=0), lr=0.1, weight_decay=0
    )
    with pytest.raises(nnlr.ConfigError, match="nothing to give 'muon' or 'adamw'"):
        nothing.optimizer(BOTH)


def test_one_class_for_two_algorithms(net):
    """It cannot know which; the line to paste names both."""
    fix = r"Pass one for each: plan\.optimizer\(\{'muon': \.\.\., 'adamw': \.\.\.\}\)\."
    with pytest.raises(nnlr.ConfigError, match=fix):
        routed(net).optimizer(torch.optim.AdamW)


def test_settings_are_bound_to_a_class(net):
    """Not passed for all of them."""
    with pytest.raises(nnlr.ConfigError, match=r"functools.partial\(cls, betas=...\)"):
        routed(net).optimizer(BOTH, betas=(0.9, 0.95))
    both = r"plan\.with_rates\(lr={'muon': 0\.1, 'adamw': 0\.1}\)"
    with pytest.raises(nnlr.ConfigError, match=both):
        routed(net).optimizer(BOTH, lr=0.1)
    assert 0.1 == routed(net).with_rates(lr={"muon": 0.1, "adamw": 0.1})["up.weight"].lr


def test_a_parameter_that_nobody_takes(net):
    """It is named, with what routes it; and nothing was locked."""
    plan = nnlr.resolve(
        net,
        nnlr.rule("*.weight", algorithm="muon") * nnlr.rule("up.*", lr_mult=0),
        lr=0.1,
        weight_decay=0,
    )
    nobodys = r"No algorithm trains 2 parameters: down\.bias, head\.bias\.\n  Route them: "
    two = r"resolve\(model, nnlr\.route\('muon', 'adamw'\), \.\.\.\), or nnlr\.rule\("
    with pytest.raises(nnlr.CoverageError, match=f"{nobodys}{two}"):
        plan.optimizer(BOTH)
    with pytest.raises(nnlr.CoverageError, match=rf"{nobodys}nnlr\.rule\("):
        plan.optimizer({"muon": torch.optim.Muon})
    assert net["up"].weight.requires_grad
    both = nnlr.resolve(net, nnlr.route(*BOTH), lr=0.1, weight_decay=0)
    assert set(BOTH) == set(both.optimizer(BOTH).algorithms)


def test_two_rules_that_disagree(net):
    """Both are named; one rule overrules a recipe."""
    rules = nnlr.rule("up.*", algorithm="muon"), nnlr.rule("*.weight", algorithm="adamw")
    with pytest.raises(nnlr.ConfigError, match=r"'up.weight' is sent to two algorithms: 'muon' by"):
        routed(net, *rules)
    assert "adamw" == routed(net, rules[1])["up.weight"].algorithm


@pytest.mark.parametrize("cls", [nnlr.optim.AdamW, nnlr.optim.SGD])
def test_ours_have_a_kind_too(net, cls):
    """Factors for another kind are refused, as with torch's classes."""
    base = nn.ModuleDict({"up": nn.Linear(4, 8), "down": nn.Linear(8, 4), "head": nn.Linear(4, 2)})
    kind = "sgd" if cls is nnlr.optim.AdamW else "adamw"
    plan = nnlr.resolve(net, nnlr.mup(base, optimizer=kind), lr=0.1, weight_decay=0.1)
    with pytest.raises(nnlr.ConfigError, match=f"does not go with mup.*optimizer='{kind}'"):
        plan.optimizer(cls, init="done")


def test_what_one_class_does_not_have(net):
    """The fix leaves the other as it was."""
    classes = {**BOTH, "adamw": torch.optim.Rprop}
    with pytest.raises(nnlr.ConfigError, match=r"Resolve with weight_decay={'adamw': 0, \.\.\.}"):
        routed(net).optimizer(classes)
    plan = routed(net).with_rates(weight_decay={"adamw": 0})
    assert {0.0, 0.1} == {
        group.get("weight_decay", 0.0) for group in plan.optimizer(classes).param_groups
    }
    betas = nnlr.rule("*", options={"betas": (0.8, 0.9)})
    with pytest.raises(nnlr.ConfigError, match=r"'betas' .*others by \.where\(selector\)"):
        routed(net, betas).optimizer(BOTH)
    assert routed(net, betas.where("head.*")).optimizer(BOTH)
