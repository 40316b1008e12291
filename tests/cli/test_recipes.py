"""`nnlr recipes`, and published recipes where a configuration can stand."""

import json

import pytest

import nnlr
from nnlr.config import load, recipe_names


def test_all_recipes_field_by_field(nnlr_command):
    """Every name with its title; as JSON too."""
    status, output, errors = nnlr_command("recipes")
    assert 0 == status, errors
    assert output.startswith("vision:\n  mae/vit-b/finetune ")
    status, facts, _ = nnlr_command("recipes", "--format", "json")
    assert list(recipe_names()) == [fact["name"] for fact in json.loads(facts)]
    assert max(map(len, output.splitlines())) <= 80
    words = " ".join(output.split())
    assert all(fact["title"] in words for fact in json.loads(facts))


def test_one_recipe_for_a_batch(nnlr_command, models):
    """In words as Python prints it, and as a file that is a configuration."""
    arguments = ("recipes", "mae/vit-b/finetune", "--batch-size", "512")
    status, output, errors = nnlr_command(*arguments)
    assert 0 == status, errors
    assert f"{nnlr.recipe('mae/vit-b/finetune', batch_size=512)}\n" == output
    for name in ("mine.yaml", "mine.json"):
        assert 0 == nnlr_command(*arguments, "--out", name)[0]
        assert 1e-3 == load(models / name).lr
    assert (models / "mine.yaml").read_text() == nnlr_command(*arguments, "-f", "yaml")[1]
    status, output, _ = nnlr_command(
        *("recipes", "bert/base/glue", "--batch-size", "8", "--batch-rule", "sqrt")
    )
    assert "1e-05 = 2e-05 x sqrt 8/32 (rule asked for)" in output


def test_recipes_for_a_model(nnlr_command, models):
    """The best first with the reason, in 80 columns; a line where there is none."""
    (models / "scene.py").write_text(
        "import torch\n"
        "def make():\n"
        "    names = ('means', 'scales', 'quats', 'opacities', 'sh0', 'shN')\n"
        "    zeros = {name: torch.nn.Parameter(torch.zeros(2, 3)) for name in names}\n"
        "    return torch.nn.ParameterDict(zeros)\n",
        encoding="utf-8",
    )
    status, output, errors = nnlr_command("recipes", "--for", "scene.py:make")
    assert 0 == status, errors
    assert output.splitlines()[1].strip() == "a scene of Gaussians (parameter means)"
    output = nnlr_command("recipes", "--for", "transformers:llama")[1]
    assert 80 >= max(map(len, output.splitlines()))
    status, output, _ = nnlr_command("recipes", "--for", "makers:make_model")
    assert (0, "No published recipe fits this model.\n") == (status, output)
    assert 0 == nnlr_command("show", "makers:make_model", "--out", "plan.json")[0]
    status, _, errors = nnlr_command("recipes", "--for", "plan.json")
    assert (2, True) == (status, "--for needs a model" in errors)


def test_a_recipe_stands_where_a_configuration_can(nnlr_command, models):
    """In show, with the steps of the run for its schedule, in diff, and in config."""
    pytest.importorskip("matplotlib")
    model = ("makers:make_model", "-c", "recipe:qlora/guanaco-7b")
    status, output, errors = nnlr_command("show", *model)
    assert 0 == status, errors
    assert "0.0002" in output
    whole = ("makers:make_model", "-c", "recipe:lora/gpt2-medium/e2e")
    status, _, errors = nnlr_command("show", *whole, "--steps", "600", "--out", "rates.svg")
    assert 0 == status, errors
    status, output, _ = nnlr_command(
        *("diff", "makers:make_model", "recipe:qlora/guanaco-7b", "recipe:lora/gpt2-medium/e2e")
    )
    assert 0 == status
    assert "0 -> 0.01" in output
    status, output, _ = nnlr_command("config", "check", "recipe:mae/vit-b/finetune")
    assert "recipe:mae/vit-b/finetune is a valid recipe" in output
    (models / "groups.yaml").write_text(
        "{lr: 1, weight_decay: 0, schedule: {'lr1*': {class: WarmupDecay}, '*': null}}",
        encoding="utf-8",
    )
    rest = ("-s", "rule={select: '0.*', lr_mult: 0.1}", "--steps", "9", "--out", "groups.svg")
    status, _, errors = nnlr_command("show", "makers:make_model", "-c", "groups.yaml", *rest)
    assert 0 == status, errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recipes", "mae/vit-b/fintune"), "Nearest: 'mae/vit-b/finetune'"),
        (("recipes", "mae/vit-b/finetune", "--for", "x.py:y"), "pass one of them"),
        (("recipes", "--batch-size", "3"), "--batch-size is for one recipe"),
        (("show", "makers:make_model", "-c", "recipe:mae/vit"), "there is no recipe 'mae/vit'"),
    ],
)
def test_what_does_not_go_together(nnlr_command, models, arguments, message):
    """Status 2, and what to write instead."""
    status, _, errors = nnlr_command(*arguments)
    assert 2 == status
    assert message in errors
