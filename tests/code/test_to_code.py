"""`plan.to_code`: the groups, the optimizer and the training of the plan, without nnlr."""

import ast
import copy
import functools
import gc
import json
import subprocess
import sys
import types

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn
from torch.optim import SGD, AdamW, Muon

import nnlr
from nnlr.errors import ConfigError, CoverageError, NnlrError
from tests import zoo
from tests.code.written import Heavy, Outer, Small, compare, groups_of, run
from tests.helpers import network
from tests.laws import strategies

RATES = {"lr": 0.1, "weight_decay": 0.01}


def blocks(count=4):
    """An embedding, blocks and a head."""
    model = zoo.Net()
    model.blocks = nn.ModuleList(zoo.Block() for _ in range(count))
    return model


class Scaled(nnlr.Scheme):
    """Scales the eps and the initial weights of matrices."""

    def factors(self, model):
        return [
            nnlr.Factor(eps_mult=0.5, init_mult=0.25) if param.ndim == 2 else nnlr.Factor()
            for param in model.params
        ]


CASES = {
    "one rate": (zoo.plain, nnlr.rule("*", lr_mult=0.5), AdamW, {}),
    "layers": (
        blocks,
        nnlr.layer_decay(0.7) * nnlr.no_weight_decay(),
        AdamW,
        {"betas": (0.8, 0.9)},
    ),
    "head first": (blocks, nnlr.layer_decay(0.7) * nnlr.rule("head.*", lr_mult=9), AdamW, {}),
    "three decays": (
        blocks,
        nnlr.rule("*", lr_mult=0.5)
        * nnlr.rule("embed.*", wd_mult=3)
        * nnlr.rule("*.bias", wd_mult=2)
        * nnlr.rule("head.*", wd_mult=5),
        SGD,
        {"momentum": 0.9},
    ),
    "frozen layers": (blocks, nnlr.rule("blocks.[01].*", lr_mult=0), SGD, {"nesterov": False}),
    "decay by layer": (
        blocks,
        nnlr.rules([nnlr.rule(f"blocks.{i}.*", lr_mult=1 + i * i, wd_mult=i + 2) for i in range(4)])
        * nnlr.rule("*.bias", lr_mult=0.3),
        AdamW,
        {},
    ),
    "options": (
        blocks,
        nnlr.rule("blocks.[12].*", options={"betas": (0.5, 0.6)})
        * nnlr.rule("blocks.*.fc.*", lr_mult=0.3)
        * nnlr.layer_decay(0.5),
        AdamW,
        {},
    ),
    "options in an order of their own": (
        blocks,
        nnlr.rule("*.bias", wd_mult=2)
        * nnlr.rule("head.*", wd_mult=5, options={"betas": (0.5, 0.6)})
        * nnlr.rule("*", lr_mult=0.5),
        AdamW,
        {},
    ),
    "without decay": (zoo.plain, nnlr.rule("head.*", lr_mult=0.5), torch.optim.Rprop, {}),
    "frozen, without decay": (zoo.plain, nnlr.freeze("embed.*"), torch.optim.Rprop, {}),
    "layers and nothing else": (
        lambda: nn.Sequential(*(nn.Linear(2, 2) for _ in range(6))),
        nnlr.layer_decay(0.5),
        SGD,
        {},
    ),
    "tied": (zoo.tied, nnlr.rule("head.*", lr_mult=0.5), AdamW, {}),
    "parametrized": (zoo.weight_norm, nnlr.rule("*.bias", lr_mult=0.5), AdamW, {}),
    "numbers with zeros": (
        lambda: nn.ModuleDict({f"layer_{i:02}": nn.Linear(2, 2) for i in range(3)}),
        nnlr.rule("layer_01.*", lr_mult=0.5),
        SGD,
        {},
    ),
    "numbers within layers": (
        lambda: nn.ModuleDict(
            {
                "towers": nn.ModuleList(
                    nn.Sequential(*map(nn.Linear, (2,) * 3, (2,) * 3)) for _ in "ab"
                )
            }
        ),
        nnlr.rule("towers.0.2.*", lr_mult=0.5) * nnlr.rule("towers.*.1.*", lr_mult=0.1),
        SGD,
        {},
    ),
    "named groups": (
        blocks,
        nnlr.rule("head.*", group="head")
        * nnlr.rule("blocks.*.fc.*", group="fc", lr_mult=0.5)
        * nnlr.rule("blocks.*.fc.bias", lr_mult=0.1)
        * nnlr.freeze("embed.*"),
        AdamW,
        {},
    ),
    "nnlr's own": (zoo.plain, nnlr.no_weight_decay(), nnlr.optim.AdamW, {}),
    "the loop of one's own": (zoo.plain, None, nnlr.optim.SGD, {"foreach": True}),
    "a class within another": (zoo.plain, None, Outer.Heavy, {}),
    "another package": (zoo.plain, nnlr.rule("head.*", lr_mult=0.5), Heavy, {"momentum": 0.5}),
    "partial": (zoo.plain, nnlr.no_weight_decay(), functools.partial(AdamW, amsgrad=True), {}),
    "eps and initial weights": (zoo.plain, Scaled(), AdamW, {"eps": 1e-6}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_trains_as_the_plan_does(case):
    """The same groups in the same order, and the same weights to the last bit."""
    make, scheme, cls, arguments = CASES[case]
    model = make()
    rates = RATES | ({"weight_decay": 0.0} if cls is torch.optim.Rprop else {})
    schemes = [scheme] if scheme else []
    compare(nnlr.resolve(model, *schemes, **rates), model, cls, **arguments)


def test_fused_kernels_where_they_are_right():
    """Torch's of SGD are wrong for 16 bits on a CPU, and `nnlr.optim` does not use them there."""
    for dtype, fused in ((torch.float32, True), (torch.bfloat16, False), (torch.complex64, False)):
        for device in ("cpu", "meta"):
            model = nn.Linear(2, 2, dtype=dtype, device=device)
            text = nnlr.resolve(model, **RATES).to_code(nnlr.optim.SGD)
            assert fused == ("fused=True" in text), (dtype, device)
    with torch.device("meta"):
        plan = nnlr.resolve(zoo.plain(), **RATES)
    assert "fused=True" in plan.to_code(AdamW, fused=True)


def test_names_of_classes(monkeypatch):
    """Two that are called the same, or as the code's own functions, are each what they are."""
    model = blocks()
    other = types.ModuleType("other_optimizers")
    other.Heavy = type("Heavy", (AdamW,), {"__module__": other.__name__})
    other.make_optimizer = type("make_optimizer", (SGD,), {"__module__": other.__name__})
    monkeypatch.setitem(sys.modules, other.__name__, other)
    plan = nnlr.resolve(model, nnlr.route("muon", "adamw"), **RATES)
    text = compare(plan, model, {"muon": Heavy, "adamw": other.Heavy})
    assert text.count("import Heavy as Heavy_") == 1
    assert "Heavy_" not in compare(plan, model, {"muon": Heavy, "adamw": Heavy})
    compare(nnlr.resolve(model, **RATES), model, other.make_optimizer)


def test_several_algorithms():
    """An optimizer for each; together they train as the one of the plan, in each order."""
    model = blocks()
    classes = {"muon": Muon, "adamw": functools.partial(AdamW, betas=(0.9, 0.95))}
    route = nnlr.route("muon", "adamw")
    own = {"lr": {"muon": 0.02, "adamw": 0.3}, "weight_decay": 0.1}
    text = compare(nnlr.resolve(model, route, **own), model, classes)
    assert "groups.values" not in text
    falling = nnlr.resolve(model, route * nnlr.layer_decay(0.5), **own)
    assert "name: sorted(" in compare(falling, model, classes)
    odd = route * nnlr.rule("*.fc.*", wd_mult=2) * nnlr.rule("blocks.0.*", wd_mult=3)
    assert "order = [" in compare(nnlr.resolve(model, odd, **own), model, classes)
    frozen = nnlr.resolve(model, route * nnlr.rule("blocks.0.*", lr_mult=0), **own)
    compare(frozen, model, classes)
    nothing = {name: param.requires_grad_(True) for name, param in model.named_parameters()}
    assert set(nothing) == {row.name for row in frozen}
    groups = run(frozen.to_code())["param_groups"](model)
    assert ["muon", "adamw"] == list(groups)
    lone = nnlr.resolve(model, nnlr.rule("*", algorithm="sgd"), **RATES)
    compare(lone, model, {"sgd": SGD})
    compare(lone, model, SGD)


@given(case=strategies.cases())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_models_and_schemes(case):
    """The groups, their order and what is frozen, of trees with ties and shared modules."""
    check_random(case)


@pytest.mark.full  # 60 s
@pytest.mark.no_cover
@given(case=strategies.cases())
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_random_models_and_schemes(case):
    """The same law for many more."""
    check_random(case)


def check_random(case):
    """Compare the two, unless the plan trains nothing."""
    model, schemes = case
    plan = nnlr.resolve(model, *schemes, **RATES)
    if plan.groups:
        compare(plan, model, SGD)


def test_nothing_is_found_in_what_it_builds():
    """`check` sees the plan in the optimizer, also where the code froze what the plan locks."""
    model = blocks()
    scheme = nnlr.layer_decay(0.7) * nnlr.no_weight_decay() * nnlr.freeze("embed.*")
    plan = nnlr.resolve(model, scheme, **RATES)
    model.embed.weight.grad = torch.ones(10, 4)
    optimizer = run(plan.to_code(AdamW))["make_optimizer"](model)
    assert "nothing found" == str(nnlr.check(plan, optimizer))
    assert not model.embed.weight.requires_grad
    assert model.embed.weight.grad is None


def test_a_run_goes_on_without_nnlr():
    """The code's optimizer loads the state of the plan's, and the next steps are the same."""
    model = blocks()
    plan = nnlr.resolve(model, nnlr.layer_decay(0.7) * nnlr.no_weight_decay(), **RATES)
    one, two = Small(model), Small(model)
    with_nnlr = plan.optimizer(AdamW, model=one.params, partial=True)
    one.train(with_nnlr)
    without = run(plan.to_code(AdamW))["make_optimizer"](two)
    without.load_state_dict(copy.deepcopy(with_nnlr.state_dict()))
    for name, param in one.named_parameters():
        two.params[name].data.copy_(param.data)
    one.train(with_nnlr)
    two.train(without)
    assert all(torch.equal(param, two.params[name]) for name, param in one.named_parameters())


def test_it_imports_nothing_of_nnlr():
    """A process that has only torch runs it."""
    plan = nnlr.resolve(zoo.plain(), nnlr.layer_decay(0.5), **RATES)
    for cls in (None, nnlr.optim.AdamW):
        imported = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(ast.parse(plan.to_code(cls)))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert imported <= {"re", "fnmatch", "torch"}


def test_formatters_leave_it_as_it_is():
    """Ruff at 100 columns changes nothing, whatever is long or has to be quoted."""
    ruff = pytest.importorskip("ruff").__file__
    assert ruff
    long = {f"{'a' * 70}_{at}": nn.Linear(1, 1) for at in range(3)}
    parts = {"it's": nn.Linear(1, 1), 'a "b"': nn.Linear(1, 1), **long}
    rates = [nnlr.rule(f"*_{at}.*", lr_mult=1 / (at + 3)) for at in range(3)]
    texts = [
        nnlr.resolve(nn.ModuleDict(parts), *rates, nnlr.no_weight_decay(), **RATES).to_code(
            AdamW, betas=(0.123456789, 0.987654321), eps=1.2345678e-9, amsgrad=False, foreach=None
        )
    ]
    for make, scheme, cls, arguments in CASES.values():
        rates = RATES | ({"weight_decay": 0.0} if cls is torch.optim.Rprop else {})
        schemes = [scheme] if scheme else []
        texts.append(nnlr.resolve(make(), *schemes, **rates).to_code(cls, **arguments))
    routed = nnlr.resolve(blocks(), nnlr.route("muon", "adamw") * nnlr.layer_decay(0.5), **RATES)
    texts.append(routed.to_code({"muon": Muon, "adamw": AdamW}))
    lone = nnlr.rule("*", algorithm="adamw") * nnlr.rule("head.*", options={"eps": 1e-6})
    odd = nnlr.rule("*.fc.*", wd_mult=2) * nnlr.rule("blocks.0.*", wd_mult=3)
    texts += [
        nnlr.resolve(blocks(), lone * other, **RATES).to_code({"adamw": AdamW})
        for other in (nnlr.layer_decay(0.5), odd)
    ]
    assert max(map(len, "".join(texts[-2:]).splitlines())) <= 100
    command = [sys.executable, "-m", "ruff", "format", "--line-length=100", "-"]
    text = "\n\n\n".join(texts).replace("\n\n\n\n", "\n\n\n")
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert text == done.stdout


HOSTILE = [
    "weight'; import os",
    '"""',
    "a\nb",
    "{0}",
    "*",
    "[a]",
    "?",
    "\\",
    "層",
    "\u202e",
    "\udc80",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_never_code(name):
    """Whatever a parameter is called, it is text there, and matches nothing but itself."""
    tensors = {name: nn.Parameter(torch.ones(2)), f"x{name}": nn.Parameter(torch.ones(2))}
    for at in range(4):
        tensors[f"{name}.{at}.w"] = nn.Parameter(torch.ones(2))
    model = nn.Module()
    model._parameters.update(tensors)
    rules = [nnlr.rule(nnlr.regex(rf"(?s).*\.{at}\.w"), lr_mult=0.5 + at) for at in range(4)]
    own = nnlr.predicate(lambda param: param.name == name)
    plan = nnlr.resolve(model, *rules, nnlr.rule(own, lr_mult=7), **RATES)
    text = compare(plan, model, SGD)
    calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)}
    assert not any("system" in call or "os" in call for call in calls)
    label = json.loads(plan.to_json())
    label["model"] = f'"""{name}\nimport os'
    first = nnlr.Plan.from_dict(label).to_code().splitlines()
    assert all(line.startswith("#") for line in first[: first.index("import re")])


def test_what_the_code_refuses():
    """A trainable parameter that is in no row, or in two, by its name; also under a wrapper."""
    model = zoo.tied()
    plan = nnlr.resolve(model, nnlr.rule("blocks.*", lr_mult=0.5), **RATES)
    text = plan.to_code()
    groups = run(text)["param_groups"]
    assert groups_of(groups(model), {id(p): n for n, p in model.named_parameters()})
    with pytest.raises(ValueError, match=r"'module.embed.weight' is in 0 rows of the table"):
        groups(nn.DataParallel(model))
    model.head.weight = nn.Parameter(torch.ones(10, 4))
    with pytest.raises(ValueError, match=r"'head.weight' is in 0 rows of the table, not in one"):
        groups(model)
    edited = text.replace('"embed.weight"', '"*.weight"')
    assert edited != text
    with pytest.raises(ValueError, match=r"'blocks.0.norm.weight' is in 2 rows"):
        run(edited)["param_groups"](zoo.tied())


def test_the_names_of_the_model_itself():
    """Also of one that is wrapped; parametrized tensors have the names that torch gives them."""
    model = zoo.spectral_norm()
    plan = nnlr.resolve(model, nnlr.rule("*.bias", lr_mult=0.5), **RATES)
    text = plan.to_code()
    assert text == plan.to_code(model=nn.DataParallel(model))
    assert "parametrizations" in text
    assert "parametrizations" not in nnlr.Plan.from_json(plan.to_json()).to_code()
    assert text == nnlr.Plan.from_json(plan.to_json()).to_code(model=model)
    wrapped = nnlr.resolve(nn.DataParallel(model), nnlr.rule("*.bias", lr_mult=0.5), **RATES)
    assert text == wrapped.to_code()


def test_without_a_model():
    """A plan from a file, or of a model that is gone, writes its own names."""
    model = blocks()
    plan = nnlr.resolve(model, nnlr.layer_decay(0.7) * nnlr.freeze("embed.*"), **RATES)
    text = plan.to_code(SGD)
    loaded = nnlr.Plan.from_json(plan.to_json())
    assert text == loaded.to_code(SGD)
    routed = nnlr.resolve(model, nnlr.route("muon", "adamw"), **RATES)
    both = {"muon": Muon, "adamw": AdamW}
    assert routed.to_code(both) == nnlr.Plan.from_json(routed.to_json()).to_code(both)
    del model
    gc.collect()
    assert text == plan.to_code(SGD)
    assert "0.2" in plan.with_rates(lr=0.2).to_code(SGD)


def test_initial_weights():
    """The code scales them as `apply_init` does."""
    one, two = network(2, 3, 4), network(2, 3, 4)
    plan = nnlr.resolve(one, Scaled(), **RATES)
    run(plan.to_code(AdamW))["scale_initial_weights"](two)
    nnlr.apply_init(one, plan)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one[0].weight, network(2, 3, 4)[0].weight)


class Local(SGD):
    """Stands for a class that is defined where nothing can import it."""


Local.__module__ = "__main__"


@pytest.mark.parametrize(
    ("scheme", "arguments", "error", "message"),
    [
        (None, {"momentum": 0.9}, ConfigError, r"momentum: settings are those of a class"),
        (None, {"cls": SGD, "momentun": 0.9}, ConfigError, r"no argument 'momentun'.*'momentum'"),
        (None, {"cls": SGD, "lr": 1.0}, ConfigError, r"plan.with_rates\(lr=1.0\)"),
        (None, {"cls": AdamW, "foreach": torch.ones(1)}, ConfigError, r"foreach=.* cannot be writ"),
        (None, {"cls": functools.partial(SGD, 3)}, ConfigError, r"arguments have no names"),
        (None, {"cls": lambda groups, lr: SGD(groups, lr=lr)}, ConfigError, r"can be imported"),
        (None, {"cls": Local}, ConfigError, r"plan.to_code\(\) writes the groups"),
        (None, {"cls": Muon}, ConfigError, r"Muon trains matrices only"),
        (None, {"cls": {"muon": Muon}}, CoverageError, r"No algorithm trains"),
        (nnlr.rule("*", options={"eps": 1}), {"cls": SGD}, ConfigError, r"not know the option"),
        (None, {"cls": print}, ConfigError, r"no param_groups and so is no optimizer"),
        (Scaled(), {}, ConfigError, r"eps in 1 group.*plan.to_code\(torch.optim.AdamW\)"),
        (nnlr.freeze("*"), {}, ConfigError, r"trains nothing"),
        (None, {"model": nn.Linear(9, 9)}, NnlrError, r"Linear"),
    ],
)
def test_what_is_refused(scheme, arguments, error, message):
    """With the reason and the way out; what `optimizer` refuses is refused here too."""
    plan = nnlr.resolve(zoo.plain(), *([scheme] if scheme else []), **RATES)
    with pytest.raises(error, match=message):
        plan.to_code(**arguments)


def test_what_moves_is_refused():
    """Plain groups stay as they are; without the move the code is what the message offers."""
    net, scheme = nn.Linear(2, 1), nnlr.rule("bias", lr_mult=0.5)
    plan = nnlr.resolve(net, scheme.at(lambda t: 1 - t), lr=0.1, weight_decay=0)
    with pytest.raises(
        nnlr.ConfigError, match=r"moves multipliers .*at\(function\), and groups of"
    ):
        plan.to_code()
    assert "0.05" in nnlr.resolve(net, scheme, lr=0.1, weight_decay=0).to_code()


def test_groups_of_ones_own_stay_apart_and_keep_their_names():
    """So that a schedule of theirs finds them, as in the plan."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    scheme = nnlr.rule("0.*", group="means") * nnlr.rule("*.bias", lr_mult=2)
    plan = nnlr.resolve(net, scheme, lr=0.1, weight_decay=0)
    made = run(plan.to_code(SGD))["make_optimizer"](net).param_groups
    built = plan.optimizer(SGD).param_groups
    assert [group["params"] for group in built] == [group["params"] for group in made]
    assert ["means_lr1_wd1", "means_lr2_wd1"] == [g["name"] for g in made if "name" in g]
