"""Published recipes: every one loads, resolves on its architecture, and says where it is from."""

import dataclasses
import json
import re

import pytest
import torch

import nnlr
from docs import make_recipes
from nnlr.config import PublishedRecipe, dump, load, recipe_names
from nnlr.config._published import FOLDER, entries
from tests.config import recipe_models
from tests.config.recipe_models import REAL, SMALL, small

# Of which a model is made in the short run; the others import a file of transformers each.
QUICK = {"vit", "swin", "convnext", "vitdet", "gaussians", "s4", "ft-transformer", "awd-lstm"}
QUICK |= {"nanochat", "deit"}

PAIRS = [(name, model) for name in recipe_names() for model in entries()[name]["models"]]
# No library has a UPerNet on a plain ViT.
PAIRS = [(name, model) for name, model in PAIRS if model != "upernet-vit"]


def cases(pairs):
    """Pairs of recipe and architecture, the slow ones in the full run."""
    return [
        pytest.param(*pair, marks=[] if pair[1] in QUICK else pytest.mark.full) for pair in pairs
    ]


def parts(recipe):
    """The members of a recipe's scheme."""
    return getattr(recipe.scheme, "members", [recipe.scheme] if recipe.scheme else [])


def test_there_are_many_recipes_in_every_field():
    """Eighty and more, none twice."""
    names = recipe_names()
    assert 80 <= len(names) == len(set(names))
    for field in make_recipes.TITLES:
        assert any(make_recipes.RECIPES[name].field == field for name in names), field


def test_what_is_like_another_has_all_that_it_does_not_say():
    """Read from the files again: its own keys, and the other's."""
    files = entries.__wrapped__()
    large, base = files["mae/vit-l/finetune"], files["mae/vit-b/finetune"]
    assert large["schedule"] == base["schedule"] or "schedule" in large
    assert ("vision", base["weight_decay"]) == (large["field"], large["weight_decay"])
    assert large["title"] != base["title"]
    assert recipe_names() == tuple(files)


def test_every_recipe_says_what_it_is():
    """Title, source, length, what is missing; a repository, a file, and no empty text."""
    for name in recipe_names():
        recipe = make_recipes.RECIPES[name]
        assert isinstance(recipe, PublishedRecipe)
        assert repr(recipe) == f"recipe({name!r})"
        assert str(recipe).startswith(f"{name}: {recipe.title}\n  lr  ")
        assert all((recipe.title, recipe.length, recipe.beyond, recipe.models)), name
        for source in recipe.source:
            assert re.match(r"[\w.-]+(/[\w.-]+)?( [\d.]+)?, \S", source), source


def test_every_recipe_is_a_configuration():
    """`dump` gives what `load` takes, by itself and through JSON, and the same comes back."""
    for name in recipe_names():
        data = dump(make_recipes.RECIPES[name])
        assert data == dump(load(json.loads(json.dumps(data)))), name
        assert {"lr", "weight_decay", "algorithms"} <= data.keys()


def test_every_schedule_runs_from_its_warm_up_to_its_floor():
    """On one number, with the steps of the run alone: it begins and ends where its words say."""
    for name in recipe_names():
        recipe = make_recipes.RECIPES[name]
        settings = dump(recipe).get("schedule", {})
        settings = settings.get("means", settings)  # the one recipe with courses for groups
        if settings.get("class") != "WarmupDecay":
            continue
        factory = recipe.schedule["means"] if "gsplat" in name else recipe.schedule
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        course = factory(optimizer, total_steps=100_000)
        rises = settings.get("warmup", 0) or settings.get("warmup_steps", 0)
        assert course.factor(0) == (settings.get("start", 0.0) if rises else 1.0), name
        steps = settings.get("milestones", [])
        last = settings.get("gamma", 0.1) ** len(steps) if steps else settings.get("floor", 0.0)
        last = 1.0 if settings.get("shape") == "constant" else last
        assert course.factor(100_000) == pytest.approx(last, abs=1e-12), name
        assert 0 <= settings.get("floor", 0) < 1, name


@pytest.mark.parametrize(("name", "model"), cases(PAIRS))
def test_it_resolves_on_its_architecture(name, model):
    """A small model of each that it names; every part of its scheme changes something there.

    In the full run; 15 seconds.
    """
    recipe = make_recipes.RECIPES[name]
    plan = recipe.resolve(small(model))
    assert plan.rows
    if model == recipe.models[0]:
        sources = {step.source for row in plan.rows for step in row.trace}
        assert len(sources) == len(parts(recipe)), sources


@pytest.mark.full
@pytest.mark.parametrize("name", REAL)
def test_it_fits_the_model_that_it_was_published_for(name):
    """Of the published size, within 3 %, and proposed among the first; 80 seconds."""
    model = recipe_models.real(name)
    millions = sum(param.numel() for param in model.parameters()) / 1e6
    assert nnlr.recipe(name).params == pytest.approx(millions, rel=0.03)
    assert name in [recipe.name for recipe in nnlr.find_recipes(model)[:8]]


def test_the_rate_goes_by_the_batch():
    """By the published rule; the printed recipe says how, and the repr makes it again."""
    linear = nnlr.recipe("mae/vit-b/finetune", batch_size=512)
    assert (linear.lr, linear.batch_size) == (1e-3, 512)
    assert "0.001 = 0.0005 x 512/256" in str(linear)
    root = nnlr.recipe("dinov2/vit-l/pretrain", batch_size=4096)
    assert root.lr == 8e-3
    assert "0.008 = 0.004 x sqrt 4096/1024" in str(root)
    both = nnlr.recipe("nanochat/d12/pretrain", batch_size=2**21)
    assert both.lr == {"muon": 0.04, "adamw": 0.6}
    assert repr(both) == "recipe('nanochat/d12/pretrain', batch_size=2097152)"


def test_it_prints_in_eighty_columns():
    """Whatever is no single word, with each part beside its name."""
    lines = str(nnlr.recipe("beit/vit-b/finetune")).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[lines.index("  batch         1024 images") + 1] == "  weight decay  0.05"
    assert sum(line.startswith(" " * 16) for line in lines) == 1


def test_what_was_changed_is_not_called_published():
    """The rate is printed without the published sum, and the repr says that a part was replaced."""
    mine = dataclasses.replace(nnlr.recipe("mae/vit-b/finetune"), lr=1e-4)
    assert "  lr            0.0001 (changed)\n" in str(mine)
    assert repr(mine) == "replace(recipe('mae/vit-b/finetune'), ...)"
    decayed = dataclasses.replace(nnlr.recipe("beit/vit-b/finetune"), weight_decay=0.1)
    assert "  lr            0.004\n" in str(decayed)
    assert repr(decayed).startswith("replace(")


def test_a_rule_that_is_not_published_has_to_be_asked_for():
    """The published batch is none to scale to; another needs a rule; the repr holds it."""
    assert nnlr.recipe("bert/base/glue", batch_size=32).lr == 2e-5
    with pytest.raises(
        nnlr.ConfigError, match=r"for 32 sequences and no rule .* or pass batch_rule"
    ):
        nnlr.recipe("bert/base/glue", batch_size=64)
    scaled = nnlr.recipe("bert/base/glue", batch_size=64, batch_rule="linear")
    assert scaled.lr == 4e-5
    assert "4e-05 = 2e-05 x 64/32 (rule asked for)" in str(scaled)
    assert "lr            means 0.00016, others 0.001\n" in str(nnlr.recipe("gsplat/3dgs"))
    assert repr(scaled) == "recipe('bert/base/glue', batch_size=64, batch_rule='linear')"
    with pytest.raises(nnlr.ConfigError, match=r"'lora\+/any' says no batch"):
        nnlr.recipe("lora+/any", batch_size=64)
    with pytest.raises(nnlr.NnlrError, match="batch_rule must be one of"):
        nnlr.recipe("bert/base/glue", batch_size=64, batch_rule="root")
    with pytest.raises(nnlr.NnlrError, match="batch_size must be a finite number > 0"):
        nnlr.recipe("mae/vit-b/finetune", batch_size=0)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mae/vit-b/fintune", "Nearest: 'mae/vit-b/finetune'"),
        ("dinov2", "With a part of it: 'dinov2/vit-l/pretrain'"),
        ("deberta", "With a part of it: 'deberta-v3/base/mnli', 'deberta-v3/large/mnli'"),
        ("deberta-v3/base/finetune", "Nearest: 'deberta-v3/base/mnli'"),
        ("MAE/ViT-B/finetune", "Nearest: 'mae/vit-b/finetune'"),
        ("qqqq", "there is no recipe 'qqqq'"),
        (3, "there is no recipe 3"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name, hint):
    """By its letters, else by a part of it; and where all of them are listed."""
    with pytest.raises(nnlr.ConfigError, match=rf"{hint}.*recipe_names\(\) has all \d+"):
        nnlr.recipe(name)


def test_it_trains_and_resumes():
    """Optimizer and schedule of a recipe, on a model of its kind; courses for groups likewise."""
    model = recipe_models.Gaussians()
    recipe = nnlr.recipe("gsplat/3dgs")
    optimizer = recipe.optimizer(model)
    scheduler = recipe.scheduler(optimizer, total_steps=2)
    for _ in range(2):
        sum(param.sum() for param in model.parameters()).backward()
        optimizer.step()
        scheduler.step()
    rates = {group["param_names"][0]: group["lr"] for group in optimizer.param_groups}
    assert rates["splats.means"] == pytest.approx(1.6e-6)
    assert rates["splats.opacities"] == pytest.approx(5e-2)
    twin = recipe.optimizer(recipe_models.Gaussians())
    twin.load_state_dict(optimizer.state_dict())


def test_the_page_is_the_one_that_the_files_make():
    """`python docs/make_recipes.py` would write the same."""
    assert make_recipes.PAGE.read_text(encoding="utf-8") == make_recipes.text()


def test_the_files_are_there_that_the_wheel_has_to_hold():
    """One for each field, and the architectures."""
    names = {path.name for path in FOLDER.iterdir()}
    assert {f"{field}.toml" for field in make_recipes.TITLES} | {"architectures.toml"} == names


def test_every_architecture_has_a_recipe_and_the_other_way_round():
    """No recipe names an architecture that is not known, and none is known in vain."""
    from nnlr.config._find import _architectures

    named = {model for name in recipe_names() for model in entries()[name]["models"]}
    assert named == set(_architectures())
    assert {model for _, model in PAIRS} == set(SMALL)
