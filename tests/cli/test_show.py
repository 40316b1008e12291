"""`nnlr show`, `explain`, `diff` and `schemes`: what they write, in each format."""

import csv
import io
import json

import pytest
from torch import nn

import nnlr
from nnlr.cli import _show
from tests.helpers import public_names

FORMATS = {
    "table": ".txt",
    "json": ".json",
    "csv": ".csv",
    "markdown": ".md",
    "html": ".html",
}
SLOW = "rule={select: '0.*', lr_mult: 0.1}"


@pytest.mark.parametrize("format_name", FORMATS)
def test_each_format(nnlr_command, models, format_name):
    """A file's ending asks for the same format as the option; both give the same text."""
    scheme = ("makers:make_model", "-s", SLOW)
    status, output, errors = nnlr_command("show", *scheme, "--format", format_name)
    assert 0 == status, errors
    path = models / f"plan{FORMATS[format_name]}"
    status, nothing, errors = nnlr_command("show", *scheme, "--out", path)
    assert (0, "") == (status, nothing)
    assert f"wrote {path} (" in errors
    assert output == path.read_text(encoding="utf-8")
    assert "\x1b" not in output
    match format_name:
        case "json":
            assert 1e-4 == nnlr.Plan.from_json(output)["0.weight"].lr
        case "csv":
            assert 4 == len(list(csv.DictReader(io.StringIO(output))))
        case "html":
            assert output.startswith("<!")
        case _:
            assert "0.0001" in output


def test_a_picture(nnlr_command, models):
    """The ending of a picture draws one; what has none says so."""
    pytest.importorskip("matplotlib")
    status, _, errors = nnlr_command("show", "makers:make_model", "-s", SLOW, "-o", "plan.svg")
    assert 0 == status, errors
    assert "<svg" in (models / "plan.svg").read_text(encoding="utf-8")
    status, _, errors = nnlr_command("explain", "makers:make_model", "0.bias", "-o", "x.png")
    assert 2 == status
    assert "There is no picture of this: it comes as table, json." in errors


RECIPE = """
lr: 0.1
weight_decay: 0
algorithms: SGD
schedule: {class: CosineAnnealingLR, T_max: 10}
"""


def test_the_course_of_a_schedule(nnlr_command, models):
    """Over so many steps of the recipe's schedule, as a picture and on the page."""
    pytest.importorskip("matplotlib")
    (models / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    options = ("makers:make_model", "-c", "recipe.yaml", "--steps", "10")
    for name in ("rates.svg", "page.html"):
        status, _, errors = nnlr_command("show", *options, "--out", name)
        assert 0 == status, errors
        assert "CosineAnnealingLR" in (models / name).read_text(encoding="utf-8")


def test_the_course_of_what_moves(nnlr_command, models):
    """Without a schedule too, by steps and by epochs; the table says what moves."""
    pytest.importorskip("matplotlib")
    phases = "unfreeze={phases: [{train: '1.*'}, {train: '*', epoch: 2}]}"
    show = ("show", "makers:make_model", "-s", phases)
    assert "nnlr.attach(optimizer, plan, total_steps=...)" in nnlr_command(*show)[1]
    for rest, word in (((), "epoch_steps="), (("--epoch-steps", "4"), "epochs of 4 steps")):
        status, _, errors = nnlr_command(*show, "--steps", "9", *rest, "--out", "page.html")
        assert 0 == status, errors
        assert "Constant base rate" in (models / "page.html").read_text(encoding="utf-8")
        assert word in (models / "page.html").read_text(encoding="utf-8")
    assert 0 == nnlr_command(*show, "--steps", "9", "--out", "rates.png")[0]
    status, _, errors = nnlr_command(*show, "--epoch-steps", "4")
    assert 2 == status
    assert "--epoch-steps says how long an epoch is in the course of --steps N" in errors


def test_rows_and_columns(nnlr_command, models):
    """All rows, those that are trained, other columns, and the bytes of an optimizer's state."""
    show = ("show", "makers:make_model", "-a", "depth=9", "-s", "freeze='0.*'")
    short = nnlr_command(*show)[1]
    assert "3.weight" not in short
    assert "3.weight" in nnlr_command(*show, "--full")[1]
    assert "0.weight" in short
    assert "0.weight" not in nnlr_command(*show, "--trained", "--full")[1]
    assert "matrix" in nnlr_command(*show, "--columns", "+role")[1]
    assert "bytes" in nnlr_command(*show, "--columns", "+bytes", "--optimizer", "AdamW")[1]
    (models / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    assert "bytes" in nnlr_command(*show, "--columns", "+bytes", "-c", "recipe.yaml")[1]


def test_a_table_that_is_too_long():
    """It names the option that shows all of it, and the command that shows all findings."""
    net = nn.ModuleDict({f"part_{at}": nn.PReLU(at + 1) for at in range(90)})
    rates = [nnlr.rule(f"part_{at}.*", lr_mult=1e-5 * (at + 1)) for at in range(90)]
    plan = nnlr.resolve(net, *rates, lr=1, weight_decay=0)
    assert "see table(full=True)" in plan.table()
    text = _show._by_options(plan.table())
    assert "more lines: see --full" in text
    assert "more findings: see nnlr check" in text
    assert "table(full" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "nowhere/plan.json"), "there is no folder 'nowhere'"),
        (("-o", "plan.jsn"), "the ending '.jsn' says no format. Nearest: '.json'"),
        (("-o", "folder.json"), "'folder.json' cannot be written: Is a directory"),
    ],
)
def test_files_that_cannot_be_written(nnlr_command, models, arguments, message):
    """A line that says why, and exit status 2."""
    (models / "folder.json").mkdir()
    status, _, errors = nnlr_command("show", "makers:make_model", *arguments)
    assert 2 == status
    assert message in errors


def test_a_dash_is_the_output(nnlr_command, models):
    """As other commands have it, and not a file of that name."""
    shown = nnlr_command("show", "makers:made", "-f", "csv")
    assert shown == nnlr_command("show", "makers:made", "-f", "csv", "-o", "-")
    assert not (models / "-").exists()


def test_an_unknown_ending_with_a_format(nnlr_command, models):
    """The option says what the ending does not."""
    assert 0 == nnlr_command("show", "makers:made", "-o", "plan.dat", "-f", "json")[0]
    assert nnlr.Plan.from_json((models / "plan.dat").read_text(encoding="utf-8"))


def test_a_saved_plan(nnlr_command, models):
    """It is shown, explained and given other base rates; a scheme it has already."""
    assert 0 == nnlr_command("show", "makers:make_model", "-s", SLOW, "-o", "plan.json")[0]
    status, output, _ = nnlr_command("show", "plan.json", "--lr", "0.01")
    assert 0 == status
    assert "base lr 0.01" in output
    assert "rule '0.*'" in nnlr_command("explain", "plan.json", "0.bias")[1]
    for option in (("-s", SLOW), ("-c", "x.yaml"), ("--decay", "sqrt")):
        assert "a saved plan has its scheme" in nnlr_command("show", "plan.json", *option)[2]
    assert "a saved plan takes no" in nnlr_command("show", "plan.json", "-a", "x=1")[2]
    for command in ("show", "check"):
        status, _, errors = nnlr_command(command, "plan.json", "--optimizer", "AdamW")
        assert 2 == status
        assert "model" in errors
    (models / "torn.json").write_text('{"nnlr_plan": 99}', encoding="utf-8")
    assert "This plan has the layout 99" in nnlr_command("show", "torn.json")[2]


# --- explain and schemes ------------------------------------------------------------------


def test_explanations(nnlr_command, models):
    """Of names and patterns, each once, as text or as data."""
    explain = ("explain", "makers:make_model", "0.*", "0.bias", "-s", SLOW)
    status, output, _ = nnlr_command(*explain)
    assert 0 == status
    assert ["0.weight", "0.bias"] == [
        line for line in output.splitlines() if line and line[0] != " "
    ]
    rows = json.loads(nnlr_command(*explain, "-f", "json")[1])
    assert [("0.weight", "rule '0.*'"), ("0.bias", "rule '0.*'")] == [
        (row["name"], row["trace"][0]["source"]) for row in rows
    ]


def test_typos_in_a_parameter(nnlr_command, models):
    """The nearest names, or what names begin with."""
    status, _, errors = nnlr_command("explain", "makers:make_model", "0.wieght")
    assert 2 == status
    assert "Nearest: '0.weight'" in errors
    status, _, errors = nnlr_command("explain", "makers:make_model", "x.*")
    assert 2 == status
    assert "'x.*' matches no parameter of Sequential. Names begin with: 0, 1." in errors


def test_it_lists_every_scheme(nnlr_command, golden):
    """With its defaults and its first line, in 80 columns."""
    status, output, _ = nnlr_command("schemes")
    assert 0 == status
    assert 80 >= max(map(len, output.splitlines()))
    for name in public_names(nnlr.schemes):
        assert f"\n{name}(" in f"\n{output}"
    golden("cli_schemes", output.rstrip("\n"))
    as_data = json.loads(nnlr_command("schemes", "-f", "json")[1])
    assert public_names(nnlr.schemes) == [entry["name"] for entry in as_data]
    assert "- `layer_decay(decay, " in nnlr_command("schemes", "-f", "markdown")[1]


def test_all_of_one_scheme(nnlr_command):
    """Its documentation without marks of markup; a typo names the nearest."""
    status, output, _ = nnlr_command("schemes", "layer_decay")
    assert 0 == status
    assert output.startswith("layer_decay(decay, ")
    assert "min_mult: No layer gets less than this" in output
    assert "`" not in output
    assert "Nearest: 'layer_decay'" in nnlr_command("schemes", "layerdecay")[2]
    assert "There are alpha_decay, assign" in nnlr_command("schemes", "x")[2]
    status, _, errors = nnlr_command("schemes", "-f", "csv")
    assert 2 == status
    assert "This has no format 'csv': it comes as table, json, markdown." in errors


# --- diff ---------------------------------------------------------------------------------


def test_differences_of_a_model(nnlr_command, models):
    """Two schemes, a scheme and none, or two files; what both have is said once."""
    (models / "slow.yaml").write_text("rule: {select: '0.*', lr_mult: 0.1}\n", encoding="utf-8")
    for sides in (("none", SLOW), ("none", "slow.yaml"), ("none", f"{SLOW} * no_weight_decay")):
        status, output, _ = nnlr_command("diff", "makers:make_model", *sides)
        assert 0 == status
        assert "0.001 -> 0.0001" in output
    both = ("diff", "makers:make_model", "none", SLOW, "-s", "no_weight_decay")
    assert "weight" not in nnlr_command(*both)[1].partition("0.0001")[2]
    same = ("diff", "makers:make_model", SLOW, "slow.yaml", "--exit-code")
    assert (0, "no difference\n") == nnlr_command(*same)[:2]


def test_the_exit_status_of_a_difference(nnlr_command, models):
    """1 with --exit-code if there is one, as diff and git have it; 0 without."""
    sides = ("diff", "makers:make_model", "none", SLOW)
    assert 0 == nnlr_command(*sides)[0]
    assert 1 == nnlr_command(*sides, "--exit-code")[0]


@pytest.mark.parametrize("format_name", ["json", "markdown", "html"])
def test_formats_of_a_difference(nnlr_command, models, format_name):
    """Of two saved plans, without a model."""
    for name, lr in (("old.json", "0.1"), ("new.json", "0.2")):
        nnlr_command("show", "makers:make_model", "--lr", lr, "-o", name)
    status, output, errors = nnlr_command("diff", "old.json", "new.json", "-f", format_name)
    assert 0 == status, errors
    match format_name:
        case "json":
            assert [0.1, 0.2] == json.loads(output)["changed"][0]["changes"]["lr"]
        case "markdown":
            assert output.startswith("**4 of 4 parameters changed**")
        case "html":
            assert output.startswith("<!")


def test_a_picture_of_a_difference(nnlr_command, models):
    """As an image."""
    pytest.importorskip("matplotlib")
    status, _, errors = nnlr_command("diff", "makers:make_model", "none", SLOW, "-o", "diff.svg")
    assert 0 == status, errors
    assert (models / "diff.svg").stat().st_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-s", "no_weight_decay"), "--scheme is for a model; a saved plan has its scheme."),
        (("--decay", "sqrt"), "--decay is for a model"),
        (("-a", "depth=3"), "--arg is for a model: nnlr diff MODEL A B."),
    ],
)
def test_options_that_saved_plans_do_not_take(nnlr_command, models, options, message):
    """They are refused, as by `nnlr show`, and never passed over; base rates are changed."""
    nnlr_command("show", "makers:made", "-o", "old.json")
    assert message in nnlr_command("diff", "old.json", "old.json", *options)[2]
    nnlr_command("show", "makers:made", "--lr", "3", "-o", "new.json")
    assert "0.001 -> 3" in nnlr_command("diff", "old.json", "new.json")[1]
    assert (0, "no difference\n", "") == nnlr_command("diff", "old.json", "new.json", "--lr", "3")


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (("none",), "diff takes a model and two sides"),
        (("makers:made", "none"), "'makers:made' is no saved plan; of a scheme say for which"),
        (("makers:made", "none", "x.yaml"), "There is no file 'x.yaml'."),
        (("makers:made", "none", "layer_decy=1"), "Nearest: 'layer_decay'"),
        (("old.json", "new.json"), "There is no file 'old.json'."),
        (("makers:made", "x.json", "none"), "There is no file 'x.json'."),
    ],
)
def test_what_is_wrong_with_a_side(nnlr_command, models, sides, message):
    """How sides are written, and the nearest name."""
    status, _, errors = nnlr_command("diff", *sides)
    assert 2 == status
    assert message in errors
