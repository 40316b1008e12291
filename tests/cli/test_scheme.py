"""Schemes, base rates and configurations on the command line."""

import json

import pytest
import yaml

import nnlr
from nnlr.cli._scheme import Options
from nnlr.errors import NnlrError


def plan_of(command, *arguments):
    """The plan of the small model under these options."""
    status, output, errors = command("show", "makers:make_model", *arguments, "-f", "json")
    assert 0 == status, errors
    return nnlr.Plan.from_json(output)


@pytest.mark.parametrize(
    ("texts", "scheme"),
    [
        (["no_weight_decay"], "no_weight_decay()"),
        (["layer_decay=0.75"], "layer_decay(0.75)"),
        (["layer_decay={decay: 0.75, min_mult: 1e-1}"], "layer_decay(0.75, min_mult=0.1)"),
        (["rule={select: '*.bias', wd_mult: 0}"], "rule('*.bias', wd_mult=0.0)"),
        (["{select: 'a * b', lr_mult: 2}"], None),
        (["{no_weight_decay: {}, where: '0.*'}"], "no_weight_decay().where('0.*')"),
        (["layer_decay=0.5 * no_weight_decay"], "layer_decay(0.5) * no_weight_decay()"),
        (["layer_decay=0.5", "no_weight_decay"], "layer_decay(0.5) * no_weight_decay()"),
        (["freeze='0.*'"], "freeze('0.*')"),
        ([], None),
    ],
    ids=str,
)
def test_schemes(texts, scheme):
    """A name, a value or a mapping of YAML; a product by a star with spaces, or by several."""
    if texts and scheme is None:
        with pytest.raises(NnlrError, match="no value of YAML"):
            _ = Options(texts).recipe
    else:
        assert str(scheme) == repr(Options(texts).recipe.scheme)


def test_base_rates(nnlr_command, models):
    """Those of the command, of the options, or one for each algorithm."""
    plan = plan_of(nnlr_command)
    assert (1e-3, 0.05, "coupled") == (plan.lr, plan.weight_decay, plan.decay)
    plan = plan_of(nnlr_command, "--lr", "3e-4", "--weight-decay", "0", "--decay", "sqrt")
    assert (3e-4, 0.0, "sqrt") == (plan.lr, plan.weight_decay, plan.decay)
    rates = ("--lr", "muon=0.02", "--lr", "adamw=3e-4", "--weight-decay", "0.1")
    plan = plan_of(nnlr_command, "-s", "route={matrices: muon, others: adamw}", *rates)
    assert {"muon": (0.02, 0.1), "adamw": (3e-4, 0.1)} == {
        name: (base.lr, base.weight_decay) for name, base in plan.algorithms.items()
    }


@pytest.mark.parametrize("name", ["scheme.yaml", "recipe.yaml", "recipe.json"])
def test_configurations(nnlr_command, models, name):
    """A file with a scheme, or with a whole recipe, whose rates options overrule."""
    scheme = [{"rule": {"select": "0.*", "lr_mult": 0.1}}]
    recipe = {"lr": 0.1, "weight_decay": 0.2, "decay": "sqrt", "scheme": scheme}
    data = scheme if name == "scheme.yaml" else recipe
    write = json.dumps if name.endswith(".json") else yaml.safe_dump
    (models / name).write_text(write(data), encoding="utf-8")
    plan = plan_of(nnlr_command, "-c", name, "-s", "no_weight_decay")
    bases = (1e-3, 0.05, "coupled") if name == "scheme.yaml" else (0.1, 0.2, "sqrt")
    assert bases == (plan.lr, plan.weight_decay, plan.decay)
    assert 0.1 == plan["0.weight"].lr_mult
    assert 0.0 == plan["0.bias"].weight_decay
    assert 0.5 == plan_of(nnlr_command, "-c", name, "--lr", "0.5").lr


CODE = """
import nnlr

def made():
    return nnlr.layer_decay(0.5)

def raises():
    raise ValueError("not today")

def choose(param):
    raise KeyError(param.name)
"""


def test_imports_are_allowed_by_name(nnlr_command, models):
    """A file runs no code, unless the command line says which; the error says how."""
    (models / "own_schemes.py").write_text(CODE, encoding="utf-8")
    (models / "scheme.yaml").write_text("'own_schemes:made': {}\n", encoding="utf-8")
    status, _, errors = nnlr_command("show", "makers:make_model", "-c", "scheme.yaml")
    assert 2 == status
    fix = "--allow-imports 'own_schemes:made'"
    assert fix in errors
    plan = plan_of(nnlr_command, "-c", "scheme.yaml", "--allow-imports", "own_schemes:made")
    assert 0.5 == plan["0.weight"].lr_mult
    assert fix in nnlr_command("show", "makers:make_model", "-s", "own_schemes:made")[2]


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("own_schemes:raises", "your code raises ValueError: not today (own_schemes.py, line 8)"),
        (
            "{select: {predicate: 'own_schemes:choose'}, lr_mult: 2}",
            "your code raises KeyError: '0.weight' (own_schemes.py, line 11)",
        ),
    ],
)
def test_errors_of_code_that_is_allowed(nnlr_command, models, scheme, message):
    """They are told with the user's line, and are no bug in nnlr."""
    (models / "own_schemes.py").write_text(CODE, encoding="utf-8")
    arguments = ("-s", scheme, "--allow-imports", "own_schemes:*")
    status, output, errors = nnlr_command("show", "makers:make_model", *arguments)
    assert (2, "", f"made\nError: {message}\n") == (status, output, errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-s", "layer_decy=1"), "'layer_decy=1': there is no scheme 'layer_decy'. Nearest: 'lay"),
        (("-s", "layer_decay"), "'layer_decay': layer_decay needs 'decay'."),
        (("-s", "layer_decay={decy: 1}"), "has no argument 'decy'. Nearest: 'decay'."),
        (("-s", "layer_decay=[1"), "--scheme layer_decay: '[1' is no value of YAML: line 1: "),
        (("-s", "layer_decy: 1"), "Error: 'layer_decy: 1': there is no scheme 'layer_decy: 1'."),
        (("-s", "layer_decay=2"), "decay must be a finite number > 0 and <= 1, got 2"),
        (("-s", "rule={select: '3.*', lr_mult: 2}"), "rule '3.*' matches no parameter"),
        (("-c", "shceme.yaml"), "There is no file 'shceme.yaml'. Nearest: 'scheme.yaml'."),
        (("-c", "scheme.yaml"), "scheme.yaml: scheme.layer_decy: there is no scheme"),
        (("-c", "makers.py"), "makers.py: its name must end in .yaml, .yml or .json"),
        (("--lr", "fast"), "--lr must be a number such as 1e-3, or muon=0.02 for an algorithm"),
        (("--lr", "-1"), "lr must be a finite number > 0, got -1"),
        (("--lr", "1", "--lr", "2"), "--lr is one number, or one for each algorithm"),
        (("--weight-decay", "a=1", "--weight-decay", "a=2"), "--weight-decay is one number, or"),
        (("--steps", "3"), "--steps shows the course of a schedule, and there is none"),
        (("-c", "plain.yaml", "--steps", "3"), "--steps shows the course of a schedule, and"),
        (("--steps", "0"), "--steps"),
        (("--columns", "rol"), "Nearest: 'role'"),
        (("--columns", "bytes"), "--optimizer AdamW"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_is_wrong_with_an_option(nnlr_command, models, arguments, message):
    """Exit status 2, with what was written, where, and the nearest name."""
    (models / "scheme.yaml").write_text("layer_decy: 0.5\n", encoding="utf-8")
    (models / "plain.yaml").write_text("layer_decay: 0.5\n", encoding="utf-8")
    status, output, errors = nnlr_command("show", "makers:make_model", *arguments)
    assert (2, "") == (status, output)
    assert message in errors


# --- nnlr config ------------------------------------------------------------------------


def test_options_as_a_configuration(nnlr_command, models):
    """What is dumped gives the same plan, as YAML and as JSON, and is valid."""
    options = ("-s", "layer_decay=0.5", "-s", "no_weight_decay", "--lr", "0.3", "--decay", "sqrt")
    status, text, _ = nnlr_command("config", "dump", *options)
    assert 0 == status
    assert [{"layer_decay": 0.5}, "no_weight_decay"] == yaml.safe_load(text)["scheme"]
    plan = plan_of(nnlr_command, *options)
    for name in ("dumped.yaml", "dumped.json"):
        assert 0 == nnlr_command("config", "dump", *options, "--out", name)[0]
        assert plan == plan_of(nnlr_command, "-c", name)
        status, output, _ = nnlr_command("config", "check", name)
        assert (0, f"{name} is a valid recipe:") == (status, output.splitlines()[0])
        assert "  decay: sqrt\n  scheme: layer_decay(0.5) * no_weight_decay()\n" in output


def test_text_that_looks_like_a_number_stays_text(nnlr_command, models):
    """By YAML 1.2, which is read, and not only by PyYAML's 1.1."""
    rule = "rule={select: '1e-3', lr_mult: 2}"
    assert 0 == nnlr_command("config", "dump", "-s", rule, "-o", "s.yaml")[0]
    assert "rule('1e-3', lr_mult=2.0)" in nnlr_command("config", "check", "s.yaml")[1]


def test_a_scheme_alone_is_told_from_a_recipe(nnlr_command, models):
    """`config check` says which of the two a file is."""
    (models / "scheme.yaml").write_text("layer_decay: 0.5\n", encoding="utf-8")
    checked = nnlr_command("config", "check", "scheme.yaml")
    assert (0, "scheme.yaml is a valid scheme: layer_decay(0.5)\n", "") == checked


def test_a_wrong_configuration(nnlr_command, models):
    """The path of the key and the nearest valid one."""
    (models / "recipe.yaml").write_text("lr: 1\nschem: no_weight_decay\n", encoding="utf-8")
    status, _, errors = nnlr_command("config", "check", "recipe.yaml")
    assert 2 == status
    assert "recipe.yaml: schem: a recipe has no 'schem'. Nearest: 'scheme'" in errors


def test_the_schema_is_json(nnlr_command):
    """As editors read it."""
    status, output, _ = nnlr_command("config", "schema")
    assert 0 == status
    assert "layer_decay" in json.dumps(json.loads(output))
