"""`nnlr code`, and optimizers in `nnlr config dump`."""

import pytest
from torch import nn

import nnlr
from tests.code.written import run

SLOW = "rule={select: '0.*', lr_mult: 0.1}"
RECIPE = "{lr: 0.1, weight_decay: 0, algorithms: {class: SGD, momentum: 0.9}}"


def test_code_of_a_model(nnlr_command, models):
    """It goes to the output or to a file, with the optimizer that is named, or without."""
    write = ("code", "makers:make_model", "-s", SLOW)
    status, output, errors = nnlr_command(*write, "--optimizer", "AdamW")
    assert 0 == status, errors
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = run(output)["make_optimizer"](model)
    assert [1e-3, 1e-4] == [group["lr"] for group in optimizer.param_groups]
    assert 0 == nnlr_command(*write, "-o", "groups.py")[0]
    text = (models / "groups.py").read_text(encoding="utf-8")
    assert "make_optimizer" not in text
    assert [1e-3, 1e-4] == [group["lr"] for group in run(text)["param_groups"](model)]
    assert 0 == nnlr_command(*write, "-o", "groups.txt")[0]
    assert text == (models / "groups.txt").read_text(encoding="utf-8")


def test_code_of_a_recipe_and_of_a_saved_plan(nnlr_command, models):
    """The recipe names the optimizer; a saved plan needs no model."""
    (models / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    _, output, _ = nnlr_command("code", "makers:make_model", "-c", "recipe.yaml")
    assert "torch.optim.SGD(param_groups(model), momentum=0.9, lr=0.1" in output
    nnlr_command("show", "makers:make_model", "-s", SLOW, "-o", "plan.json")
    status, output, _ = nnlr_command("code", "plan.json", "--optimizer", "SGD", "--lr", "0.5")
    assert 0 == status
    assert "torch.optim.SGD(param_groups(model), lr=0.5" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--optimizer", "Adamw"), "There is no optimizer 'Adamw'. Nearest: 'AdamW'."),
        (("-c", "mae/vit-b/finetune"), "The published recipe is recipe:mae/vit-b/finetune."),
        (("--optimizer", "Muon"), "Muon trains matrices only"),
    ],
)
def test_what_cannot_be_written(nnlr_command, models, options, message):
    """A line that says why, and exit status 2."""
    status, _, errors = nnlr_command("code", "makers:make_model", *options)
    assert 2 == status
    assert message in errors


def test_options_as_a_recipe(nnlr_command, models):
    """`config dump` writes the optimizer too, and the file makes the same groups."""
    dump = ("config", "dump", "-s", SLOW, "--optimizer", "AdamW", "-o", "recipe.yaml")
    assert 0 == nnlr_command(*dump)[0]
    recipe = nnlr.config.load(models / "recipe.yaml")
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert [1e-3, 1e-4] == [group["lr"] for group in recipe.optimizer(model).param_groups]
