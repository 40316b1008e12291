"""A plan and a difference as Markdown and CSV, with names that mean something there."""

import csv
import json
import re
from io import StringIO

from torch import nn

import nnlr

NASTY = ["a|b", "`tick`", "``", "<script>", "a\nb", "=1+1", "@someone", "*star*", "\u202e", "層"]


def nasty(scheme=None) -> nnlr.Plan:
    """A plan whose names mean something in Markdown, HTML and spreadsheets."""
    model = nn.ParameterDict({name: nn.Parameter(nn.Linear(1, 1).weight) for name in NASTY})
    schemes = [scheme] if scheme else []
    return nnlr.resolve(model, *schemes, lr=0.1, weight_decay=0)


class TestCsv:
    """`plan.to_csv()`."""

    def test_every_row_is_read_back(self):
        """A reader of CSV gets each parameter with its rates, in all digits."""
        scheme = nnlr.rule("*", lr_mult=1 / 3, options={"betas": (0.9, 0.95)})
        plan = nnlr.resolve(nn.Linear(2, 3), scheme, lr=0.1, weight_decay=0.05)
        read = list(csv.DictReader(StringIO(plan.to_csv())))
        assert [row.name for row in plan.rows] == [row["name"] for row in read]
        assert [row.lr for row in plan.rows] == [float(row["lr"]) for row in read]
        assert {"betas": [0.9, 0.95]} == json.loads(read[0]["options"])
        assert ["3x2", "3"] == [row["shape"] for row in read]

    def test_no_name_is_a_formula(self):
        """A spreadsheet takes what begins with = or @ for a formula; such names are quoted."""
        names = [row["name"] for row in csv.DictReader(StringIO(nasty().to_csv()))]
        assert {"'=1+1", "'@someone", "a\\nb", "\\u202e"} < set(names)

    def test_layers_and_towers_are_there(self):
        """Where a scheme asked for depth, a row says its layer."""
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        plan = nnlr.resolve(net, nnlr.layer_decay(0.5), lr=1, weight_decay=0)
        read = list(csv.DictReader(StringIO(plan.to_csv())))
        assert ["0", "0", "1", "1"] == [row["layer"] for row in read]


class TestMarkdown:
    """`plan.to_markdown()` and `PlanDiff.to_markdown()`."""

    def test_a_row_has_as_many_cells_as_the_heading(self):
        """Pipes in names are escaped: every line of the table has the same cells."""
        text = nasty().to_markdown(full=True)
        table = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
        assert len(NASTY) + 2 == len(table)
        assert {table[0].count("|")} == {line.count("|") for line in table}

    def test_a_plan(self, golden):
        """The whole text: heading, table, footer."""
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        scheme = nnlr.rule("1.*", lr_mult=3, options={"betas": (0.9, 0.95)})
        golden("markdown_plan", nnlr.resolve(net, scheme, lr=0.1, weight_decay=0).to_markdown())

    def test_a_difference(self, golden):
        """The whole text: a summary, what changed and why, what came and went."""
        old = nnlr.resolve(nn.Sequential(nn.Linear(2, 2)), lr=0.1, weight_decay=0)
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        new = nnlr.resolve(net, nnlr.rule("0.*", lr_mult=3), lr=0.1, weight_decay=0)
        golden("markdown_diff", old.diff(new).to_markdown())

    def test_a_plan_of_nothing(self):
        """No block is empty."""
        text = nnlr.resolve(nn.Identity(), lr=0.1, weight_decay=0).to_markdown()
        assert "```text\n```" not in text

    def test_a_long_difference_is_folded_away(self):
        """More than a few lines stand in details, whose summary tells the range of the rates."""
        net = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(30))
        old = nnlr.resolve(net, nnlr.layer_decay(0.9), lr=0.1, weight_decay=0)
        options = nnlr.rule("0.*", options={"betas": (0.9, 0.95), "note": "<b>|"})
        new = nnlr.resolve(net, nnlr.layer_decay(0.8) * options, lr=0.1, weight_decay=0)
        text = old.diff(new).to_markdown()
        assert re.search(
            r"<details><summary>lr 0\.\d+\.\.0\.09 → 0\.\d+\.\.0\.08 in 28 lines", text
        )
        assert r"`None → <b>\|`" in text

    def test_more_than_a_table_holds(self):
        """The middle is left out, as in a terminal."""
        names = [f"{chr(97 + k % 26)}{'z' * k}" for k in range(90)]
        net = nn.ModuleDict({name: nn.PReLU() for name in names})
        rules = [nnlr.rule(f"{name}.weight", lr_mult=2 + at) for at, name in enumerate(names)]
        text = nnlr.resolve(net, *rules, lr=0.1, weight_decay=0).to_markdown()
        assert "| ... |" in text
        assert "more lines: see table(full=True)" in text

    def test_no_rows(self):
        """A model without parameters has a heading."""
        text = nnlr.resolve(nn.ReLU(), lr=0.1, weight_decay=0).to_markdown()
        assert text.startswith("**`ReLU`**: 0 parameters")
        assert "|" not in text


def test_a_difference_as_data():
    """What JSON has: added, removed and changed rows, old and new, and the factors behind."""
    old = nnlr.resolve(nn.Linear(1, 1), lr=0.1, weight_decay=0)
    scheme = nnlr.rule("*", lr_mult=0.5, options={"betas": (0.9, 0.95)})
    new = nnlr.resolve(nn.Linear(1, 1, bias=False), scheme, lr=0.1, weight_decay=0)
    facts = json.loads(json.dumps(old.diff(new).to_dict()))
    assert ["bias"] == [row["name"] for row in facts["removed"]]
    (changed,) = facts["changed"]
    assert [0.1, 0.05] == changed["changes"]["lr"]
    assert [None, [0.9, 0.95]] == changed["changes"]["betas"]
    assert ["rule '*': lr_mult 0.5, betas=(0.9, 0.95)"] == changed["now"]
    assert (0, []) == (facts["unchanged"], facts["added"])
