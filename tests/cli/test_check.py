"""`nnlr check`: findings of a model and its plan, as text and as an exit status."""

import json

import pytest

TINY = "rule={select: '0.*', lr_mult: 1e-5}"


def test_a_healthy_model(nnlr_command, models):
    """Nothing is found, and the status is 0; with an optimizer too."""
    check = ("check", "makers:make_model", "-s", "no_weight_decay")
    for optimizer in ((), ("--optimizer", "AdamW"), ("--optimizer", "nnlr.optim:SGD")):
        assert (0, "nothing found\n") == nnlr_command(*check, *optimizer)[:2]


def test_the_exit_status(nnlr_command, models):
    """Errors are 1; warnings are with --strict."""
    check = ("check", "makers:make_model", "-s", TINY)
    status, output, _ = nnlr_command(*check)
    assert 0 == status
    assert "warning [looks-absolute]" in output
    assert 1 == nnlr_command(*check, "--strict")[0]
    assert 1 == nnlr_command(*check, "--optimizer", "makers:Deaf")[0]


@pytest.fixture
def models(models):
    """The models, and an optimizer that ignores the rates of its groups."""
    path = models / "makers.py"
    more = """
class Deaf(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad, alpha=-self.defaults["lr"])
"""
    path.write_text(path.read_text(encoding="utf-8") + more, encoding="utf-8")
    return models


@pytest.mark.parametrize("format_name", ["json", "markdown", "html"])
def test_formats_of_findings(nnlr_command, models, format_name):
    """As data, for a pull request, and as the page with the findings on top."""
    check = ("check", "makers:make_model", "-f", format_name)
    status, output, errors = nnlr_command(*check, "-s", TINY)
    assert 0 == status, errors
    match format_name:
        case "json":
            assert ["0.weight", "0.bias"] == json.loads(output)[0]["names"]
        case "markdown":
            assert output.startswith("**1 warning, 1 note** in `Sequential`\n\n```text\nwarning [")
            fine = nnlr_command(*check, "-s", "no_weight_decay")[1]
            assert "**nothing found** in `Sequential`\n" == fine
        case "html":
            assert "which looks like an absolute one" in output


def test_several_algorithms(nnlr_command, models):
    """A class for each, by its name."""
    scheme = "route={matrices: muon, others: adamw} * no_weight_decay"
    check = ("check", "makers:make_model", "-a", "width=8", "-s", scheme)
    rates = ("--lr", "muon=0.02", "--lr", "adamw=3e-4")
    classes = ("--optimizer", "muon=Muon", "--optimizer", "adamw=AdamW")
    status, output, errors = nnlr_command(*check, *rates, *classes)
    assert (0, "") == (status, errors.replace("made\n", ""))
    assert "error" not in output


RECIPE = """
lr: 0.1
weight_decay: 0
algorithms: AdamW
schedule: {class: CosineAnnealingLR, T_max: 100}
"""


def test_a_whole_recipe(nnlr_command, models):
    """Its optimizer and its schedule are checked too; one that lacks a setting is told."""
    path = models / "recipe.yaml"
    check = ("check", "makers:make_model", "-c", "recipe.yaml", "--optimizer", "SGD")
    path.write_text(RECIPE, encoding="utf-8")
    for arguments in (check, check[:-2]):
        status, output, errors = nnlr_command(*arguments)
        assert (0, "nothing found\n") == (status, output)
        assert "schedule" not in errors
    path.write_text(RECIPE.replace("CosineAnnealingLR, T_max: 100", "OneCycleLR"), encoding="utf-8")
    errors = nnlr_command(*check)[2]
    assert "note: the schedule is not checked, as it cannot be made: " in errors


def test_an_optimizer_is_called_as_in_a_recipe(nnlr_command, models):
    """Nnlr's own too, of which torch has one of the same name."""
    for name in ("AdamW", "torch.optim.AdamW", "nnlr.optim.AdamW"):
        options = ("--columns", "bytes", "--optimizer", name)
        assert "of state (AdamW)" in nnlr_command("show", "makers:make_model", *options)[1]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (("AdmW",), "There is no optimizer 'AdmW'. Nearest: 'AdamW'"),
        (("xyz",), "Of another package: package.module:Class."),
        (("makers:Net",), "--optimizer 'makers:Net' is no class of torch.optim.Optimizer"),
        (("AdamW", "SGD"), "--optimizer is one class, or one for each algorithm"),
        (("a=AdamW", "SGD"), "--optimizer is one class, or one for each algorithm"),
        (("makers:Deff",), "makers has no 'Deff'. Nearest: 'Deaf'"),
        (("Muon",), "Muon"),
    ],
)
def test_what_is_wrong_with_an_optimizer(nnlr_command, models, optimizer, message):
    """The nearest class; one that does not fit the plan is refused."""
    options = [word for name in optimizer for word in ("--optimizer", name)]
    status, _, errors = nnlr_command("check", "makers:make_model", *options)
    assert 2 == status
    assert message in errors
