"""Recipes: from a file to an optimizer and its schedule, and back to data."""

import dataclasses
import functools
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.optim import lr_scheduler

import nnlr
from nnlr.config import Recipe, dump, load, scheme
from nnlr.config._classes import OPTIMIZERS, SCHEDULERS
from nnlr.config._yaml import parsed
from tests.helpers import hide_package

RECIPE = """
# Comments are for people.
lr: 1e-3
weight_decay: .05
decay: independent
scheme:
  - {select: "0.*", lr_mult: 1e-1}
  - no_weight_decay
algorithms: {class: AdamW, betas: [0.9, 0.95], eps: 1e-6}
schedule:
  class: SequentialLR
  schedulers:
    - {class: LinearLR, start_factor: 0.5, total_iters: 2}
    - {class: CosineAnnealingLR, T_max: 8}
  milestones: [2]
"""

DATA = {
    "lr": 0.001,
    "weight_decay": 0.05,
    "decay": "independent",
    "scheme": [{"rule": {"select": "0.*", "lr_mult": 0.1}}, "no_weight_decay"],
    "algorithms": {"class": "AdamW", "betas": [0.9, 0.95], "eps": 1e-06},
    "schedule": {
        "class": "SequentialLR",
        "schedulers": [
            {"class": "LinearLR", "start_factor": 0.5, "total_iters": 2},
            {"class": "CosineAnnealingLR", "T_max": 8},
        ],
        "milestones": [2],
    },
}


def network():
    """Two layers and a norm."""
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))


def file(folder, text, name="recipe.yaml"):
    """A file with a text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_in_a_file_trains(tmp_path):
    """The optimizer and the schedule are those that one would write in Python."""
    recipe, net = load(file(tmp_path, RECIPE)), network()
    optimizer = recipe.optimizer(net)
    scheduler = recipe.scheduler(optimizer)
    by_hand = network()
    rule = nnlr.rule("0.*", lr_mult=0.1)
    plan = nnlr.resolve(
        *(by_hand, rule, nnlr.no_weight_decay()), lr=1e-3, weight_decay=0.05, decay="independent"
    )
    assert plan == recipe.resolve(by_hand)
    twin = plan.optimizer(torch.optim.AdamW, betas=(0.9, 0.95), eps=1e-6)

    def chain(optimizer):
        first = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=2)
        then = lr_scheduler.CosineAnnealingLR(optimizer, 8)
        return lr_scheduler.SequentialLR(optimizer, [first, then], [2])

    course = nnlr.schedule(twin, chain)
    for _ in range(6):
        assert course.get_last_lr() == scheduler.get_last_lr()
        for one in (optimizer, course.optimizer):
            one.step()
        scheduler.step()
        course.step()
    keys = ("betas", "eps", "weight_decay", "lr_mult", "name")
    assert [[g[k] for k in keys] for g in twin.param_groups] == [
        [g[k] for k in keys] for g in optimizer.param_groups
    ]


def test_the_files_of_the_documentation_load():
    """Each YAML block of its page: a recipe, or a scheme that names code."""
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    blocks = re.findall(
        r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    data = [read for block in blocks if (read := parsed(block))]
    recipes = [one for one in data if isinstance(one, dict)]
    assert (2, 1) == (len(recipes), len(data) - len(recipes))
    for one in recipes:
        load(one)
    names = [one for one in data if one not in recipes]
    with pytest.raises(nnlr.ConfigError, match=r"'my\.module:is_large' names code"):
        scheme(names[0])


def test_a_recipe_is_the_same_in_every_form(tmp_path):
    """YAML, JSON, a mapping, text and Path as path; and dump gives the data again."""
    yaml_file = file(tmp_path, RECIPE)
    json_file = file(tmp_path, json.dumps({"$schema": "nnlr.schema.json", **DATA}), "recipe.JSON")
    again = file(tmp_path, yaml.safe_dump(DATA), "again.yml")
    for source in (yaml_file, str(yaml_file), json_file, again, DATA):
        assert DATA == dump(load(source))


def warmed_up(optimizer, steps):
    """A scheduler of a user's own, made by a function."""
    return lr_scheduler.LambdaLR(optimizer, lambda step: min(step / steps, 1))


def halved(step):
    """A course of a user's own."""
    return 0.5


OTHERS = [
    {"lr": 1, "weight_decay": 0},
    {"lr": 1.0, "weight_decay": 0.0, "algorithms": {"class": "nnlr.optim.AdamW"}},
    {
        "lr": {"muon": 0.02, "adamw": 0.001},
        "weight_decay": 0.1,
        "scheme": {"route": {"matrices": "muon", "others": "adamw"}},
        "algorithms": {"muon": {"class": "Muon"}, "adamw": {"class": "AdamW", "amsgrad": True}},
        "schedule": {"muon": {"class": "StepLR", "step_size": 3}, "adamw": None},
    },
    {
        "lr": 0.1,
        "weight_decay": 0.0,
        "algorithms": {"class": "SGD", "momentum": 0.9},
        "schedule": {
            "class": "ChainedScheduler",
            "schedulers": [{"class": "ConstantLR"}, {"class": "MultiStepLR", "milestones": [1, 2]}],
        },
    },
]


@pytest.mark.parametrize("data", OTHERS, ids=["bare", "ours", "routed", "chained"])
def test_other_recipes_too(data):
    """There and back; and each trains, those without a schedule at constant rates."""
    recipe = load(data)
    assert data == dump(recipe)
    if recipe.algorithms is None:
        recipe = load({**data, "algorithms": "SGD"})
    optimizer = recipe.optimizer(network(), resume="checkpoint")
    scheduler = recipe.scheduler(optimizer)
    before = scheduler.get_last_lr()
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    assert (before == scheduler.get_last_lr()) == (recipe.schedule is None)


def test_a_recipe_can_be_written_in_python():
    """With the objects that nnlr's functions take; dump writes it as a file would have it."""
    recipe = Recipe(
        lr=0.1,
        weight_decay=0,
        scheme=nnlr.caffe(),
        algorithms=functools.partial(torch.optim.SGD, momentum=0.9),
        schedule=lr_scheduler.OneCycleLR,
    )
    assert {
        "lr": 0.1,
        "weight_decay": 0,
        "scheme": "caffe",
        "algorithms": {"class": "SGD", "momentum": 0.9},
        "schedule": {"class": "OneCycleLR"},
    } == dump(recipe)
    # Settings that only the run knows.
    scheduler = recipe.scheduler(recipe.optimizer(network()), max_lr=0.1, total_steps=10)
    assert 0.1 > scheduler.get_last_lr()[0]


def test_a_class_that_is_allowed_is_imported():
    """A function that makes a scheduler, as transformers has them; a class; what is none."""
    name = f"{__name__}:warmed_up"
    data = {"lr": 1, "weight_decay": 0, "algorithms": "SGD"}
    settings = {"class": name, "steps": 2}
    recipe = load({**data, "schedule": settings}, allow=[name])
    assert 0 == recipe.scheduler(recipe.optimizer(network())).get_last_lr()[0]
    settings = {"class": "torch.optim.lr_scheduler:StepLR"}
    bare = load({**data, "schedule": settings}, allow=["*"])
    by_function = {"class": "LambdaLR", "lr_lambda": f"{__name__}:halved"}
    recipe = load({**data, "schedule": by_function}, allow=["*"])
    assert 0.5 == recipe.scheduler(recipe.optimizer(network())).get_last_lr()[0]
    assert lr_scheduler.StepLR is bare.schedule
    with pytest.raises(nnlr.ConfigError, match=r"^algorithms: 'math:pi' is no class, but 3\.14"):
        load({**data, "algorithms": "math:pi"}, allow=["*"])


@pytest.mark.parametrize(
    "name", ["functools.partial", "network.__globals__.get", "nnlr.rule", "pytest"]
)
def test_a_pattern_allows_what_a_module_defines(name):
    """And not what it has imported, which would allow anything; the full name allows that."""
    reference = f"{__name__}:{name}"
    with pytest.raises(nnlr.ConfigError, match=r"is not of '.*' itself.*\. If you trust it, pass"):
        scheme({reference: {}}, allow=[f"{__name__}:*"])
    own = f"{__name__}:nnlr.no_weight_decay"
    assert "no_weight_decay()" == repr(scheme(own, allow=[own]))


def test_a_scheme_can_be_read_from_a_file(tmp_path):
    """Alone, or that of a recipe; text is a name, and a path is a Path."""
    alone = file(tmp_path, "- caffe\n- {layer_decay: 75e-2}\n", "scheme.yml")
    assert "caffe() * layer_decay(0.75)" == repr(scheme(alone))
    recipe = file(tmp_path, RECIPE)
    assert "rule('0.*', lr_mult=0.1) * no_weight_decay()" == repr(scheme(recipe))
    with pytest.raises(nnlr.ConfigError, match=r"bad\.yaml: scheme\.cafe: there is no scheme"):
        scheme(file(tmp_path, "cafe: {}", "bad.yaml"))


BASE = "lr: 1\nweight_decay: 0\n"

BAD = [
    # whole files
    ("", r"recipe\.yaml: a recipe is a mapping with lr, .*got None"),
    ("lr: 1", r"recipe\.yaml: a recipe needs 'weight_decay', the base rate"),
    (f"{BASE}shceme: caffe", r"recipe\.yaml: shceme: a recipe has no .* Nearest: 'scheme'\.$"),
    (f"{BASE}lr: 2", r"recipe\.yaml: line 3: the key 'lr' comes twice\.$"),
    (f"{BASE}scheme:\n\t- 1", r"recipe\.yaml: line 4: .*'\\t' that cannot start any token"),
    (f"{BASE}---\n{BASE}", r"recipe\.yaml: line 3: but found another document"),
    ("lr: \x07", r"recipe\.yaml: unacceptable character"),
    # what YAML 1.1 reads otherwise
    (f"{BASE}on: 1", r": on: a recipe has no 'on'\."),
    (f"{BASE}scheme: {{select: a, optional: yes}}", r": scheme\.optional: .*got 'yes'\.$"),
    (f"{BASE}scheme: 2026-01-01", r": scheme\['2026-01-01'\]: there is no scheme"),
    (f"{BASE}scheme: {{freeze: {{<<: {{select: a}}}}}}", r"freeze\['<<'\]: there is no selector"),
    # numbers
    ("lr: .nan\nweight_decay: 0", r": lr: not a number"),
    ("lr: .inf\nweight_decay: 0", r": lr: lr must be a finite number > 0, got inf"),
    (f"lr: {'9' * 5000}\nweight_decay: 0", r"limit \(4300 digits\)"),
    (f"{BASE}decay: coupeld", r": decay: decay must be one of .* Nearest: 'coupled'\.$"),
    ("lr: {a: 1}\nweight_decay: 0\nalgorithms: {b: SGD}", r"algorithm 'b' has no base .*: a\.$"),
    # hostile
    (f"{BASE}scheme: !!python/object/apply:os.system [ls]", r": line 3: could not determine a"),
    (f"{BASE}scheme: !!binary aGk=", r": scheme: must be plain data.*b'hi' \(bytes\)"),
    (f"{BASE}scheme: &a [*a]", r"recipe\.yaml: nested deeper than 50 levels\.$"),
    (f"lr: {'[' * 1000}", r"recipe\.yaml: nested too deep to be read\.$"),
    (f"{BASE}? {{a: 1}}\n: 2", r": line 3: found unhashable key"),
    (f"{BASE}scheme: !!bool maybe", r"recipe\.yaml: a tag \(!!\) does not fit its value: 'maybe'"),
    (f"{BASE}scheme: !!timestamp now", r"recipe\.yaml: a tag \(!!\) does not fit its value"),
    # classes
    (f"{BASE}algorithms: AdmaW", r": algorithms: there is no optimizer 'AdmaW'\. Nearest: 'AdamW'"),
    (f"{BASE}algorithms: {{class: AdamW, lr: 1}}", r": algorithms\.lr: .*at the top of the recipe"),
    (f"{BASE}algorithms: {{class: AdamW, btas: 1}}", r"AdamW has no argument .*Nearest: 'betas'"),
    (f"{BASE}algorithms: {{class: AdamW, betas: [1]}}", r"betas of AdamW must be a list of 2"),
    (f"{BASE}algorithms: {{clas: AdamW}}", r": algorithms\.clas: .*Nearest: 'class'\.$"),
    (f"{BASE}algorithms: {{a: AdamW, betas: [1]}}", r": algorithms\.betas: without 'class'"),
    (f"{BASE}algorithms: [AdamW]", r": algorithms: needs the name of a class"),
    (f"{BASE}schedule: {{class: 'os:system'}}", r": schedule\.class: 'os:system' names code"),
    (f"{BASE}schedule: SequentialLR", r": schedule\.schedulers: SequentialLR needs a list"),
    (f"{BASE}schedule: {{class: StepLR, step_size: ten}}", r"must be a whole number, got 'ten'"),
    (f"{BASE}schedule: {{class: OneCycleLR, max_lr: x}}", r"must be a number or a list, got 'x'"),
    (f"{BASE}schedule: {{class: OneCycleLR, anneal_strategy: x}}", r"must be one of 'cos', 'lin"),
    (f"{BASE}schedule: {{class: LambdaLR, lr_lambda: x}}", r"the name of a function \('module:n"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_a_mistake_in_a_file_is_named_with_file_and_place(tmp_path, text, message):
    """And nothing of it is executed."""
    with pytest.raises(nnlr.ConfigError, match=message) as caught:
        load(file(tmp_path, text))
    assert caught.value.file.endswith("recipe.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"lr": 1, "lr": 2}', r"the key 'lr' comes twice\.$"),
        ('{"lr": NaN}', r"NaN is no JSON\.$"),
        ("{", r"Expecting property name"),
        ("[" * 100_000, r"nested too deep to be read\.$"),
    ],
)
def test_so_is_one_in_json(tmp_path, text, message):
    """JSON has its own ways to go wrong."""
    with pytest.raises(nnlr.ConfigError, match=rf"recipe\.json: {message}"):
        load(file(tmp_path, text, "recipe.json"))


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    """Not there, of another kind, no text, a folder."""
    file(tmp_path, RECIPE)
    with pytest.raises(nnlr.ConfigError, match=r"no such file\. Nearest: 'recipe\.yaml'\.$"):
        load(tmp_path / "recip.yaml")
    with pytest.raises(nnlr.ConfigError, match=r"no such file\.$"):
        load(tmp_path / "nowhere" / "recipe.yaml")
    with pytest.raises(nnlr.ConfigError, match=r"\.yml or \.json, not in '\.toml'\.$"):
        load("recipe.toml")
    (tmp_path / "latin.yaml").write_bytes("# é".encode("latin-1"))
    with pytest.raises(nnlr.ConfigError, match=r"cannot be read: .*utf-8"):
        load(tmp_path / "latin.yaml")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(nnlr.ConfigError, match=r"cannot be read: .*directory"):
        load(tmp_path / "folder.json")


def test_yaml_needs_pyyaml_and_json_does_not(tmp_path, monkeypatch):
    """The error says what to install."""
    hide_package(monkeypatch, "yaml")
    monkeypatch.delitem(__import__("sys").modules, "nnlr.config._yaml", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "nnlr\[cli\]", or write .* JSON'):
        load(file(tmp_path, RECIPE))
    assert DATA == dump(load(file(tmp_path, json.dumps(DATA), "recipe.json")))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("lr", 0, "lr must be a finite number > 0"),
        ("decay", "no", "decay must be one of"),
        ("scheme", "caffe", r"scheme must be a Scheme, .*nnlr\.config\.scheme\(data\)"),
        ("algorithms", 3, r"algorithms must be a class such as torch\.optim\.AdamW or"),
        ("algorithms", {"a": 3}, "algorithms must be a class such as"),
        ("schedule", 3, r"schedule must be a class such as functools\.partial"),
    ],
)
def test_a_recipe_in_python_is_checked_too(field, value, message):
    """At once, and not when it is used."""
    with pytest.raises(nnlr.NnlrError, match=message):
        Recipe(**{"lr": 1, "weight_decay": 0, field: value})


def test_a_recipe_without_an_optimizer_says_so():
    """The two ways out are in the message."""
    with pytest.raises(nnlr.ConfigError, match=r"names no optimizer\. Add algorithms: AdamW"):
        Recipe(lr=1, weight_decay=0).optimizer(network())


@pytest.mark.parametrize("kind", [OPTIMIZERS, SCHEDULERS], ids=["optimizers", "schedulers"])
def test_a_class_goes_by_its_short_name_and_by_that_with_its_module(kind):
    """Neither the base class nor a private one has a name."""
    names = dataclasses.replace(kind).names  # made again: another test may have asked before
    assert all(issubclass(cls, kind.base) and cls is not kind.base for cls in names.values())
    short = {name: cls for name, cls in names.items() if "." not in name}
    assert short
    for name, cls in short.items():
        assert cls in {value for full, value in names.items() if full.endswith(f".{name}")}
